"""Makes metrics.json: predictions and the figures that scikit-learn, scipy and a brute-force DeLong give for them.

    python make_metrics.py > metrics.json

Needs numpy, scipy and scikit-learn. The DeLong covariance is computed here from all pairs of images (DeLong et al.
1988, equations 5 to 8), not by the midranks that the crate uses.
"""

import json

import numpy as np
import sklearn
from scipy.special import logit
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression


def scores_of(rng, labels, gap, digits):
    raw = 1 / (1 + np.exp(-(rng.normal(size=len(labels)) + gap * (labels - 0.6))))
    return np.round(raw, digits)


def binary(name, labels, scores, threshold):
    scores = np.asarray(scores, dtype=np.float32)
    p = scores.astype(np.float64)
    y = np.asarray(labels)
    called = (p >= threshold).astype(int)
    both = len(set(y.tolist())) == 2
    tn, fp, fn, tp = sk.confusion_matrix(y, called, labels=[0, 1]).ravel().tolist()
    ratio = lambda a, b: a / b if b else None
    out = {
        "recall": ratio(tp, tp + fn),
        "precision": ratio(tp, tp + fp),
        "specificity": ratio(tn, tn + fp),
        "f1": sk.f1_score(y, called, zero_division=np.nan) if tp + fp + fn else None,
        "balanced_accuracy": sk.balanced_accuracy_score(y, called) if both else None,
        "accuracy": sk.accuracy_score(y, called),
        "roc_auc": sk.roc_auc_score(y, p) if both else None,
        "pr_auc": sk.average_precision_score(y, p) if both else None,
        "brier": float(np.mean((p - y) ** 2)) if not both else sk.brier_score_loss(y, p),
    }
    case = {"name": name, "threshold": threshold, "labels": y.tolist(), "scores": [float(s) for s in p], "metrics": out}
    if both:
        fpr, tpr, t = sk.roc_curve(y, p, drop_intermediate=False)
        case["roc"] = {"fpr": fpr.tolist(), "tpr": tpr.tolist(), "threshold": t[1:].tolist()}
        precision, recall, t = sk.precision_recall_curve(y, p)
        # Rising thresholds and an artificial last point there; falling and none here.
        case["pr"] = {
            "precision": precision[:-1][::-1].tolist(),
            "recall": recall[:-1][::-1].tolist(),
            "threshold": t[::-1].tolist(),
        }
        case["calibration"] = None
        if 0 < sk.roc_auc_score(y, p) < 1 and len(set(p.tolist())) > 1:
            x = logit(np.clip(p, 1e-7, 1 - 1e-7)).reshape(-1, 1)
            fit = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10000).fit(x, y)
            case["calibration"] = {"slope": float(fit.coef_[0, 0]), "intercept": float(fit.intercept_[0])}
        at = lambda ok, value: float(np.max(value[ok])) if ok.any() else None
        case["constrained"] = {
            "recall_at_specificity_0.9": at(1 - fpr >= 0.9, tpr),
            "specificity_at_recall_0.95": at(tpr >= 0.95, 1 - fpr),
            "precision_at_recall_0.8": at(recall[:-1] >= 0.8, precision[:-1]),
        }
    return case


def multiclass(rng):
    labels = rng.choice(3, size=90, p=[0.5, 0.3, 0.2])
    raw = rng.normal(size=(90, 3)) + 1.4 * np.eye(3)[labels]
    p = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    p = p.astype(np.float32).astype(np.float64)
    called = p.argmax(axis=1)
    one = [(labels == k).astype(int) for k in range(3)]
    return {
        "labels": labels.tolist(),
        "scores": p.tolist(),
        "metrics": {
            "recall": sk.recall_score(labels, called, average="macro"),
            "precision": sk.precision_score(labels, called, average="macro"),
            "f1": sk.f1_score(labels, called, average="macro"),
            "specificity": float(np.mean([sk.recall_score(1 - y, (called != k).astype(int)) for k, y in enumerate(one)])),
            "accuracy": sk.accuracy_score(labels, called),
            "roc_auc": float(np.mean([sk.roc_auc_score(y, p[:, k]) for k, y in enumerate(one)])),
            "pr_auc": float(np.mean([sk.average_precision_score(y, p[:, k]) for k, y in enumerate(one)])),
            "brier": float(np.mean([sk.brier_score_loss(y, p[:, k]) for k, y in enumerate(one)])),
            "log_loss": float(-np.mean(np.log(p[np.arange(90), labels]))),
        },
        "confusion": sk.confusion_matrix(labels, called).tolist(),
    }


def delong(rng):
    labels = (rng.random(80) < 0.4).astype(int)
    models = [scores_of(rng, labels, gap, digits) for gap, digits in [(2.0, 1), (1.5, 3), (0.4, 2)]]
    models[1] = np.round(0.5 * models[0] + 0.5 * models[1], 3)
    m, n = int(labels.sum()), int((1 - labels).sum())
    v10, v01, aucs = [], [], []
    for s in models:
        x, y = s[labels == 1][:, None], s[labels == 0][None, :]
        psi = (x > y) + 0.5 * (x == y)
        aucs.append(psi.mean())
        v10.append(psi.mean(axis=1))
        v01.append(psi.mean(axis=0))
    covariance = np.cov(np.array(v10)) / m + np.cov(np.array(v01)) / n
    return {
        "labels": labels.tolist(),
        "scores": [s.tolist() for s in models],
        "auc": [float(a) for a in aucs],
        "covariance": covariance.tolist(),
    }


rng = np.random.default_rng(20)
half = (np.arange(60) % 3 == 0).astype(int)
few = (np.arange(200) % 23 == 0).astype(int)
cases = [
    binary("smooth", half, scores_of(rng, half, 1.8, 6), 0.5),
    binary("heavy ties", half, scores_of(rng, half, 1.2, 1), 0.5),
    binary("rare positives", few, scores_of(rng, few, 2.5, 4), 0.3),
    binary("worse than chance", half, 1 - scores_of(rng, half, 2.0, 4), 0.5),
    binary("constant scores", half, np.full(60, 0.25), 0.5),
    binary("separated", np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.7, 0.9]), 0.5),
    binary("one class, negative", np.zeros(5, int), np.array([0.1, 0.6, 0.3, 0.2, 0.8]), 0.5),
    binary("one class, positive", np.ones(4, int), np.array([0.1, 0.6, 0.3, 0.2]), 0.5),
]
figures = {"scikit_learn": sklearn.__version__, "binary": cases, "multiclass": multiclass(rng), "delong": delong(rng)}
print(json.dumps(figures, separators=(",", ":")))
