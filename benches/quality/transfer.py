#!/usr/bin/env python3
"""How far experience with other images goes: what one recorded table says of the configurations of another.

    python3 benches/quality/transfer.py benches/quality/recorded/elpv_96.json.gz benches/quality/recorded/fashion_75.json.gz

A Gaussian process of each table (as in recorded.rs: of validation values to choose by, of test values to judge by) is asked for
the same 20,000 configurations drawn from the space. Prints, for each table as the source of experience and the other as the
target: Spearman's correlation between the source's validation values and the target's test values, and the true regret on the
target, in hundredths of test ROC-AUC, of the source's best configuration, of its best 20 and 200 in the mean, of the target's own
best 20, and of any configuration. Needs numpy, scipy, scikit-learn.
"""
import gzip
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

TAPS = ["Mixed_5d", "Mixed_6b", "Mixed_6e", "Mixed_7a", "Mixed_7c"]
DEPTHS = ["none", "Mixed_5b", "Mixed_5d", "Mixed_6b", "Mixed_6e", "all"]


def unit(p):
    """A configuration as a point of the unit cube."""
    log = lambda name, low, high: np.log(p[name] / low) / np.log(high / low)
    return [log("learning_rate", 1e-4, 3e-3), log("backbone_rate", 0.03, 1.0), log("weight_decay", 1e-5, 1e-2),
            p["dropout"] / 0.6, TAPS.index(p["tap"]) / 4, DEPTHS.index(p["freeze"]) / 5, p["strength"],
            float(p["head"] == "hidden")]


def drawn(n):
    u = np.random.default_rng(0).random((n, 8))
    for column, values in ((4, 5), (5, 6), (6, 3), (7, 2)):
        u[:, column] = np.floor(u[:, column] * values) / (values - 1)
    return u


def surfaces(path, at):
    """Predicted validation and test ROC-AUC of configurations."""
    trials = json.loads(gzip.decompress(Path(path).read_bytes()))["trials"]
    x = np.array([unit(trial["params"]) for trial in trials])
    for of in ("validation", "test"):
        y = np.array([trial["epochs"][-1][of]["roc_auc"] for trial in trials])
        z = np.maximum((y - y.mean()) / y.std(), -2.5)  # how bad the worst ones are says nothing of the others
        kernel = ConstantKernel(1.0) * RBF([1.0] * 8, (0.1, 20)) + WhiteKernel(0.3)
        model = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=0).fit(x, z)
        yield model.predict(at) * y.std() + y.mean()


def main():
    warnings.simplefilter("ignore")  # length scales of what does not matter end at their bounds
    at = drawn(20_000)
    known = {Path(path).name.split(".")[0]: list(surfaces(path, at)) for path in sys.argv[1:]}
    print("| experience | images | correlation | its best | best 20 | best 200 | own best 20 | any |")
    print("|---|---|---|---|---|---|---|---|")
    for source, (validation, _) in known.items():
        for target, (own, truth) in known.items():
            if source != target:
                regret, order = 100 * (truth.max() - truth), np.argsort(-validation)
                columns = [regret[order[0]], regret[order[:20]].mean(), regret[order[:200]].mean(),
                           regret[np.argsort(-own)[:20]].mean(), regret.mean()]
                cells = " | ".join(f"{value:.2f}" for value in columns)
                print(f"| {source} | {target} | {spearmanr(validation, truth)[0]:.2f} | {cells} |")


main()
