"""Tiny DICOM files and the pixels that pydicom and numpy make of them: writes dicom/*.dcm and dicom.json beside itself.

Needs pydicom, numpy, Pillow, pylibjpeg with its openjpeg and libjpeg plugins, and imagecodecs (for JPEG lossless and 12-bit
JPEG). `shown` is the reference that benches/quality/dicom.py also holds real files against.
"""
import copy
import io
import json
import pathlib

import numpy as np
from PIL import Image
from pydicom import config
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut, convert_color_space, pixel_array
from pydicom.sequence import Sequence
from pydicom.uid import (ExplicitVRBigEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian,
                         JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless,
                         RLELossless)

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 16, 12


def shown(ds, window="file"):
    """What a viewer shows: grey as floats from 0 to 255, or RGB of 8 bits. `window`: file, range, or [center, width]."""
    stored = pixel_array(ds, raw=False)
    if ds.HighBit != ds.BitsStored - 1:  # pydicom leaves the value where it is
        stored = np.frombuffer(ds.PixelData, "<u2").reshape(stored.shape) >> (ds.HighBit + 1 - ds.BitsStored)
        stored &= 2**ds.BitsStored - 1
    if ds.SamplesPerPixel == 3:
        top = 2 ** ds.BitsStored - 1
        return stored.astype(float) * 255 / top
    values = apply_modality_lut(stored, ds).astype(float)
    bits = ds.BitsStored
    padded = np.zeros(stored.shape, bool)
    if "PixelPaddingValue" in ds:
        ends = sorted([ds.PixelPaddingValue, ds.get("PixelPaddingRangeLimit", ds.PixelPaddingValue)])
        padded = (stored >= ends[0]) & (stored <= ends[1])
    if window == "file" and "VOILUTSequence" in ds:
        grey = apply_voi_lut(values.astype(int), ds).astype(float) / (2 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1)
    elif window == "range" or (window == "file" and "WindowCenter" not in ds):
        low, high = values[~padded].min(), values[~padded].max()
        if window == "file" and bits <= 8:
            ends = np.array([0, 2**bits - 1]) - (2 ** (bits - 1) if ds.PixelRepresentation else 0)
            ends = ends * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
            low, high = ends.min(), ends.max()
        grey = (values - low) / (high - low) if high > low else np.zeros(values.shape)
    else:
        given = copy.copy(ds)
        if window != "file":
            given = Dataset()
            given.update({e.tag: e for e in ds if e.tag.group == 0x28 and e.keyword not in ("VOILUTSequence", "VOILUTFunction")})
            given.WindowCenter, given.WindowWidth = window
        windowed = apply_voi_lut(values, given, prefer_lut=False)
        # pydicom scales to the range of the stored bits.
        ends = apply_voi_lut(np.array([[-1e9, 1e9]]), given, prefer_lut=False)[0]
        grey = (windowed - ends[0]) / (ends[1] - ends[0])
    if ds.PhotometricInterpretation == "MONOCHROME1" or ds.get("PresentationLUTShape") == "INVERSE":
        grey = 1 - grey
    grey[padded] = 0
    return np.clip(grey, 0, 1) * 255


def picture(levels, channels=1, low=0):
    """A smooth picture with some structure: whole numbers from `low` over so many levels."""
    y, x, c = np.mgrid[0:HEIGHT, 0:WIDTH, 0:channels]
    wave = np.sin(x / 3) + np.cos(y / 2 + c) + (x + y + c) % 3 / 4
    wave = (wave - wave.min()) / (wave.max() - wave.min())
    return (np.rint(wave * (levels - 1)) + low).astype(int).squeeze()


