"""Reference figures for decoding, resizing and augmentation: writes pipeline.json beside itself.

Needs numpy, scipy and Pillow. Pictures come from a formula of whole numbers, so none has to be stored.
"""
import json
import pathlib

import numpy as np
import PIL
import scipy
from PIL import Image
from scipy import ndimage


def picture(width, height, channels=1, levels=256):
    x, y, c = np.meshgrid(np.arange(width), np.arange(height), np.arange(channels), indexing="ij")
    v = (x * 7 + y * 13 + (x * y) % 31 * 3 + c * 50 + (x // 9 + y // 7) % 2 * 90) % 256
    return (v.transpose(1, 0, 2) * ((levels - 1) // 255)).astype(np.uint8 if levels == 256 else np.uint16)


def resized():
    for width, height, size in [(200, 150, 32), (37, 53, 32), (20, 12, 32), (32, 32, 32), (300, 9, 16)]:
        grey = Image.fromarray(picture(width, height)[:, :, 0])
        rgb = Image.fromarray(picture(width, height, 3))
        bilinear = Image.Resampling.BILINEAR
        yield {
            "width": width, "height": height, "size": size,
            "grey": np.asarray(grey.resize((size, size), bilinear)).ravel().tolist(),
            "luminance": np.asarray(rgb.convert("L").resize((size, size), bilinear)).ravel().tolist(),
            "rgb": np.asarray(rgb.resize((size, size), bilinear)).ravel().tolist(),
        }


def augmented():
    size = 24
    source = picture(size, size)[:, :, 0].astype(np.float64)
    plain = (1.0, (0.0, 0.0), 1.0)
    for flip, angle, brightness, edges, zoom, shift, contrast in [
        (False, 13.7, 1.0, 0.0, *plain), (True, -20.0, 1.0, 0.0, *plain), (False, 0.0, 1.25, 0.0, *plain),
        (False, 0.0, 0.8, 0.35, *plain), (True, 0.0, 1.1, 0.2, *plain), (True, 17.3, 0.9, 0.4, *plain),
        (False, 90.0, 1.0, 0.0, *plain), (True, 180.0, 1.0, 0.1, *plain), (False, 270.0, 1.0, 0.0, *plain),
        (False, 0.0, 1.0, 0.0, 1.3, (0.0, 0.0), 1.0), (False, 0.0, 1.0, 0.0, 0.7, (0.0, 0.0), 1.0),
        (False, 0.0, 1.0, 0.0, 1.0, (0.125, -0.25), 1.0), (False, 0.0, 1.2, 0.3, 1.0, (0.0, 0.0), 0.6),
        (True, 0.0, 1.0, 0.0, 1.0, (0.0, 0.0), 1.4), (True, 31.0, 0.9, 0.2, 1.15, (-0.11, 0.07), 1.2),
    ]:
        sobel = np.hypot(ndimage.sobel(source, 0, mode="nearest"), ndimage.sobel(source, 1, mode="nearest")) / 4
        lit = np.minimum((source + edges * sobel) * brightness, 255)
        pivot = brightness * source.mean()
        lit = np.clip(pivot + contrast * (lit - pivot), 0, 255) if contrast != 1 else lit
        if flip:
            lit = lit[:, ::-1]
        # An output pixel looks back, so the matrix turns the other way; rows run downwards.
        turn = np.deg2rad(angle)
        matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) / zoom
        centre = np.full(2, (size - 1) / 2)
        moved = np.array([shift[1], shift[0]]) * size
        view = ndimage.affine_transform(lit, matrix, centre - matrix @ (centre + moved), order=1, mode="nearest")
        if angle == 90.0:
            assert np.allclose(view, np.rot90(lit)), "counter-clockwise as seen"
        yield {
            "flip": flip, "angle": angle, "brightness": brightness, "edges": edges, "size": size,
            "zoom": zoom, "shift": shift, "contrast": contrast,
            "view": [round(v, 4) for v in view.ravel().tolist()],
        }


out = {
    "made_with": {"numpy": np.__version__, "scipy": scipy.__version__, "pillow": PIL.__version__},
    "resized": list(resized()),
    "augmented": list(augmented()),
}
pathlib.Path(__file__).with_name("pipeline.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
