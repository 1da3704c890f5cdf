"""Makes optuna.log, optuna.sql and optuna.json: a study of Optuna in both of its storages, and what Optuna reads there.

    pip install optuna==5.0.0
    python3 make_optuna.py

The .sql file is the database as text (`.dump`), which is smaller.
"""

import json
import math
import sqlite3
import tempfile
from pathlib import Path

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

HERE = Path(__file__).parent


def objective(trial):
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    dropout = trial.suggest_float("dropout", 0.0, 0.6, step=0.1)
    head = trial.suggest_categorical("head", ["linear", "hidden"])
    units = trial.suggest_int("hidden_units", 64, 1024, log=True) if head == "hidden" else 64
    trial.suggest_categorical("batch", [16, 32, 64])
    trial.suggest_int("blocks", 1, 7, step=2)
    trial.set_user_attr("note", 'NaN, "quoted", é')
    if trial.number == 4:
        raise RuntimeError("out of memory")
    value = 0.0
    for epoch in range(1, 4):
        value = 1 - 0.1 * abs(math.log10(rate) + 2.5) - 0.2 * dropout - 3 / units - 0.3 / epoch
        trial.report(math.nan if trial.number == 5 and epoch == 2 else value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return math.inf if trial.number == 11 else value


def fill(storage):
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study = optuna.create_study(
        study_name="peer", storage=storage, direction="maximize", sampler=optuna.samplers.RandomSampler(7), pruner=pruner
    )
    study.optimize(objective, n_trials=12, catch=RuntimeError)
    study.enqueue_trial({"learning_rate": 1e-3})
    study.enqueue_trial({"learning_rate": 1e-2})
    study.ask().suggest_categorical("batch", [16, 32, 64])  # a process that was killed
    two = optuna.create_study(study_name="two objectives", storage=storage, directions=["minimize", "maximize"])
    two.enqueue_trial({"x": 0.25})
    two.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.5), n_trials=1)
    optuna.create_study(study_name="gone", storage=storage)
    optuna.delete_study(study_name="gone", storage=storage)


def number(value):
    return value if value is not None and math.isfinite(value) else None


def described(storage):
    return [
        {
            "name": study.study_name,
            "directions": [direction.name.lower() for direction in study.directions],
            "trials": [
                {
                    "state": trial.state.name,
                    "values": [number(value) for value in trial.values or []],
                    "params": trial.params,
                    "reports": {str(step): number(value) for step, value in trial.intermediate_values.items()},
                }
                for trial in study.trials
            ],
        }
        for name in optuna.get_all_study_names(storage)
        for study in [optuna.load_study(study_name=name, storage=storage)]
    ]


def main():
    log = HERE / "optuna.log"
    log.unlink(missing_ok=True)
    fill(JournalStorage(JournalFileBackend(str(log))))
    journal = described(JournalStorage(JournalFileBackend(str(log))))
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/optuna.db"
        fill(RDBStorage(url))
        assert described(RDBStorage(url)) == journal
        with sqlite3.connect(f"{folder}/optuna.db") as connection:
            dump = [line for line in connection.iterdump() if not line.startswith("CREATE INDEX")]
    (HERE / "optuna.sql").write_text("\n".join(dump) + "\n")
    facts = {"optuna": optuna.__version__, "studies": journal}
    (HERE / "optuna.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main()
