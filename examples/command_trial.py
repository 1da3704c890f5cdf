#!/usr/bin/env python3
"""A trial of hpsearch's command runner: logistic regression on two noisy moons, resumable, without dependencies.

    [runner]
    kind = "command"
    command = ["python3", "command_trial.py"]
    directory = "."          # this folder, relative to the study file
    epochs = 9

See docs/command-runner.md for the protocol.
"""

import json
import math
import os
import random
import sys


def moons(n, seed):
    """Points of two interleaving half circles with noise, and the half circle of each."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label, angle = i % 2, rng.random() * math.pi
        x, y = math.cos(angle), math.sin(angle)
        if label:
            x, y = 1 - x, 0.5 - y
        x, y = x + rng.gauss(0, 0.2), y + rng.gauss(0, 0.2)
        rows.append(([1.0, x, y, x * x, x * y, y * y, x ** 3, y ** 3], label))
    return rows


def predict(weights, features):
    z = sum(w * f for w, f in zip(weights, features))
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, z))))


def main():
    order = json.loads(sys.stdin.readline())
    params, folder = order["params"], order["dir"]
    rate, decay = params["learning_rate"], params.get("weight_decay", 0.0)
    train, validation = moons(400, order["seed"]), moons(400, order["seed"] + 1)

    # One file an epoch: after a kill the newest may be an epoch ahead of what is on record.
    def state_file(epoch):
        return os.path.join(folder, f"state-{epoch}.json")

    weights = [0.0] * 8
    if order["from"] > 0:
        with open(state_file(order["from"])) as file:
            weights = json.load(file)

    for epoch in range(order["from"] + 1, order["to"] + 1):
        # Shuffled by (seed, epoch) alone, so that a resumed trial repeats exactly.
        rows = train[:]
        random.Random(order["seed"] * 1000003 + epoch).shuffle(rows)
        loss = 0.0
        for features, label in rows:
            p = predict(weights, features)
            loss -= math.log(max(p if label else 1 - p, 1e-12))
            weights = [w - rate * ((p - label) * f + decay * w) for w, f in zip(weights, features)]

        # First the state, written atomically; then the report of the epoch.
        with open(state_file("part"), "w") as file:
            json.dump(weights, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(state_file("part"), state_file(epoch))
        if os.path.exists(state_file(epoch - 2)):
            os.remove(state_file(epoch - 2))

        right = sum((predict(weights, features) > 0.5) == bool(label) for features, label in validation)
        report = {"epoch": epoch, "value": right / len(validation), "train_loss": loss / len(rows), "images": len(rows)}
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
