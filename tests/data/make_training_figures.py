"""Makes training_figures.json: PyTorch's losses, optimiser trajectories and frozen networks, as figures to check against.

Numbers come from integers, so that no file of inputs is needed: fnv is FNV-1a 64 of a name, z splitmix64,
s(name, i) = (z(fnv(name), i) >> 40) * 2^-23 - 1 in [-1, 1), exact in f32.
Run with torch, torchvision (and numpy) installed: python make_training_figures.py > training_figures.json
"""

import json

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

M = (1 << 64) - 1


def fnv(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & M
    return h


def s(name, *shape):
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        x = np.uint64(fnv(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return torch.from_numpy(((x >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0).reshape(shape))


def rounded(t):
    return [float(f"{x:.9g}") for x in t.detach().double().flatten().tolist()]


def losses():
    logits, labels = s("logits", 7, 3) * 4, torch.tensor([0, 2, 1, 1, 2, 0, 1])
    out = []
    for weights in (None, [0.5, 2.0, 1.25]):
        for smoothing in (0.0, 0.1):
            x = logits.clone().requires_grad_()
            w = None if weights is None else torch.tensor(weights, dtype=torch.float64)
            loss = F.cross_entropy(x, labels, weight=w, label_smoothing=smoothing)
            loss.backward()
            out.append(dict(weights=weights or [], smoothing=smoothing, gamma=0.0, loss=rounded(loss)[0], gradient=rounded(x.grad)))
        for gamma in (0.5, 2.0):
            # Lin et al. 2017, equation 5, for classes by softmax; averaged as cross_entropy averages.
            x = logits.clone().requires_grad_()
            alpha = torch.ones(3, dtype=torch.float64) if weights is None else torch.tensor(weights, dtype=torch.float64)
            p = x.softmax(1).gather(1, labels[:, None])[:, 0]
            loss = (-alpha[labels] * (1 - p) ** gamma * p.log()).sum() / alpha[labels].sum()
            loss.backward()
            out.append(dict(weights=weights or [], smoothing=0.0, gamma=gamma, loss=rounded(loss)[0], gradient=rounded(x.grad)))
    return out


CLIP_NORM = 0.25


def trajectories():
    """A weight (decayed) and a bias (not), twenty steps on a quadratic with a changing learning rate; then the same with
    the gradients' global norm clipped."""
    out = []
    for kind, clips in (("adamw", False), ("sgd", False), ("adamw", True), ("sgd", True)):
        w, b = s("w", 3, 2).requires_grad_(), s("b", 3).requires_grad_()
        x, y = s("x", 8, 2), s("y", 8, 3)
        groups = [dict(params=[w], weight_decay=0.1), dict(params=[b], weight_decay=0.0)]
        optimiser = torch.optim.AdamW(groups, lr=1) if kind == "adamw" else torch.optim.SGD(groups, lr=1, momentum=0.9)
        course = []
        for step in range(20):
            for group in optimiser.param_groups:
                group["lr"] = 0.05 / (1 + step / 10)
            optimiser.zero_grad()
            ((x @ w.t() + b - y) ** 2).mean().backward()
            if clips:
                torch.nn.utils.clip_grad_norm_([w, b], CLIP_NORM)
            optimiser.step()
            course.append(rounded(w) + rounded(b))
        out.append(dict(kind=kind, course=course))
    return out


def fill(model):
    """Every tensor of a network from its name: He-like weights, norms near the identity."""
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            v = s(name, *t.shape)
            if name.endswith("running_var"):
                v = 1 + v / 4
            elif name.endswith("weight") and t.dim() > 1:
                v = v * (6 / np.prod(t.shape[1:])) ** 0.5
            elif name.endswith("weight"):
                v = 0.5 + v / 8
            elif name.endswith("gamma"):
                v = v / 2
            else:
                v = v / 8
            t.copy_(v)
    return model.double().eval()


class ConvNextTiny(torch.nn.Module):
    """torchvision's network under timm's names."""

    def __init__(self):
        super().__init__()
        self.net = torchvision.models.convnext_tiny()

    @staticmethod
    def timm_name(name):
        part = name.split(".")
        if part[0] == "classifier":
            return {"0": "head.norm", "2": "head.fc"}[part[1]] + "." + part[-1]
        index = int(part[1])
        if index == 0:
            return f"stem.{part[2]}.{part[3]}"
        if index % 2 == 0:
            return f"stages.{index // 2}.downsample.{part[2]}.{part[3]}"
        stage = f"stages.{index // 2}.blocks.{part[2]}"
        if part[3] == "layer_scale":
            return f"{stage}.gamma"
        return f"{stage}." + {"0": "conv_dw", "2": "norm", "3": "mlp.fc1", "5": "mlp.fc2"}[part[4]] + f".{part[5]}"

    def fill(self):
        with torch.no_grad():
            for name, t in self.net.state_dict().items():
                timm = self.timm_name(name)
                if timm.startswith("head.fc"):
                    continue
                v = s(timm, t.numel()).reshape(t.shape)
                if timm.endswith("weight") and t.dim() > 1:
                    v = v * (6 / np.prod(t.shape[1:])) ** 0.5
                elif timm.endswith("weight"):
                    v = 0.5 + v / 8
                elif timm.endswith("gamma"):
                    v = v / 2
                else:
                    v = v / 8
                t.copy_(v)
        self.net.classifier = self.net.classifier[:2]  # norm, flatten
        return self.net.double().eval()


def networks():
    x = s("image", 2, 3, 64, 64)
    out = {}
    for name in ("resnet18", "resnet50"):
        model = getattr(torchvision.models, name)()
        model.fc = torch.nn.Identity()
        out[name] = fill(model)(x)
    out["convnext_tiny"] = ConvNextTiny().fill()(x)
    picks = {}
    for name, y in out.items():
        index = list(range(0, y.shape[1], 61))
        picks[name] = dict(channels=y.shape[1], index=index, values=rounded(y[:, index]), std=rounded(y.std())[0])
    return picks


if __name__ == "__main__":
    print(json.dumps(dict(torch=torch.__version__, losses=losses(), trajectories=trajectories(), clip_norm=CLIP_NORM, networks=networks()), indent=None))
