#!/usr/bin/env python3
"""The race: hpsearch and Optuna with PyTorch, on the same images, space, weights, cores and minutes, in turn.

    cargo build --release --bin hpsearch
    python3 benches/race/race.py --data FOLDER --positive CLASS --weights FILE --scaling unit --work DIR \\
        [--size 150 --epochs 8 --minutes 60 --seeds 1 2 3 --first 20 --longer 8 --sides hpsearch peer] \\
        [--sizes 75 150] [--scheduler asha] [--precision amp] [--training "probe_epochs = 2"] [--record RECORD.json] [--chart race.svg]

FOLDER has {train,test}/CLASS/*. A fifth of train is the validation set of both sides (every fifth image of each class in the
order of a digest of its name); test is scored once, at the end, with the trial that each side holds for best, at the threshold
that is Youden's on its validation scores. Both sides try the same --first configurations, drawn from the space by the seed,
before their samplers are asked, and stop trials at the same rung, a quarter of the epochs, by Hyperband or each tool's ASHA.
With --sizes both search the side of the images that the network sees, too, reduced from --size. With --precision amp both
multiply in bfloat16, the peer by autocast. --training says what our side does otherwise than the peer. Runs that are finished
are not run again, so a race can be run in pieces; --record adds their figures (no scores, no images) to those of earlier pieces on a processor
of the same kind, and table and chart are of all that it holds of this race, also with other --minutes. hpsearch's mean of its five leading trials is scored too. The peer is
benches/race/peer.py. Needs optuna, torch, torchvision, scikit-learn, safetensors, pillow; the chart needs matplotlib.
"""
import argparse, csv, hashlib, json, os, shutil, sqlite3, subprocess, sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score, recall_score, roc_auc_score, roc_curve

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/quality"))
import folders  # noqa: E402

STUDY = """name = "race"
seed = {seed}
[data]
manifest = "{manifest}"
positive = "{positive}"
size = {size}
[split]
policy = "keep"
[network]
weights = "{weights}"
preset = "{preset}"
scaling = "{scaling}"
cache = "f16"
[training]
epochs = {epochs}
batch_size = 16
warmup_epochs = 0.5
{training}
[augment]
rotation = 10
brightness = 0.2
edges = 0
views = 3
[space]
learning_rate = {{ type = "float", low = 1e-4, high = 3e-3, log = true }}
backbone_rate = {{ type = "float", low = 0.03, high = 1.0, log = true }}
weight_decay = {{ type = "float", low = 1e-5, high = 1e-2, log = true }}
dropout = {{ type = "float", low = 0.0, high = 0.6 }}
tap = {{ type = "ordinal", choices = {taps} }}
freeze = {{ type = "ordinal", choices = {depths} }}
strength = {{ type = "float", low = 0.0, high = 1.0, step = 0.5 }}
head = {{ choices = ["linear", "hidden"] }}
{sizes}
[objective]
metric = "roc_auc"
operating_point = "youden"
[sampler]
kind = "tpe"
[scheduler]
kind = "{scheduler}"
min_resource = {rung}
reduction_factor = 4
[run]
virtual_workers = 1
precision = "{precision}"
[budget]
wall_time = "{seconds}s"
n_trials = 100000
"""
TAPS = ["Mixed_5d", "Mixed_6b", "Mixed_6e", "Mixed_7a", "Mixed_7c"]
LONGER = 1  # the seed that goes on
DEPTHS = ["none", "Mixed_5b", "Mixed_5d", "Mixed_6b", "Mixed_6e", "all"]


def first(a, seed):
    """The configurations with which both sides begin, drawn from the space: so neither is luckier in its first draws."""
    rng = np.random.default_rng(seed)
    log = lambda low, high: float(np.exp(rng.uniform(np.log(low), np.log(high))))
    size = lambda: dict(input_size=int(rng.choice(a.sizes))) if a.sizes else {}
    return [dict(learning_rate=log(1e-4, 3e-3), backbone_rate=log(0.03, 1.0), weight_decay=log(1e-5, 1e-2),
                 dropout=float(rng.uniform(0.0, 0.6)), tap=str(rng.choice(TAPS)), freeze=str(rng.choice(DEPTHS)),
                 strength=float(rng.choice([0.0, 0.5, 1.0])), head=str(rng.choice(["linear", "hidden"])), **size())
            for _ in range(a.first)]


