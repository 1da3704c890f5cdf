#!/usr/bin/env python3
"""What single settings change: ROC-AUC of one configuration, by setting, paired over seeds (and so splits).

    python3 benches/quality/variants.py --set augmentation|training|split|images|sizes --data DIR --positive CLASS
        --weights FILE --scaling unit --work DIR [--size 96 --seeds 5 --freeze Mixed_6b --tap Mixed_6e --epochs 8 --minutes 30 --lines N]

Every trial is a study of its own with one configuration; what is finished is not run again; `--lines 2` tries the first two
variants only. Prints a markdown table: mean over seeds of the last epoch's ROC-AUC on validation and on test images, and the
means of the paired differences from the first line with their standard errors; seconds are means of the epochs' own.
"""

import argparse
import json
import sqlite3
import statistics
import subprocess
import time
from pathlib import Path

# Lines of [augment], of [training] and of [split]; of [network] where they say `input_size`.
AUGMENTATION = {
    "none": "strength = 0",
    "flip": "flip = 0.5",
    "flip, rotation 10": "flip = 0.5\nrotation = 10",
    "flip, rotation 10, brightness 0.2": "flip = 0.5\nrotation = 10\nbrightness = 0.2",
    "flips and quarter turns": "flip = 0.5\nvertical_flip = 0.5\nquarter_turns = 0.75",
    "flip, zoom 0.1, shift 0.05": "flip = 0.5\nzoom = 0.1\nshift = 0.05",
    "flip, contrast 0.2": "flip = 0.5\ncontrast = 0.2",
    "flip, noise 0.05": "flip = 0.5\nnoise = 0.05",
}
TRAINING = {
    "as it is": "",
    "average of 0.5 epochs": "average_epochs = 0.5",
    "constant rate": 'schedule = "constant"',
    "constant rate, average of 0.5 epochs": 'schedule = "constant"\naverage_epochs = 0.5',
    "first 2 epochs the head alone": "probe_epochs = 2",
    "2 epochs of the head alone before": "probe_epochs = 2\nepochs = {epochs_and_2}",
}
# What training on validation images too, after the search, could bring: the test column says.
SPLIT = {
    "a fifth for validation": "validation = 0.2",
    "a fiftieth for validation": "validation = 0.02",
}
# What smaller images cost, throughout or at the beginning.
IMAGES = {
    "whole": "",
    "half the side in the first 2 epochs": "small_epochs = 2",
    "half the side in the first half": "small_epochs = {half}",
    "half the side throughout": "input_size = {half_side}",
}
SIZES = {f"{side} px": f"input_size = {side}" for side in (96, 150, 224, 299)}
SETS = {"augmentation": AUGMENTATION, "training": TRAINING, "split": SPLIT, "images": IMAGES, "sizes": SIZES}
OFF = {"flip": 0, "rotation": 0, "brightness": 0, "edges": 0, "strength": 1, "views": 8}


def study(a, lines, seed):
    of = lambda name, otherwise: lines if a.set == name else otherwise
    # Heads are compared on the images as they are.
    otherwise = "strength = 0" if a.set == "sizes" else "flip = 0.5\nrotation = 10\nviews = 3"
    augment, training = of("augmentation", otherwise), of("training", of("images", of("sizes", "")))
    training = training.format(epochs_and_2=a.epochs + 2, half=a.epochs // 2, half_side=a.size // 2)
    network, training = (training, "") if "input_size" in training else ("", training)
    given = {line.split(" = ")[0] for line in augment.splitlines()}
    off = "\n".join(f"{key} = {value}" for key, value in OFF.items() if key not in given)
    epochs = "" if "epochs =" in training.replace("_epochs =", "") else f"epochs = {a.epochs}"
    return f"""name = "s"
seed = {seed}
[data]
folder = "{Path(a.data).resolve()}"
positive = "{a.positive}"
size = {a.size}
[split]
{of("split", "")}
[network]
weights = "{Path(a.weights).resolve()}"
preset = "keras"
scaling = "{a.scaling}"
tap = "{a.tap}"
freeze = "{a.freeze}"
cache = "f16"
{network}
[training]
{epochs}
{training}
batch_size = 16
learning_rate = 0.0005
backbone_rate = 0.3
[augment]
{off}
{augment}
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
    """Validation and test ROC-AUC, and seconds of all epochs."""
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
    told = lambda *words: subprocess.run([a.binary, "--state", state, *words], check=True, capture_output=True, text=True).stdout
    told("run", path)
    best = json.loads(told("--json", "best", "s"))
    test = json.loads(told("--json", "test", "s", "--finalists", "1").splitlines()[0])["metrics"]
    with sqlite3.connect(f"file:{state / 's' / 'study.db'}?mode=ro", uri=True) as database:
        [[seconds]] = database.execute("SELECT sum(seconds) FROM epoch").fetchall()
    for tensors in (state / "s" / "checkpoints").glob("*"):
        tensors.unlink()
    return best["value"], test["roc_auc"]["value"], seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["data", "positive", "weights", "work"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--set", required=True, choices=list(SETS))
    parser.add_argument("--scaling", default="unit")
    parser.add_argument("--binary", default="target/release/hpsearch")
    parser.add_argument("--freeze", default="Mixed_6b")
    parser.add_argument("--tap", default="Mixed_6e")
    for name, default in [("size", 96), ("seeds", 5), ("epochs", 8), ("minutes", 30), ("lines", 99)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    variants = dict(list(SETS[a.set].items())[: a.lines])
    first = next(iter(variants))
    table = Path(a.work) / f"values-{a.set}-{a.freeze}-{a.size}.json"
    table.parent.mkdir(parents=True, exist_ok=True)
    values = json.loads(table.read_text()) if table.exists() else {}
    until = time.monotonic() + 60 * a.minutes
    for seed in range(1, a.seeds + 1):
        for name, lines in variants.items():
            if f"{name} {seed}" not in values and time.monotonic() < until:
                values[f"{name} {seed}"] = value(a, name, lines, seed)
                table.write_text(json.dumps(values, indent=1))
    print(f"| {a.set} | seeds | validation | difference | test | difference | s |\n|---|---:|---:|---:|---:|---:|---:|")
    for name in variants:
        seeds = [s for s in range(1, a.seeds + 1) if f"{name} {s}" in values and f"{first} {s}" in values]
        if len(seeds) < 2:
            continue
        cells = []
        for i in range(2):
            own = [values[f"{name} {s}"][i] for s in seeds]
            far = [values[f"{name} {s}"][i] - values[f"{first} {s}"][i] for s in seeds]
            error = statistics.stdev(far) / len(far) ** 0.5
            cells += [f"{statistics.mean(own):.4f}", f"{statistics.mean(far):+.4f} ± {error:.4f}" if name != first else ""]
        seconds = statistics.mean(values[f"{name} {s}"][2] for s in seeds)
        print(f"| {name} | {len(seeds)} | " + " | ".join(cells) + f" | {seconds:.0f} |")


main()
