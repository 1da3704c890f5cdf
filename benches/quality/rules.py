#!/usr/bin/env python3
"""Rules tried on a table of recorded trials: two of stopping, which do not pay, and what to answer when a search is cut short.

    python3 benches/quality/rules.py benches/quality/recorded/elpv_96.json.gz

1. Learning-curve stopping with a bound: the first trials run to the end; from then on a trial is stopped once its best value so
   far, raised by the largest gain that is to be expected, is below the best result. The largest gain is split-conformal over the
   first trials, at all epochs at once (the maximum over epochs of gain over median gain). Beside it the median rule
   (Golovin et al. 2017), as `[scheduler] kind = "median"` has it.
2. Halving whose rungs are work instead of epochs: at a rung every trial has been given the same work, by seconds of its epochs.
3. What a search that is cut short holds for best: the best of those trained longest, by finished orders; or the best after its latest
   epoch of all that are complete or may go on, as hpsearch does.

Trials that the table has to the end, drawn without replacement, in random order; 400 draws. Needs numpy.
"""
import gzip, json, sys

import numpy as np

table = json.load(gzip.open(sys.argv[1]))
last = table["made"]["epochs"]
rows = [row for row in table["trials"] if len(row["epochs"]) == last]
value, truth = (np.array([[e[of]["roc_auc"] for e in row["epochs"]] for row in rows]) for of in ("validation", "test"))
seconds = np.array([min(e["seconds"] for e in row["epochs"]) for row in rows])
best_so_far = np.maximum.accumulate(value, axis=1)
rng, draws = np.random.default_rng(0), 400


def median(complete, _, __):
    return np.median([np.cumsum(value[i]) / np.arange(1, last + 1) for i in complete], axis=0) if len(complete) >= 5 else None


def conformal(first, risk):
    def rule(_, calibration, best):
        if len(calibration) < first:
            return None
        gains = np.array([best_so_far[i, -1] - best_so_far[i] for i in calibration[:first]])[:, :-1]
        usual = np.median(gains, axis=0) + 1e-3
        rank = min(int(np.ceil((first + 1) * (1 - risk))), first)
        return best - np.sort((gains / usual).max(axis=1))[rank - 1] * usual
    return rule


def stopped(rule, order):
    """Share of the work that is done, whether the best trial is lost, and what of the best value."""
    complete, calibration, best, work = [], [], -np.inf, 0.0
    winner = order[np.argmax(best_so_far[order, -1])]
    lost = False
    for i in order:
        limits = rule(complete, calibration, best)
        ends = [e + 1 for e in range(last - 1) if limits is not None and best_so_far[i, e] < limits[e]]
        epochs = min(ends, default=last)
        work += epochs * seconds[i]
        if epochs < last:
            lost |= i == winner
            continue
        complete.append(i)
        best = max(best, best_so_far[i, -1])
        if limits is None:
            calibration.append(i)
    return work / (last * seconds[order].sum()), lost, best_so_far[winner, -1] - best