def scores(path, a):
    """Labels (1: positive) and scores of a file of predictions, in the manifest's order: the peer's."""
    order = {row["path"]: i for i, row in enumerate(csv.DictReader(open(a.manifest)))}
    rows = sorted(csv.DictReader(open(path)), key=lambda row: order[row["image"]])
    return [int(r["label"] == a.positive) for r in rows], [float(r[f"positive:{a.positive}"]) for r in rows]


def ours(a, seed, folder):
    study, state = folder / "race.toml", folder / "state"
    enqueued = ["\n".join(["[[enqueue]]", *(f"{name} = {json.dumps(value)}" for name, value in params.items()), ""])
                for params in first(a, seed)]
    study.write_text(STUDY.format(seed=seed, manifest=a.manifest, positive=a.positive, size=a.size, weights=a.weights.resolve(),
                                  preset=a.preset, scaling=a.scaling, epochs=a.epochs, training="\n".join(a.training),
                                  taps=json.dumps(TAPS), depths=json.dumps(DEPTHS), rung=a.epochs // 4, scheduler=a.scheduler, precision=a.precision,
                                  sizes=f'input_size = {{ type = "ordinal", choices = {a.sizes} }}' if a.sizes else "",
                                  seconds=int(60 * a.minutes)) + "".join(enqueued))
    told = lambda *words: subprocess.run([a.binary, "--state", state, *words], check=True, capture_output=True, text=True).stdout
    with open(folder / "run.log", "w") as log:
        ended = subprocess.run([a.binary, "--state", state, "run", study], stdout=log, stderr=log).returncode
    if ended not in (0, 3):  # 3: the time is up
        sys.exit(f"hpsearch ended with {ended}: see {folder / 'run.log'}")
    told("test", "race", "--unfinished")
    shown = [json.loads(line) for line in told("--json", "test", "race").splitlines()]
    mean = next((line["metrics"] for line in shown if line["mean_of"]), {})
    database = sqlite3.connect(f"file:{state / 'race' / 'study.db'}?mode=ro", uri=True)
    start = database.execute("SELECT min(started_ms) FROM run").fetchone()[0]
    full = database.execute("SELECT reported_ms, value, trial FROM epoch WHERE epoch = ? ORDER BY reported_ms", (a.epochs,))
    course = [((ms - start) / 60000, value) for ms, value, _ in full]
    trials, epochs = (database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("trial", "epoch"))
    best = json.loads(told("--json", "best", "race"))
    trial = best["trial"]
    test = state / "race" / "test" / f"{trial:05}.csv"
    validation = sorted((state / "race" / "predictions").glob(f"{trial:05}-*.csv"))[-1]
    of_mean = {name: [mean[key]["value"], *mean[key]["interval"]]
               for name, key in (("AUC", "roc_auc"), ("recall", "recall"), ("F1", "f1")) if key in mean}
    return {a.minutes: dict(course=course, trials=trials, epochs=epochs, params=best["params"], mean=of_mean, given=a.minutes,
                            validation=scores(validation, a), test=scores(test, a))}


def peer(a, seed, folder):
    """What the peer answers after --minutes; with seed 1 also after --longer times as many, in the same course."""
    longer = [a.longer * a.minutes] if a.longer and seed == LONGER else []
    out, enqueued = folder / "result.json", folder / "first.json"
    enqueued.write_text(json.dumps(first(a, seed)))
    command = [sys.executable, ROOT / "benches/race/peer.py", "--manifest", a.manifest, "--positive", a.positive, "--weights",
               a.weights.resolve(), "--preset", a.preset, "--scaling", a.scaling, "--size", a.size, "--sizes", *a.sizes,
               "--epochs", a.epochs, "--scheduler", a.scheduler, *(["--bf16"] if a.precision == "amp" else []),
               "--minutes", *(longer or [a.minutes]), "--answers", *([a.minutes] if longer else []), "--seed", seed, "--first", enqueued, "--out", out]
    with open(folder / "run.log", "w") as log:
        subprocess.run([str(word) for word in command], stdout=log, stderr=log, check=True)
    return {answer["given"]: answer for answer in json.loads(out.read_text())}


