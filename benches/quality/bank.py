#!/usr/bin/env python3
"""Does a bank of K augmented views harm? Validation AUC with banks of several sizes and with fresh views.

    cargo build --release
    python3 benches/quality/bank.py --data FOLDER --weights FILE [--markdown TABLE.md]

One head of fixed settings on frozen features, trained by the `hpsearch` binary for each seed and kind of views: the
seed decides the split, the views and the head, so kinds are compared within a seed. Banks of one seed share their
views (view 3 of a bank of 4 is view 3 of a bank of 16): they run from small to large, and the seconds of a larger one
are for the views that it adds. FOLDER has train/CLASS/* and is only read.
"""

import argparse
import math
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def study(a, name, seed, views):
    source = f'weights = "{a.weights.resolve()}"\npreset = "{a.preset}"' if a.weights else 'weights = "random"'
    positive = f'positive = "{a.positive}"\n' if a.positive else ""
    source += f'\nscaling = "{a.scaling}"' if a.scaling else ""
    limits = f'device = "{a.device}"\n' if a.device else ""
    return f"""name = "{name}"
seed = {seed}
[data]
folder = "{a.data.resolve()}"
{positive}size = {a.size}
[split]
validation = {a.validation}
[network]
backbone = "inception_v3"
{source}
tap = "{a.tap}"
freeze = "all"
[training]
epochs = {a.epochs}
batch_size = 32
optimiser = "adamw"
schedule = "cosine"
imbalance = "weights"
[augment]
strength = {a.strength}
flip = 0.5
rotation = 20
brightness = 0.3
views = {views}
[space]
learning_rate = {{ type = "categorical", choices = [{a.learning_rate}] }}
[sampler]
kind = "random"
[scheduler]
kind = "none"
[objective]
metric = "roc_auc"
[budget]
n_trials = 1
[run]
workers = 1
{limits}"""


def run(a, state, seed, views):
    """Validation AUC after the last epoch, and wall seconds."""
    name = f"bank-{views}-{seed}"
    path = state / f"{name}.toml"
    path.write_text(study(a, name, seed, f'"{views}"' if views == "fresh" else views))
    begin = time.perf_counter()
    subprocess.run([a.binary, "--state", str(state), "-q", "run", str(path)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    with sqlite3.connect(f"file:{state / name / 'study.db'}?mode=ro", uri=True) as db:
        value, state_of = db.execute("SELECT value, state FROM trial").fetchone()
    if state_of != "complete":
        sys.exit(f"{name}: the trial is {state_of}")
    return value, seconds


def mean_and_error(values):
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.fmean(values), error


def table(a, kinds, found):
    lines = [
        f"Head on {a.tap}, {a.size} px, {a.epochs} epochs, strength {a.strength}, {len(found['fresh'])} seeds, "
        f"{time.strftime('%Y-%m-%d')}.", "",
        "| views | validation AUC | less fresh, within seeds | seconds a study |", "|---|---:|---:|---:|"]
    for kind in kinds:
        aucs = [auc for auc, _ in found[kind]]
        mean, error = mean_and_error(aucs)
        apart, apart_error = mean_and_error([auc - fresh for auc, (fresh, _) in zip(aucs, found["fresh"])])
        difference = "-" if kind == "fresh" else f"{apart:+.4f} ± {apart_error:.4f}"
        seconds = statistics.fmean(s for _, s in found[kind])
        label = "fresh" if kind == "fresh" else f"bank of {kind}"
        lines.append(f"| {label} | {mean:.4f} ± {error:.4f} | {difference} | {seconds:.0f} |")
    lines += ["", "± is the standard error over the seeds. Banks run from small to large and share their views."]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--positive", help="the class whose AUC it is; needed if the names do not tell")
    parser.add_argument("--weights", type=Path, help="InceptionV3 in safetensors with torchvision names; else random")
    parser.add_argument("--preset", default="keras", help="scaling and padding of the weights")
    parser.add_argument("--scaling", help="of pixels, where the weights want another than their preset's")
    parser.add_argument("--tap", default="Mixed_5d")
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--banks", type=int, nargs="*", default=[4, 8, 16])
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--validation", type=float, default=0.3)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--device", help="as in a study's [run]; else the study's own choice")
    parser.add_argument("--binary", default=str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
                                                / "release" / "hpsearch"))
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    a = parser.parse_args()
    kinds = [*sorted(a.banks), "fresh"]
    found = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(a.seeds):
            for kind in kinds:
                found[kind].append(run(a, Path(folder), seed, kind))
                auc, seconds = found[kind][-1]
                print(f"seed {seed}, views {kind}: AUC {auc:.4f}, {seconds:.1f} s", file=sys.stderr, flush=True)
    text = table(a, kinds, found)
    print(text)
    if a.markdown:
        a.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
