"""Reference densities of Optuna's Parzen estimator, for src/sampler/parzen.rs.

Needs optuna 5. Writes parzen.json beside this file. The ranges of `x` and `rate` are of length 1 (the latter in its
logarithm), so that densities on them are densities on the unit range.
"""

import functools
import json
import math
import pathlib

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights

# Equal observations (of discrete parameters) get their bandwidths in order of age; numpy's default sort leaves the
# order of equals to the processor.
np.argsort = functools.partial(np.argsort, kind="stable")

SPACE = {
    "x": FloatDistribution(0.0, 1.0),
    "rate": FloatDistribution(1.0, math.e, log=True),
    "layers": IntDistribution(1, 9, step=2),
    "units": IntDistribution(8, 512, log=True),
    "dropout": FloatDistribution(0.0, 0.5, step=0.1),
    "act": CategoricalDistribution(["relu", "swish", "tanh"]),
}
PARAMETERS = _ParzenEstimatorParameters(1.0, True, False, default_weights, True)


def draw(rng, n):
    return {
        "x": rng.uniform(0, 1, n),
        "rate": np.exp(rng.uniform(0, 1, n)),
        "layers": 1 + 2 * rng.integers(0, 5, n),
        "units": np.round(np.exp(rng.uniform(math.log(8), math.log(512), n))),
        "dropout": np.round(0.1 * rng.integers(0, 6, n), 1),
        "act": rng.integers(0, 3, n),
    }


def rows(columns):
    n = len(columns["x"])
    text = SPACE["act"].choices
    out = []
    for i in range(n):
        row = {k: float(v[i]) for k, v in columns.items()}
        row.update(layers=int(columns["layers"][i]), units=int(columns["units"][i]), act=text[int(columns["act"][i])])
        out.append(row)
    return out


def main():
    rng = np.random.default_rng(5)
    cases = []
    for n in [1, 2, 5, 26, 40]:
        observed, samples = draw(rng, n), draw(rng, 8)
        estimator = _ParzenEstimator({k: np.asarray(v, float) for k, v in observed.items()}, SPACE, PARAMETERS)
        log_pdf = estimator.log_pdf({k: np.asarray(v, float) for k, v in samples.items()})
        cases.append({"observed": rows(observed), "samples": rows(samples), "log_pdf": log_pdf.tolist()})
    path = pathlib.Path(__file__).with_name("parzen.json")
    path.write_text(json.dumps(cases, indent=None, separators=(",", ":")) + "\n")


main()