def draws_of(labels):
    """Images drawn with replacement within each class, 2,000 times; the same for all sides."""
    rng = np.random.default_rng(0)
    classes = [np.flatnonzero(labels == c) for c in (0, 1)]
    return [np.concatenate([rng.choice(c, len(c)) for c in classes]) for _ in range(2000)]


def difference(first, second):
    """Difference of two answers' test AUC on the same images, with a 95 % bootstrap interval."""
    labels, ours, theirs = np.array(first["test"][0]), np.array(first["test"][1]), np.array(second["test"][1])
    assert first["test"][0] == second["test"][0], "not the same images"
    of = lambda i: roc_auc_score(labels[i], ours[i]) - roc_auc_score(labels[i], theirs[i])
    return [float(x) for x in (of(np.arange(len(labels))), *np.percentile([of(i) for i in draws_of(labels)], [2.5, 97.5]))]


def figures(found):
    """Figures of the test set at the threshold that is Youden's on the validation set, with 95 % bootstrap intervals."""
    (vy, vs), (ty, ts) = ((np.array(y), np.array(s)) for y, s in (found["validation"], found["test"]))
    false, true, thresholds = roc_curve(vy, vs)
    threshold = thresholds[np.argmax(true - false)]
    called = ts >= threshold
    kinds = {"AUC": lambda i: roc_auc_score(ty[i], ts[i]), "recall": lambda i: recall_score(ty[i], called[i]),
             "F1": lambda i: f1_score(ty[i], called[i])}
    everything, draws = np.arange(len(ty)), draws_of(ty)
    told = {}
    for name, of in kinds.items():
        low, high = np.percentile([of(i) for i in draws], [2.5, 97.5])
        told[name] = (of(everything), low, high)
    return told


