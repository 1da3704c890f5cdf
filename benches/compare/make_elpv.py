#!/usr/bin/env python3
"""Build a Kaggle-style folder tree of REAL labelled images from the PyPI package `elpv-dataset` (1.0.0.post1).

The package ships 2,624 8-bit grayscale 300x300 PNGs of single solar cells, photographed by
electroluminescence (they look like radiographs: grey, low contrast, subtle dark cracks), each with a defect
probability 0, 1/3, 2/3 or 1 and a cell type (mono/poly).  Nothing is downloaded here: the wheel is the data.

    pip install elpv-dataset==1.0.0.post1            # or: pip download --no-deps -d DIR elpv-dataset==1.0.0.post1
    python3 make_elpv.py --out real                         # from the installed package
    python3 make_elpv.py --wheel DIR/elpv_dataset-*.whl --out real

Layout:  OUT/{train,test[,val]}/{FUNCTIONAL,DEFECTIVE}/cellNNNN_{mono|poly}.png   plus OUT/manifest.csv
Labels:  probability 0 -> FUNCTIONAL, 1 -> DEFECTIVE; 1/3 and 2/3 (the annotators were unsure) are left out
         unless --include-uncertain (then probability >= 0.5 is DEFECTIVE).
Split:   per (class, cell type), ordered by sha256("elpv-v1/" + file name); the first ceil(fraction*n) go to test,
         then --val-per-class to val.  Deterministic, no random generator, the same on every machine.
Files are copied byte for byte (--size N re-encodes them at NxN; needs pillow).

Licence of the images: CC BY-NC-SA 4.0 (not for commercial use; share alike; cite Buerhop-Lutz et al. 2018 and
Deitsch et al. 2019, 2021), so keep them out of the repository and regenerate them.
"""
import argparse, csv, hashlib, importlib.util, io, math, sys, zipfile
from pathlib import Path

PREFIX = "elpv_dataset/data/"


def source(wheel):
    if wheel:
        zf = zipfile.ZipFile(wheel)
        return lambda rel: zf.read(PREFIX + rel)
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None:
        sys.exit("elpv-dataset is not installed: pip install elpv-dataset==1.0.0.post1, or give --wheel")
    root = Path(spec.submodule_search_locations[0]) / "data"
    return lambda rel: (root / rel).read_bytes()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--wheel", type=Path)
    ap.add_argument("--test-fraction", type=float, default=0.2)
    ap.add_argument("--val-per-class", type=int, default=0, help="also write val/ with this many per class (Kaggle has 8)")
    ap.add_argument("--train-limit", type=int, default=0,
                    help="small variant: keep about N training images (and N/4 test images), class ratio preserved")
    ap.add_argument("--include-uncertain", action="store_true")
    ap.add_argument("--size", type=int, default=0)
    a = ap.parse_args()
    read = source(a.wheel)

    groups = {}
    for line in read("labels.csv").decode().splitlines():
        rel, proba, kind = line.split()
        p = float(proba)
        if p not in (0.0, 1.0) and not a.include_uncertain:
            continue
        cls = "DEFECTIVE" if p >= 0.5 else "FUNCTIONAL"
        groups.setdefault((cls, kind), []).append((hashlib.sha256(f"elpv-v1/{Path(rel).name}".encode()).hexdigest(), rel, p))

    rows = []
    for (cls, kind), items in sorted(groups.items()):
        items.sort()
        n_test = math.ceil(a.test_fraction * len(items))
        n_val = math.ceil(a.val_per_class * len(items) / sum(len(v) for (c, _), v in groups.items() if c == cls))
        for k, (key, rel, p) in enumerate(items):
            split = "test" if k < n_test else "val" if k < n_test + n_val else "train"
            rows.append((split, cls, kind, key, rel, p))
    rows.sort()
    size = {}
    for r in rows:
        size[r[:2]] = size.get(r[:2], 0) + 1
    kept, count = [], {}
    for r in sorted(rows, key=lambda r: r[3]):                   # by hash, so both cell types are drawn
        share = size[r[:2]] / sum(n for (sp, _), n in size.items() if sp == r[0])
        limit = {"val": a.val_per_class, "train": round(a.train_limit * share),
                 "test": round(a.train_limit / 4 * share)}[r[0]]
        c = count[r[:2]] = count.get(r[:2], 0) + 1
        if not limit or c <= limit:
            kept.append(r)
    rows = sorted(kept)

    a.out.mkdir(parents=True, exist_ok=True)
    tally = {}
    with open(a.out / "manifest.csv", "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(["path", "label", "defect_probability", "cell_type", "sha256"])
        for split, cls, kind, _, rel, p in rows:
            data = read(rel)
            if a.size:
                from PIL import Image
                buf = io.BytesIO()
                Image.open(io.BytesIO(data)).resize((a.size, a.size), Image.BILINEAR).save(buf, "PNG")
                data = buf.getvalue()
            dest = Path(split) / cls / f"{Path(rel).stem}_{kind}.png"
            (a.out / dest).parent.mkdir(parents=True, exist_ok=True)
            (a.out / dest).write_bytes(data)
            w.writerow([dest.as_posix(), cls, p, kind, hashlib.sha256(data).hexdigest()])
            tally[split, cls] = tally.get((split, cls), 0) + 1
    for k, n in sorted(tally.items()):
        print(*k, n)
    print("total", len(rows))


if __name__ == "__main__":
    main()