def halved(trials, rungs, factor=3):
    """Work in full trainings of the dearest trial, and the true regret of the one that is held for best, in hundredths."""
    live, done, work = list(trials), dict.fromkeys(trials, 0), 0.0
    for k, rung in enumerate(rungs):
        for i in live:
            to = max(done[i], rung(i))
            work, done[i] = work + (to - done[i]) * seconds[i], to
        live.sort(key=lambda i: -value[i, done[i] - 1])
        if k + 1 < len(rungs):
            live = live[:max(1, len(live) // factor)]
    held = max(live, key=lambda i: value[i, done[i] - 1])
    return work / (last * seconds.max()), 100 * (truth[:, -1].max() - truth[held, done[held] - 1])


def cut_short(trials, rungs, shares, factor=3):
    """True regret, in hundredths, of what is held for best after shares of the work of a halving: by epochs first, by the latest
    value."""
    live, done, work, log, given_up = list(trials), dict.fromkeys(trials, 0), 0.0, [], []
    for k, rung in enumerate(rungs):
        for i in live:
            for epoch in range(done[i] + 1, rung + 1):
                work += seconds[i]
                log.append((work, i, epoch, epoch == rung))
            done[i] = rung
        live.sort(key=lambda i: -value[i, rung - 1])
        kept = live[:max(1, len(live) // factor)] if k + 1 < len(rungs) else live
        given_up += [(work, i) for i in live if i not in kept]
        live = kept
    rows = []
    for share in shares:
        finished, latest = {}, {}
        for at, i, epoch, ends in log:
            if at <= share * work:
                latest[i] = epoch
                if ends:
                    finished[i] = epoch
        out = {i for at, i in given_up if at <= share * work}
        regret = lambda i, epochs: 100 * (truth[:, -1].max() - truth[i, epochs[i] - 1])
        by_value = lambda epochs: lambda i: value[i, epochs[i] - 1]
        longest = [i for i in finished if finished[i] == max(finished.values())]
        first = max(longest, key=by_value(finished)) if longest else None
        second = max((i for i in latest if i not in out), key=by_value(latest), default=None)
        rows.append([np.nan if i is None else regret(i, epochs) for i, epochs in ((first, finished), (second, latest))])
    return rows


def of_epochs(n):
    return lambda _: n


def of_work(share):
    """As many epochs as so many of mean cost."""
    return lambda i: int(np.clip(share * seconds.mean() / seconds[i], 1, last))


depth = np.corrcoef(np.log(seconds), value[:, -1])[0, 1]
print(f"{len(rows)} trials of {last} epochs; an epoch takes {seconds.min():.2f} to {seconds.max():.1f} s; correlation of its")
print(f"logarithm with the last validation value: {depth:.2f}\n")
print("| rule | trials | work | best trial lost | of its value |\n|---|---|---|---|---|")
for name, rule in (("median", median), ("bound, 20 trials, risk .05", conformal(20, .05)), ("bound, 20 trials, risk .2", conformal(20, .2))):
    for n in (60, len(rows)):
        work, lost, value_lost = np.mean([stopped(rule, rng.permutation(len(rows))[:n]) for _ in range(draws)], axis=0)
        print(f"| {name} | {n} | {work:.2f} | {lost:.2f} | {value_lost:.4f} |")
print("\n| halving by 3 | trials | work | true regret, hundredths |\n|---|---|---|---|")
ladders = (("1, 3, 8 epochs", [of_epochs(1), of_epochs(3), of_epochs(last)]),
           ("2, 8 epochs", [of_epochs(2), of_epochs(last)]),
           ("work of .5, 1.5, then 8 epochs", [of_work(.5), of_work(1.5), of_epochs(last)]),
           ("work of 2, then 8 epochs", [of_work(2), of_epochs(last)]))
for name, rungs in ladders:
    for n in (27, 54, 81):
        found = np.array([halved(rng.choice(len(rows), n, replace=False), rungs) for _ in range(draws)])
        (work, regret), error = found.mean(axis=0), found[:, 1].std() / draws ** .5
        print(f"| {name} | {n} | {work:.2f} | {regret:.2f} ± {error:.2f} |")
shares = (.1, .3, .5, .7, .8, .9, 1)
print("\n| cut short after | " + " | ".join(f"{share:g}" for share in shares) + " |\n|---" + "|---" * len(shares) + "|")
for n, rungs in ((27, (1, 3, 8)), (54, (1, 3, 8)), (12, (2, 8)), (16, (8,))):
    found = np.array([cut_short(rng.choice(len(rows), n, replace=False), rungs, shares) for _ in range(draws)])
    mean, error = np.nanmean(found, axis=0), np.nanstd(found, axis=0) / draws ** .5
    for k, name in enumerate(("trained longest", "latest value")):
        cells = " | ".join(f"{m:.2f} ± {e:.2f}" for m, e in zip(mean[:, k], error[:, k]))
        print(f"| {n} trials, {', '.join(map(str, rungs))} epochs: {name} | {cells} |")
