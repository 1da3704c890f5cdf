#!/usr/bin/env python3
"""Compares the scores of an exported `model.onnx` in onnxruntime with those of `hpsearch predict`.

    pip install onnx onnxruntime pillow numpy
    hpsearch export STUDY --out MODEL --onnx
    python3 benches/quality/onnx_check.py MODEL IMAGES... [--binary hpsearch]

The images are resized by Pillow first, so that both get the same pixels. Ends with 1 where a score differs by more than 1e-4.
"""
import argparse, csv, json, subprocess, sys, tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("images", type=Path, nargs="+")
    p.add_argument("--binary", default="hpsearch")
    a = p.parse_args()
    card = json.loads((a.model / "card.json").read_text())
    size, mode = card["preprocessing"]["size"], {"grey": "L", "rgb": "RGB"}[card["preprocessing"]["colour"]]
    file = str(a.model / "model.onnx")
    onnx.checker.check_model(file, full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory() as folder:
        pixels, files = [], []
        for i, image in enumerate(a.images):
            resized = Image.open(image).convert(mode).resize((size, size), Image.BILINEAR)
            files.append(f"{folder}/{i:05}.png")
            resized.save(files[-1])
            pixels.append(np.asarray(resized).reshape(size, size, -1).transpose(2, 0, 1))
        table = f"{folder}/scores.csv"
        subprocess.run([a.binary, "-q", "predict", a.model, *files, "--csv", table], check=True)
        with open(table) as rows:
            ours = np.array([[float(row[f"score.{c}"]) for c in card["classes"]] for row in csv.DictReader(rows)])
    batches = [np.stack(pixels[i:i + 16]) for i in range(0, len(pixels), 16)]
    theirs = np.concatenate([session.run(["scores"], {"pixels": batch})[0] for batch in batches])
    largest = float(np.abs(ours - theirs).max())
    print(f"{len(pixels)} images, onnxruntime {onnxruntime.__version__}: largest difference of a score {largest:.1e}")
    sys.exit(largest > 1e-4)


main()
