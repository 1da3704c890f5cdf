#!/usr/bin/env python3
"""Records a table of real trials, on which searches can be played and compared (benches/quality/record.rs).

    cargo build --release --example record
    python3 benches/quality/record.py --data FOLDER --positive CLASS --weights FILE --scaling unit \\
        --work STATE [--trials 256] [--size 96] [--minutes 120] [--pack TABLE.json.gz]

FOLDER has {train,test}/CLASS/*. A fifth of train becomes the validation set (every fifth image of each class in the order of a
digest of its name); test is scored beside it after every epoch and kept apart in the table, for judging methods, never for their
choices. Run it again to go on where it stopped; --pack writes what there is, figures only, and a new STATE begins from it.
"""
import argparse, csv, gzip, json, subprocess
from pathlib import Path

import folders

ROOT = Path(__file__).resolve().parents[2]

STUDY = """name = "record"
seed = 1
[data]
manifest = "{manifest}"
positive = "{positive}"
size = {size}
[split]
policy = "keep"
test = 0
[network]
backbone = "inception_v3"
weights = "{weights}"
preset = "{preset}"
scaling = "{scaling}"
cache = "f16"
[training]
epochs = {epochs}
batch_size = 16
warmup_epochs = 0.5
[augment]
rotation = 10
views = 3
[space]
learning_rate = {{ type = "float", low = 1e-4, high = 3e-3, log = true }}
backbone_rate = {{ type = "float", low = 0.03, high = 1.0, log = true }}
weight_decay = {{ type = "float", low = 1e-5, high = 1e-2, log = true }}
dropout = {{ type = "float", low = 0.0, high = 0.6 }}
tap = {{ type = "ordinal", choices = ["Mixed_5d", "Mixed_6b", "Mixed_6e", "Mixed_7a", "Mixed_7c"] }}
freeze = {{ type = "ordinal", choices = ["none", "Mixed_5b", "Mixed_5d", "Mixed_6b", "Mixed_6e", "all"] }}
strength = {{ type = "float", low = 0.0, high = 1.0, step = 0.5 }}
head = {{ choices = ["linear", "hidden"] }}
[objective]
metric = "roc_auc"
[budget]
n_trials = {trials}
"""


def counts(a):
    """Images by class, the positive one last. After each epoch the test images are scored with the validation ones."""
    rows = list(csv.DictReader(open(a.work / "manifest.csv")))
    classes = sorted({row["label"] for row in rows}, key=lambda c: (c == a.positive, c))
    part = lambda row: "test" if row["path"].startswith("test/") else row["split"]
    count = lambda wanted: [sum(row["label"] == c and part(row) == wanted for row in rows) for c in classes]
    return dict(train=count("train"), validation=count("val"), test=count("test"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders.arguments(p)
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--size", type=int, default=96)
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--trials", type=int, default=256)
    p.add_argument("--minutes", type=float, default=1e9)
    p.add_argument("--binary", type=Path, default=ROOT / "target/release/examples/record")
    p.add_argument("--pack", type=Path)
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    a.work = a.work.resolve()
    table, study = a.work / "table.jsonl", a.work / "study.toml"
    study.write_text(STUDY.format(manifest=folders.manifest(a.data, a.work, "val"), positive=a.positive, size=a.size, weights=a.weights.resolve(),
                                  preset=a.preset, scaling=a.scaling, epochs=a.epochs, trials=a.trials))
    if not table.exists() and a.pack and a.pack.exists():
        with gzip.open(a.pack) as file:
            table.write_text("".join(json.dumps(row) + "\n" for row in json.load(file)["trials"]))
    if a.minutes > 0:
        subprocess.run([a.binary, study, table, a.work / "state", str(a.minutes)], check=True)
    if a.pack:
        rows = [json.loads(line) for line in open(table)]
        made = dict(size=a.size, epochs=a.epochs, space=study.read_text().split("[space]\n")[1].split("[objective]")[0],
                    images=a.data.resolve().name, **counts(a))
        with gzip.GzipFile(a.pack, "wb", mtime=0) as file:
            file.write(json.dumps(dict(made=made, trials=rows), separators=(",", ":")).encode())
        print(f"{a.pack}: {len(rows)} trials")


main()
