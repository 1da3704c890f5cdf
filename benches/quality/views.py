#!/usr/bin/env python3
"""Whether the mean score of several views of an image is better than the score of the image itself.

    hpsearch export STUDY --out MODEL
    python3 benches/quality/views.py --model MODEL [MODEL ...] --manifest CSV [--binary hpsearch] [--work DIR]

The manifest has `path`, `label` and `split` (`val`, `test`); paths start at its folder. For each model and split: ROC-AUC of the
image, of the means over sets of views, and the difference with its 95 % interval by the paired bootstrap, stratified by class. Scores
are those of `hpsearch predict` on images turned and shifted by Pillow. Needs numpy, scikit-learn and Pillow.
"""
import argparse, csv, json, subprocess, tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops
from sklearn.metrics import roc_auc_score


def shifted(share):
    def view(image):
        x, y = (round(share[axis] * image.size[axis]) for axis in (0, 1))
        moved = Image.new(image.mode, image.size)
        moved.paste(ImageChops.offset(image, x, y))
        w, h = image.size
        # What left on one side does not come back on the other: the border is repeated.
        edge = lambda box, to: moved.paste(image.crop(box).resize((to[2] - to[0], to[3] - to[1])), to)
        if x > 0:
            edge((0, 0, 1, h), (0, 0, x, h))
        if x < 0:
            edge((w - 1, 0, w, h), (w + x, 0, w, h))
        if y > 0:
            edge((0, 0, w, 1), (0, 0, w, y))
        if y < 0:
            edge((0, h - 1, w, h), (0, h + y, w, h))
        return moved
    return view


turned = lambda how: lambda image: image.transpose(how)
T = Image.Transpose
VIEWS = {"image": lambda image: image, "mirrored": turned(T.FLIP_LEFT_RIGHT), "upside down": turned(T.FLIP_TOP_BOTTOM),
         "half turn": turned(T.ROTATE_180), "quarter": turned(T.ROTATE_90), "three quarters": turned(T.ROTATE_270),
         "left": shifted((-.03, 0)), "right": shifted((.03, 0)), "up": shifted((0, -.03)), "down": shifted((0, .03))}
SETS = {"and mirrored": ["image", "mirrored"],
        "and mirrored, upside down, half turn": ["image", "mirrored", "upside down", "half turn"],
        "and quarter turns, mirrored": ["image", "mirrored", "upside down", "half turn", "quarter", "three quarters"],
        "and shifted by 3 %": ["image", "left", "right", "up", "down"]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, nargs="+", required=True)
    p.add_argument("--manifest", type=Path, required=True)
    p.add_argument("--binary", default="target/release/hpsearch")
    p.add_argument("--draws", type=int, default=2000)
    a = p.parse_args()
    rows = [row for row in csv.DictReader(open(a.manifest)) if row["split"] in ("val", "test")]
    print("| model | set | views | ROC-AUC | difference | 95 % |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, view in VIEWS.items():
            for i, row in enumerate(rows):
                files[name, i] = f"{folder}/{name.replace(' ', '-')}-{i:05}.png"
                view(Image.open(a.manifest.parent / row["path"])).save(files[name, i])
        for model in a.model:
            card = json.loads((model / "card.json").read_text())
            positive = card["classes"][card["positive"]]
            scores = {}
            for name in VIEWS:
                table = f"{folder}/scores.csv"
                subprocess.run([a.binary, "-q", "predict", model, *(files[name, i] for i in range(len(rows))), "--csv", table], check=True)
                with open(table) as found:
                    scores[name] = np.array([float(row[f"score.{positive}"]) for row in csv.DictReader(found)])
            for split in ("val", "test"):
                of = np.array([row["split"] == split for row in rows])
                truth = np.array([row["label"] == positive for row in rows])[of]
                plain = scores["image"][of]
                print(f"| {model.name} | {split} | image | {roc_auc_score(truth, plain):.4f} | | |")
                for name, views in SETS.items():
                    mean = np.mean([scores[view][of] for view in views], axis=0)
                    rng = np.random.default_rng(0)
                    groups = [np.flatnonzero(truth == c) for c in (False, True)]
                    far = []
                    for _ in range(a.draws):
                        i = np.concatenate([rng.choice(group, len(group)) for group in groups])
                        far.append(roc_auc_score(truth[i], mean[i]) - roc_auc_score(truth[i], plain[i]))
                    low, high = np.percentile(far, [2.5, 97.5])
                    area = roc_auc_score(truth, mean)
                    print(f"| {model.name} | {split} | {name} | {area:.4f} | {area - roc_auc_score(truth, plain):+.4f} | {low:+.4f} to {high:+.4f} |")


main()
