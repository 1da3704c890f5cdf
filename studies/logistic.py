"""A trial of studies/command.toml: logistic regression by gradient descent on made-up data, standard library only.

Parameters come as environment variables (HPSEARCH_PARAMS: one JSON object) and as arguments. One JSON line an epoch
goes to standard output; the weights go to the folder of the trial before the line is printed, so that a promoted or
interrupted trial goes on where it stopped. Those of the last two epochs stay: after a kill the newest may be an epoch
ahead of what is on record.
"""

import argparse
import json
import math
import os
import random
from pathlib import Path

arguments = argparse.ArgumentParser()
arguments.add_argument("--learning-rate", type=float, required=True)
arguments.add_argument("--dir", type=Path, required=True)
arguments.add_argument("--from", dest="start", type=int, required=True)
arguments.add_argument("--to", type=int, required=True)
given = arguments.parse_args()
params = json.loads(os.environ["HPSEARCH_PARAMS"])

# The data are the same for every trial: two clouds in eight dimensions that overlap.
draw = random.Random(12345)
rows = []
for i in range(600):
    label = i % 2
    rows.append(([draw.gauss(0.4 * label, 1.0) for _ in range(8)] + [1.0], label))
train, validation = rows[:400], rows[400:]


def probability(weights, features):
    score = sum(w * x for w, x in zip(weights, features))
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, score))))


weights, speed = [0.0] * 9, [0.0] * 9
if given.start > 0:
    weights, speed = json.loads((given.dir / f"weights-{given.start}.json").read_text())

for epoch in range(given.start + 1, given.to + 1):
    slope = [params["penalty"] * w for w in weights]
    for features, label in train:
        error = probability(weights, features) - label
        slope = [s + error * x / len(train) for s, x in zip(slope, features)]
    speed = [params["momentum"] * v - given.learning_rate * s for v, s in zip(speed, slope)]
    weights = [w + v for w, v in zip(weights, speed)]

    chances = [(probability(weights, features), label) for features, label in validation]
    loss = -sum(math.log(max(1e-12, p if label else 1.0 - p)) for p, label in chances) / len(chances)
    accuracy = sum((p >= 0.5) == bool(label) for p, label in chances) / len(chances)

    part = given.dir / "weights.part"
    part.write_text(json.dumps([weights, speed]))
    part.rename(given.dir / f"weights-{epoch}.json")
    (given.dir / f"weights-{epoch - 2}.json").unlink(missing_ok=True)
    print(json.dumps({"epoch": epoch, "value": loss, "metrics": {"accuracy": accuracy}}), flush=True)
