#!/usr/bin/env python3
"""Fits and checks the model of what trials cost (src/runner/image/price.rs) on this machine's CPU.

    cargo build --release --example network_speed
    python3 benches/quality/price.py [--batch 8] [--repeats 3] [--precision amp]

Times forward passes to every stage and training steps from every stage at four sizes, in processor seconds (so that other
work on the machine matters little), fits seconds = a m + b w + c v + d p / batch (m: multiply-adds of plain convolutions, w: those
of Winograd's, v: values that convolutions and pools write, p: weights) with non-negative factors for forward passes and for the trained part, and prints
the factors relative to a, with the errors that they leave; and how far the program's own factors, which do not know of
--precision, are off when one number scales them all.
"""
import argparse, itertools, statistics, subprocess
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

ROOT = Path(__file__).resolve().parents[2]
SIDES, STAGES = [75, 150, 224, 299], 18
# The factors of src/runner/image/price.rs.
FORWARD, STEP = [1, 0.56, 118, 49], [3.49, 2.66, 626, 225]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--precision", default="f32", choices=["f32", "amp"])
    a = p.parse_args()
    child = subprocess.Popen([ROOT / "target/release/examples/network_speed", a.precision], text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)

    def ask(line):
        child.stdin.write(line + "\n")
        child.stdin.flush()
        return [float(x) for x in child.stdout.readline().split()]

    def work(side, first, last):
        multiply_adds, winograd, values, weights = ask(f"work {side} {first} {last}")
        return np.array([multiply_adds - winograd, winograd, values, weights / a.batch])

    def seconds(line):
        return min(ask(line)[1] for _ in range(a.repeats + 1)) / a.batch

    forward = [(f"forward {side} px to stage {to}", work(side, 0, to), seconds(f"forward {side} {a.batch} {to}"))
               for side, to in itertools.product(SIDES, range(1, STAGES + 1))]
    known = {(side, to): t for (side, to), (_, _, t) in zip(itertools.product(SIDES, range(1, STAGES + 1)), forward)}
    steps = [(f"step {side} px from stage {first}", work(side, first, STAGES),
              seconds(f"step {side} {a.batch} {first} frozen") - known.get((side, first), 0.0))
             for first, side in itertools.product([0, 3, 7, 9, 10, 12, 14, 15, 16, 17], SIDES)]
    child.stdin.close()

    def fit(rows):
        x, y = np.array([w for _, w, _ in rows]), np.array([t for _, _, t in rows])
        factors, _ = nnls(x / y[:, None], np.ones(len(y)))  # least relative errors
        return factors, x @ factors / y

    base, fitted = fit(forward)
    trained, fitted_trained = fit(steps)
    for name, factors, ratios in [("forward", base, fitted), ("trained part", trained, fitted_trained)]:
        off = [abs(r - 1) for r in ratios]
        print(f"{name}: " + ", ".join(f"{f / base[0]:.3f}" for f in factors)
              + f" (one multiply-add: {1e12 * base[0]:.2f} ps); off by {100 * statistics.median(off):.1f} % at the median, "
              f"{100 * max(off):.1f} % at most")
    modelled = [w @ np.array(factors) / t for rows, factors in ((forward, FORWARD), (steps, STEP)) for _, w, t in rows]
    scale = statistics.median(modelled)
    off = [abs(m / scale - 1) for m in modelled]
    print(f"the program's factors: off by {100 * statistics.median(off):.1f} % at the median, {100 * max(off):.1f} % at most; "
          f"steps against forward passes {statistics.median(modelled[len(forward):]) / statistics.median(modelled[:len(forward)]):.2f}")
    for (name, _, t), ratio in [*zip(forward, fitted), *zip(steps, fitted_trained)]:
        print(f"  {name:<32} {1e3 * t:8.2f} ms an image, modelled {ratio:.2f} of it")


main()
