#!/usr/bin/env python3
"""Draws the table that the example `recorded` prints: true regret against work, a line for each search.

    cargo run --release --example recorded -- benches/quality/recorded/elpv_96.json.gz 30 > regret.md
    python3 benches/quality/regret.py regret.md regret.svg

Needs matplotlib.
"""
import sys

import matplotlib
matplotlib.use("Agg")
from matplotlib import pyplot as plt

cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in open(sys.argv[1]) if line.startswith("|")]
marks = [float(mark) for mark in cells[0][1:-1]]
figure, axes = plt.subplots(figsize=(7, 4.5))
for i, (name, *values, _) in enumerate(cells[2:]):
    mean, error = zip(*([float(part) for part in value.split("±")] for value in values))
    axes.errorbar(marks, mean, error, label=name, capsize=2, linestyle=["-", "--", ":"][i % 3], marker="osD^v"[i % 5], markersize=3)
axes.set(xscale="log", xlabel="work, in full trainings of the dearest configuration", ylabel="true regret, hundredths of test ROC-AUC")
axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
axes.minorticks_off()
axes.set_ylim(bottom=0)
axes.legend(fontsize=8)
figure.tight_layout()
figure.savefig(sys.argv[2])
