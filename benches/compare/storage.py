#!/usr/bin/env python3
"""What a finished trial costs Optuna on SQLite: the other side of `cargo bench --bench store`.

    python3 benches/compare/storage.py [TRIALS]

Needs `optuna`. The same work: so many trials of 20 epochs with an intermediate value each and two attributes at the end,
random suggestions of one float, one process; then the study is loaded anew and its trials are read.
"""

import os
import sys
import tempfile
import time

import optuna

EPOCHS = 20


def main():
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        storage = "sqlite:///" + os.path.join(folder, "optuna.db")
        study = optuna.create_study(storage=storage, study_name="s", direction="maximize",
                                    sampler=optuna.samplers.RandomSampler(seed=1))

        def objective(trial):
            x = trial.suggest_float("x", 0, 1)
            value = x
            for epoch in range(1, EPOCHS + 1):
                value = x + epoch * 1e-3
                trial.report(value, epoch)
                trial.should_prune()
            trial.set_user_attr("f1", value / 3)
            trial.set_user_attr("recall", value / 2)
            return value

        began = time.perf_counter()
        study.optimize(objective, n_trials=trials)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        loaded = optuna.load_study(storage=storage, study_name="s").get_trials()
        resume = time.perf_counter() - began
        assert len(loaded) == trials
        print(f"optuna {optuna.__version__}: {trials} trials x {EPOCHS} epochs in {seconds:.1f} s "
              f"= {trials / seconds:.2f} trials/s, loaded in {resume:.2f} s")


if __name__ == "__main__":
    main()
