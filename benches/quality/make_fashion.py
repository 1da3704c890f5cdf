#!/usr/bin/env python3
"""A second set of real images, of another kind: two classes of Fashion-MNIST that people confuse too, shirts and T-shirts.

    apt-get install dataset-fashion-mnist       # Debian; MIT licence, Xiao, Rasul and Vollgraf 2017
    python3 benches/quality/make_fashion.py --out FOLDER [--train 2000] [--test 2000] [--shirts 0.333]

Writes FOLDER/{train,test}/{shirt,tshirt}/*.png, the first images of each class in the order of the files, so that the tree
is always the same. Needs Pillow.
"""
import argparse, gzip
from pathlib import Path
from PIL import Image

CLASSES = {"tshirt": 0, "shirt": 6}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--train", type=int, default=2000)
    p.add_argument("--test", type=int, default=2000)
    p.add_argument("--shirts", type=float, default=1 / 3, help="share of shirts")
    a = p.parse_args()
    for split, stem, total in (("train", "train", a.train), ("test", "t10k", a.test)):
        pixels = gzip.open(a.source / f"{stem}-images-idx3-ubyte.gz").read()[16:]
        labels = gzip.open(a.source / f"{stem}-labels-idx1-ubyte.gz").read()[8:]
        for name, label in CLASSES.items():
            share = a.shirts if name == "shirt" else 1 - a.shirts
            chosen = [i for i, l in enumerate(labels) if l == label][:round(total * share)]
            folder = a.out / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in chosen:
                Image.frombytes("L", (28, 28), pixels[784 * i:784 * (i + 1)]).save(folder / f"{i:05}.png")
            print(split, name, len(chosen))


if __name__ == "__main__":
    main()
