"""Pillow's pace at what `cargo bench --bench pipeline` measures: a grey JPEG of 1500 px, decoded and resized to 299."""
import io
import statistics
import time

import numpy as np
import PIL
from PIL import Image

x, y = np.meshgrid(np.arange(1500, dtype=np.uint32), np.arange(1500, dtype=np.uint32))
wave = 128 + 60 * np.sin(x / 90) + 40 * np.cos(y / 37)
picture = (wave + (x * np.uint32(7919) ^ y * np.uint32(104729)) % 13).clip(0, 255).astype(np.uint8)
buffer = io.BytesIO()
Image.fromarray(picture).save(buffer, "JPEG", quality=90)
jpeg = buffer.getvalue()


def once():
    began = time.perf_counter()
    image = Image.open(io.BytesIO(jpeg)).convert("L").resize((299, 299), Image.Resampling.BILINEAR)
    np.asarray(image)
    return time.perf_counter() - began


times = sorted(once() for _ in range(60))
print(f"Pillow {PIL.__version__}: median {statistics.median(times) * 1e3:.2f} ms of {len(jpeg)} bytes, one thread")