def races(a):
    """What two runs of a side must have in common to be of one race, by side."""
    words = Path("/proc/cpuinfo").read_text().split()
    narrow = "-BF16" if a.precision == "amp" and "avx512_bf16" in words else ""
    widest = next((name for name, flag in (("AVX-512", "avx512f"), ("AVX2", "avx2")) if flag in words), "no AVX2")
    program = subprocess.run([a.binary, "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    both = dict(images=a.data.resolve().name, positive=a.positive, weights=a.weights.name, preset=a.preset, scaling=a.scaling,
                size=a.size, sizes=a.sizes, scheduler=a.scheduler, epochs_a_trial=a.epochs, training=[], first=a.first,
                precision=a.precision, rungs=[a.epochs // 4, a.epochs], machine=f"{len(os.sched_getaffinity(0))} cores, {widest}{narrow}",
                programs={"hpsearch": program, **{name: version(name) for name in ("optuna", "torch")}})
    return {"hpsearch": both | {"training": a.training}, "peer": both}


def recorded(a, same, runs):
    """Adds runs to the record; all runs in it of this race."""
    rows = json.loads(a.record.read_text()) if a.record.exists() else []
    for (side, given, seed), found in runs.items():
        who = dict(same[side], given=given, side=side, seed=seed)
        rows = [row for row in rows if any(row.get(key) != value for key, value in who.items())]
        rows.append(who | {key: value for key, value in found.items() if key not in ("validation", "test")})
    rows.sort(key=lambda row: (row["images"], row["size"], row["given"], row["side"], row["seed"]))
    a.record.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    return {(row["side"], row["given"], row["seed"]): row for row in rows
            if all(row.get(key) == value for key, value in same[row["side"]].items())
            and row["given"] in (a.minutes, a.minutes * (a.longer or 1))}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders.arguments(p)
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--size", type=int, default=150)
    p.add_argument("--sizes", type=int, nargs="*", default=[], help="sides of images in the space, at most --size")
    p.add_argument("--scheduler", default="hyperband", choices=["hyperband", "asha"])
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    p.add_argument("--precision", default="f32", choices=["f32", "amp"], help="amp: both sides multiply in bfloat16")
    p.add_argument("--first", type=int, default=20, help="configurations with which both sides begin")
    p.add_argument("--longer", type=int, help="the peer goes on with seed 1, for so many times --minutes")
    p.add_argument("--sides", nargs="*", default=["hpsearch", "peer"], choices=["hpsearch", "peer"])
    p.add_argument("--training", nargs="*", default=[], metavar="LINE", help="further lines of our [training]")
    p.add_argument("--binary", type=Path, default=ROOT / "target/release/hpsearch")
    p.add_argument("--record", type=Path)
    p.add_argument("--chart", type=Path)
    a = p.parse_args()
    if a.epochs % 4:
        p.error("--epochs must be a multiple of 4: only then do both sides have the same rungs")
    a.work.mkdir(parents=True, exist_ok=True)
    a.work = a.work.resolve()
    a.manifest = folders.manifest(a.data, a.work, "test")
    runs, same = {}, races(a)
    for seed in a.seeds:
        for side in a.sides:
            longer = f"-longer{a.longer}" if a.longer and side == "peer" and seed == LONGER else ""
            identity = hashlib.sha256(json.dumps(same[side], sort_keys=True).encode()).hexdigest()[:8]
            folder = a.work / f"{side}-{identity}-{a.minutes:g}-{seed}{longer}"
            kept = folder / "found.json"
            if not kept.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what was interrupted begins anew, on either side
                folder.mkdir()
                found = (ours if side == "hpsearch" else peer)(a, seed, folder)
                kept.write_text(json.dumps(list(found.values())))
            for found in json.loads(kept.read_text()):
                runs[side, found["given"], seed] = dict(found, figures=figures(found), best=roc_auc_score(*found["validation"]))
    for (side, given, seed), found in runs.items():
        if side == "hpsearch":
            others = {g: runs["peer", g, seed] for g in sorted({g for s, g, n in runs if (s, n) == ("peer", seed)})}
            found["differences"] = {f"{g:g}": difference(found, other) for g, other in others.items()}
    if a.record:
        runs = recorded(a, same, runs)
    print("| side | seed | minutes | trials | epochs | best validation AUC | test AUC | recall | F1 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (side, _, seed), found in runs.items():
        told = lambda figures: " | ".join(f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in figures.values())
        counts = f"{found['given']:g} | {found['trials']} | {found['epochs']}"
        print(f"| {side} | {seed} | {counts} | {found['best']:.4f} | {told(found['figures'])} |")
        for others, (value, low, high) in found.get("differences", {}).items():
            print(f"| {side} less peer after {others} minutes | {seed} | | | | | {value:.3f} ({low:.3f} to {high:.3f}) | | |")
        if found.get("mean"):
            print(f"| {side}, mean of five | {seed} | | | | | {told(found['mean'])} |")
    if a.chart:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot as plt
        figure, axes = plt.subplots(figsize=(7, 4))
        shortest, name = min(given for _, given, _ in runs), {"hpsearch": "hpsearch", "peer": "Optuna and PyTorch"}
        for (side, given, _), found in runs.items():
            if not found["course"]:  # no trial came to its end
                continue
            minutes, values = zip(*found["course"])
            label = f"{name[side]}, {given:g} minutes"
            axes.step([*minutes, given], [*np.maximum.accumulate(values), max(values)], where="post",
                      color={"hpsearch": "C0", "peer": "C1"}[side], linestyle="-" if given == shortest else ":",
                      label=label if label not in axes.get_legend_handles_labels()[1] else None)
        if any(given != shortest for _, given, _ in runs):
            axes.set_xscale("log")
        axes.set(xlabel="minutes", ylabel="best validation AUC of a trial trained to the end")
        axes.legend()
        figure.tight_layout()
        figure.savefig(a.chart)


main()
