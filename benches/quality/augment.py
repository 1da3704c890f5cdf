#!/usr/bin/env python3
"""What single augmentations change: validation ROC-AUC of one configuration, by range, paired over seeds (and so splits).

    python3 benches/quality/augment.py --data DIR --positive CLASS --weights FILE --scaling unit --work DIR
        [--size 96 --seeds 5 --freeze Mixed_6b --tap Mixed_6e --epochs 8 --minutes 30]

Every trial is a study of its own with one configuration; what is finished is not run again. Prints a markdown table: mean
over seeds of the last epoch's validation ROC-AUC, and the mean of the paired difference from no augmentation with its
standard error.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

VARIANTS = {
    "none": "strength = 0",
    "flip": "flip = 0.5",
    "flip, rotation 10": "flip = 0.5\nrotation = 10",
    "flip, rotation 10, brightness 0.2": "flip = 0.5\nrotation = 10\nbrightness = 0.2",
    "flips and quarter turns": "flip = 0.5\nvertical_flip = 0.5\nquarter_turns = 0.75",
    "flip, zoom 0.1, shift 0.05": "flip = 0.5\nzoom = 0.1\nshift = 0.05",
    "flip, contrast 0.2": "flip = 0.5\ncontrast = 0.2",
    "flip, noise 0.05": "flip = 0.5\nnoise = 0.05",
}
OFF = {"flip": 0, "rotation": 0, "brightness": 0, "edges": 0, "strength": 1, "views": 8}


def study(a, lines, seed):
    given = {line.split(" = ")[0] for line in lines.splitlines()}
    off = "\n".join(f"{key} = {value}" for key, value in OFF.items() if key not in given)
    return f"""name = "s"
seed = {seed}
[data]
folder = "{Path(a.data).resolve()}"
positive = "{a.positive}"
size = {a.size}
[network]
weights = "{Path(a.weights).resolve()}"
preset = "keras"
scaling = "{a.scaling}"
tap = "{a.tap}"
freeze = "{a.freeze}"
[training]
epochs = {a.epochs}
batch_size = 16
learning_rate = 0.0005
backbone_rate = 0.3
[augment]
{off}
{lines}
[objective]
metric = "roc_auc"
[scheduler]
kind = "none"
[budget]
n_trials = 1
[space]
dropout = 0.3
"""


def value(a, name, lines, seed):
    folder = Path(a.work) / f"{name.replace(' ', '-').replace(',', '')}-{a.freeze}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "s.toml"
    path.write_text(study(a, lines, seed))
    state = folder / "state"
    cache = Path(a.work) / "cache"
    cache.mkdir(exist_ok=True)
    state.mkdir(exist_ok=True)
    if not (state / "cache").exists():
        (state / "cache").symlink_to(cache.resolve())
    subprocess.run([a.binary, "--state", state, "run", path], check=True, capture_output=True)
    told = subprocess.run([a.binary, "--state", state, "--json", "best", "s"], check=True, capture_output=True, text=True)
    for tensors in (state / "s" / "checkpoints").glob("*"):
        tensors.unlink()
    return json.loads(told.stdout)["value"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["data", "positive", "weights", "work"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--scaling", default="unit")
    parser.add_argument("--binary", default="target/release/hpsearch")
    parser.add_argument("--freeze", default="Mixed_6b")
    parser.add_argument("--tap", default="Mixed_6e")
    for name, default in [("size", 96), ("seeds", 5), ("epochs", 8), ("minutes", 30)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    table = Path(a.work) / f"values-{a.freeze}.json"
    table.parent.mkdir(parents=True, exist_ok=True)
    values = json.loads(table.read_text()) if table.exists() else {}
    until = time.monotonic() + 60 * a.minutes
    for seed in range(1, a.seeds + 1):
        for name, lines in VARIANTS.items():
            if f"{name} {seed}" not in values and time.monotonic() < until:
                values[f"{name} {seed}"] = value(a, name, lines, seed)
                table.write_text(json.dumps(values, indent=1))
    print("| augmentation | seeds | ROC-AUC | difference |\n|---|---:|---:|---:|")
    for name in VARIANTS:
        seeds = [s for s in range(1, a.seeds + 1) if f"{name} {s}" in values and f"none {s}" in values]
        if len(seeds) > 1:
            own = [values[f"{name} {s}"] for s in seeds]
            far = [values[f"{name} {s}"] - values[f"none {s}"] for s in seeds]
            error = statistics.stdev(far) / len(far) ** 0.5
            difference = f"{statistics.mean(far):+.4f} ± {error:.4f}" if name != "none" else ""
            print(f"| {name} | {len(seeds)} | {statistics.mean(own):.4f} | {difference} |")


main()