def file(pixels, bits, photometric="MONOCHROME2", syntax=ExplicitVRLittleEndian, signed=False, **attributes):
    """A data set whose stored values are `pixels`, not compressed."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.ImplementationClassUID = "1.2.3"
    meta.TransferSyntaxUID = syntax
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=syntax == ImplicitVRLittleEndian,
                     is_little_endian=syntax != ExplicitVRBigEndian)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.ViewPosition, ds.PatientID, ds.BurnedInAnnotation = "DX", "PA", "P-1", "NO"
    ds.Rows, ds.Columns = HEIGHT, WIDTH
    ds.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(signed)
    if ds.SamplesPerPixel == 3:
        ds.PlanarConfiguration = 0
    for name, value in attributes.items():
        setattr(ds, name, value)
    kind = ("<", ">")[syntax == ExplicitVRBigEndian] + ("u", "i")[signed] + str(ds.BitsAllocated // 8)
    ds.PixelData = pixels.astype(kind).tobytes()
    ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"
    return ds


def compressed(ds, syntax, stream):
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


def table(first, entries, bits):
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "US" if first >= 0 else "SS"
    item.LUTData = np.asarray(entries, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return Sequence([item])


def jpeg(pixels, **options):
    out = io.BytesIO()
    Image.fromarray(pixels.astype("u1")).save(out, "JPEG", quality=100, subsampling=0, **options)
    return out.getvalue()


def j2k(pixels, bits, level=0, reversible=True, mct=False):
    import imagecodecs

    return imagecodecs.jpeg2k_encode(pixels, level=level, codecformat="J2K", resolutions=2, bitspersample=bits,
                                     reversible=reversible, mct=mct)


def readable():
    """Files that are read, by name."""
    import imagecodecs

    twelve, sixteen, eight = picture(4000, low=40), picture(60000, low=100), picture(250, low=3)
    hounsfield, rgb = picture(1500, low=-900), picture(256, 3)
    level = {"WindowCenter": [2000, 100], "WindowWidth": [3000, 10]}
    yield "mono2_12", file(twelve, 12, **level)
    yield "mono1_12", file(twelve, 12, "MONOCHROME1", **level)
    yield "mono1_12_inverse", file(twelve, 12, "MONOCHROME1", PresentationLUTShape="INVERSE", **level)
    yield "mono2_12_inverse", file(twelve, 12, PresentationLUTShape="INVERSE", **level)
    yield "mono2_12_identity", file(twelve, 12, PresentationLUTShape="IDENTITY", **level)
    yield "mono2_16_no_window", file(sixteen, 16)
    yield "mono1_10_no_window", file(picture(900, low=50), 10, "MONOCHROME1")
    yield "mono2_8_no_window", file(eight, 8)
    yield "mono2_7_signed", file(picture(100, low=-40), 7, signed=True)
    yield "window_of_no_width", file(twelve, 12, WindowCenter=100, WindowWidth=0)
    yield "threshold", file(twelve, 12, WindowCenter=2000, WindowWidth=1)
    yield "sigmoid", file(twelve, 12, VOILUTFunction="SIGMOID", **level)
    yield "linear_exact", file(twelve, 12, VOILUTFunction="LINEAR_EXACT", **level)
    ct = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "Modality": "CT"}
    yield "ct_unsigned", file(hounsfield + 1024, 12, WindowCenter="40", WindowWidth="400", **ct)
    corner = hounsfield.copy()
    corner[:3, :5] = -2000
    yield "ct_padded", file(corner, 16, signed=True, PixelPaddingValue=-2000, RescaleSlope="1", RescaleIntercept="0")
    corner = twelve.copy()
    corner[:3, :5], corner[3:5, :5] = 4095, 4090
    yield "padding_range", file(corner, 12, "MONOCHROME1", PixelPaddingValue=4095, PixelPaddingRangeLimit=4090, **level)
    yield "slope", file(twelve, 12, RescaleSlope="0.25", RescaleIntercept="-7.5", WindowCenter="300", WindowWidth="555.5")
    curve = np.rint(1023 * np.sqrt(np.arange(3000) / 2999))
    yield "voi_table", file(twelve, 12, VOILUTSequence=table(500, curve, 10), **level)
    yield "voi_table_negative", file(hounsfield, 16, signed=True, VOILUTSequence=table(-800, curve[:1000], 10))
    yield "modality_table", file(twelve, 12, ModalityLUTSequence=table(20, np.arange(4000) ** 2 // 250, 16), WindowCenter=30000,
                                 WindowWidth=50000)
    shifted = file(twelve * 4 + 3, 16, **level)
    shifted.BitsStored, shifted.HighBit = 12, 13
    yield "high_bit", shifted
    yield "implicit", file(twelve, 12, syntax=ImplicitVRLittleEndian, **level)
    yield "big_endian", file(twelve, 12, syntax=ExplicitVRBigEndian, **level)
    yield "deflated", file(twelve, 12, syntax=DeflatedExplicitVRLittleEndian, **level)
    rle = file(twelve, 12, **level)
    rle.compress(RLELossless, generate_instance_uid=False)
    yield "rle_12", rle
    rle = file(rgb, 8, "RGB")
    rle.compress(RLELossless, generate_instance_uid=False)
    yield "rle_rgb", rle
    lossless = imagecodecs.jpeg_encode(twelve.astype("u2"), bitspersample=12, lossless=True)
    yield "jpeg_lossless_12", compressed(file(twelve, 12, **level), JPEGLosslessSV1, lossless)
    signed = imagecodecs.jpeg_encode(hounsfield.astype("i2").view("u2"), bitspersample=16, lossless=True)
    window = {"WindowCenter": -100, "WindowWidth": 900}
    yield "jpeg_lossless_signed", compressed(file(hounsfield, 16, signed=True, **window), JPEGLosslessSV1, signed)
    yield "signed", file(hounsfield, 16, signed=True, **window)
    yield "jpeg_grey", compressed(file(eight, 8), JPEGBaseline8Bit, jpeg(eight))
    yield "jpeg_ybr", compressed(file(rgb, 8, "YBR_FULL_422"), JPEGBaseline8Bit, jpeg(rgb))
    plain = imagecodecs.jpeg8_encode(rgb.astype("u1"), level=100, colorspace="RGB", outcolorspace="RGB")
    yield "jpeg_rgb", compressed(file(rgb, 8, "RGB"), JPEGBaseline8Bit, plain)
    yield "j2k_12", compressed(file(twelve, 12, **level), JPEG2000Lossless, j2k(twelve.astype("u2"), 12))
    signed = file(hounsfield, 12, signed=True, **window)
    yield "j2k_signed", compressed(signed, JPEG2000Lossless, j2k(hounsfield.astype("i2"), 12))
    # Written by some as unsigned, whatever the header says.
    signed = file(hounsfield, 12, signed=True, **window)
    yield "j2k_unsigned_stream", compressed(signed, JPEG2000Lossless, j2k((hounsfield & 4095).astype("u2"), 12))
    yield "j2k_rgb", compressed(file(rgb, 8, "YBR_RCT"), JPEG2000Lossless, j2k(rgb.astype("u1"), 8, mct=True))
    lossy = j2k(twelve.astype("u2"), 12, level=60, reversible=False)
    yield "j2k_lossy", compressed(file(twelve, 12, **level), JPEG2000, lossy)
    yield "rgb", file(rgb, 8, "RGB")
    planar = file(rgb, 8, "RGB", PlanarConfiguration=1)
    planar.PixelData = rgb.astype("u1").transpose(2, 0, 1).tobytes()
    yield "rgb_planar", planar
    yield "rgb_16", file(picture(60000, 3), 16, "RGB")
    ycc = convert_color_space(rgb.astype("u1"), "RGB", "YBR_FULL")
    yield "ybr_full", file(ycc, 8, "YBR_FULL")
    halved = ycc.copy()
    halved[:, 1::2, 1:] = halved[:, ::2, 1:]
    ds = file(halved, 8, "YBR_FULL_422")
    pairs = halved.reshape(-1, 2, 3)
    ds.PixelData = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], 1).tobytes()
    yield "ybr_full_422", ds


def refused():
    """Files that are refused, by name, with a part of the reason."""
    import imagecodecs

    twelve = picture(4000)
    frames = file(np.stack([twelve, twelve]), 12, NumberOfFrames=2)
    yield "frames", frames, "2 frames"
    empty = file(twelve, 12, Modality="SR")
    del empty.PixelData
    yield "no_pixels", empty, "without pixels (SR)"
    palette = file(picture(200), 8, "PALETTE COLOR")
    yield "palette", palette, "in PALETTE COLOR"
    yield "bits_32", file(twelve, 12, BitsAllocated=32), "with 32 bits a sample"
    yield "jpeg_ls", compressed(file(twelve, 12), JPEGLSLossless, b"\xff\xd8\xff\xf7" + b"\0" * 60), "as JPEG-LS Lossless"
    lossy = imagecodecs.jpeg_encode(twelve.astype("u2"), bitspersample=12, level=95)
    yield "jpeg_12", compressed(file(twelve, 12), JPEGExtended12Bit, lossy), "as 12-bit lossy JPEG"
    short = file(twelve, 12)
    short.PixelData = short.PixelData[:-20]
    yield "short", short, "has 364 bytes of pixels of 384"
    tall = compressed(file(twelve, 12), JPEG2000Lossless, j2k(twelve.astype("u2"), 12))
    tall.Rows = HEIGHT + 1
    yield "j2k_other_size", tall, "JPEG 2000 stream: its size is not that of the header"
    cut = file(twelve, 12)
    cut.compress(RLELossless, generate_instance_uid=False)
    stream = cut.PixelData
    cut.PixelData = encapsulate([stream[16:-60]])
    yield "rle_cut", cut, "broken RLE stream"
    nameless = file(twelve, 12)
    del nameless.PhotometricInterpretation
    yield "no_photometric", nameless, "without a usable `Photometric Interpretation`"


def main():
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    folder = HERE / "dicom"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    golden = {"shown": [], "refused": []}

    def save(name, ds):
        ds.save_as(folder / f"{name}.dcm", enforce_file_format=True)

    def add(name, window, ds):
        pixels = np.rint(shown(ds, window)).astype(int).ravel().tolist()
        golden["shown"].append({"file": name, "window": window, "channels": int(ds.SamplesPerPixel), "pixels": pixels})

    from pydicom import dcmread
    for name, ds in readable():
        save(name, ds)
        ds = dcmread(folder / f"{name}.dcm")
        if name == "window_of_no_width":
            del ds.WindowCenter, ds.WindowWidth
        add(name, "file", ds)
        if name in ("ct_padded", "mono1_12", "voi_table", "slope", "jpeg_lossless_signed", "mono2_8_no_window"):
            add(name, "range", ds)
            add(name, [50.0, 350.0], ds)
    for name, ds, reason in refused():
        save(name, ds)
        golden["refused"].append({"file": name, "reason": reason})
    (HERE / "dicom.json").write_text(json.dumps(golden, separators=(",", ":")).replace('{"file"', '\n{"file"') + "\n")


if __name__ == "__main__":
    main()
