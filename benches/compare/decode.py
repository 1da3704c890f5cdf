"""Pillow's pace at what `cargo bench --bench pipeline -- decode` measures, on the JPEG that it leaves in
target/tmp/radiograph.jpg: grey, 1500 px, decoded and resized to 299. One thread.

python3 benches/compare/decode.py [FILE]
"""
import io
import pathlib
import statistics
import sys
import time

import numpy as np
import PIL
from PIL import Image

place = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2] / "target/tmp/radiograph.jpg"
jpeg = pathlib.Path(place).read_bytes()


def once():
    began = time.perf_counter()
    image = Image.open(io.BytesIO(jpeg)).convert("L").resize((299, 299), Image.Resampling.BILINEAR)
    np.asarray(image)
    return time.perf_counter() - began


times = sorted(once() for _ in range(60))
print(f"Pillow {PIL.__version__}: median {statistics.median(times) * 1e3:.2f} ms of {len(jpeg)} bytes, one thread")
