"""What the benchmarks that train on a folder of images have in common: {train,test}/CLASS/*."""

import csv
import hashlib
from pathlib import Path


def arguments(parser):
    """Adds where images and weights are, and what the weights expect."""
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--positive", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--preset", default="keras", help="keras: average pools exclude the padding")
    parser.add_argument("--scaling", default="symmetric", choices=["unit", "symmetric"])


def manifest(data, work, held_out):
    """Writes the images with their split, links to them beside it: validation is every fifth training image of each class in the
    order of a digest of its name. `held_out`: the split of the images in test."""
    path = work / "manifest.csv"
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "split"])
        for split in ("train", "test"):
            link = work / split
            if not link.exists():
                link.symlink_to((data / split).resolve())
            if link.resolve() != (data / split).resolve():
                raise SystemExit(f"{work} holds runs on other images ({link.resolve()}): name another --work")
            for folder in sorted(p for p in (data / split).iterdir() if p.is_dir()):
                images = sorted(folder.iterdir(), key=lambda p: hashlib.sha256(p.name.encode()).digest())
                for i, image in enumerate(images):
                    kind = held_out if split == "test" else "val" if i % 5 == 0 else "train"
                    out.writerow([f"{split}/{folder.name}/{image.name}", folder.name, kind])
    return path
