#!/usr/bin/env python3
"""The peer of benches/race/race.py: the same search by Optuna (TPE, Hyperband or ASHA) with PyTorch, as a competent user would write it.

InceptionV3 in channels_last, frozen layers in eval mode under no_grad with batch norm folded into convolutions, nothing computed
beyond the tap, decoded images kept in memory, augmentation in a worker process ahead of the step, frozen features of what does not
change (validation images, and training images without augmentation) computed once a trial, a class-weighted loss, fused AdamW with
warm-up and a cosine, the statistics of pretrained batch norm kept, the best trial's weights kept for the test. It answers with the
best of the trials trained to their end, as `study.best_trial` does; trials that were pruned stand in only while there is none.
Writes one JSON file.
"""
import argparse, csv, json, math, time
from pathlib import Path

import numpy as np
import optuna
import torch
import torch.nn as nn
import torchvision
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torchvision.transforms import v2

STAGES = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2",
          "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e",
          "Mixed_7a", "Mixed_7b", "Mixed_7c"]
CHANNELS = {"Mixed_5d": 288, "Mixed_6b": 768, "Mixed_6e": 768, "Mixed_7a": 1280, "Mixed_7c": 2048}


class Views(torch.utils.data.Dataset):
    """Decoded images, augmented."""

    def __init__(self, images, labels, strength):
        self.images, self.labels = images, labels
        size = images.shape[-1]
        self.change = v2.Compose([
            v2.RandomHorizontalFlip(0.5 * strength), v2.Pad(size // 8, padding_mode="edge"),
            v2.RandomRotation(10 * strength, interpolation=v2.InterpolationMode.BILINEAR), v2.CenterCrop(size),
            v2.ColorJitter(brightness=0.2 * strength)]) if strength else None

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = self.images[i]
        return (self.change(image) if self.change else image), self.labels[i]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--manifest", type=Path, required=True)
    p.add_argument("--positive", required=True)
    p.add_argument("--weights", required=True)
    p.add_argument("--preset", default="keras")
    p.add_argument("--scaling", default="symmetric", choices=["unit", "symmetric"])
    p.add_argument("--size", type=int, default=150)
    p.add_argument("--sizes", type=int, nargs="*", default=[], help="sides of images that the network sees, to be searched")
    p.add_argument("--scheduler", default="hyperband", choices=["hyperband", "asha"])
    p.add_argument("--bf16", action="store_true", help="multiply in bfloat16 where autocast does")
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--loaders", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--first", type=Path, help="a JSON file of configurations to try first")
    p.add_argument("--answers", type=float, nargs="*", default=[], metavar="MINUTES",
                   help="score what it would have answered earlier, too")
    p.add_argument("--out", type=Path, required=True)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)

    sets = {"train": ([], []), "val": ([], []), "test": ([], [])}
    for row in csv.DictReader(open(a.manifest)):
        image = Image.open(a.manifest.parent / row["path"]).convert("L").resize((a.size, a.size), Image.BILINEAR)
        sets[row["split"]][0].append(np.asarray(image))
        sets[row["split"]][1].append(int(row["label"] == a.positive))
    data = {k: (torch.from_numpy(np.stack(x))[:, None], torch.tensor(y)) for k, (x, y) in sets.items()}
    began = time.monotonic()  # as hpsearch's wall time does, once images are decoded
    pretrained = {k: v.float() for k, v in load_file(a.weights).items()}
    if a.preset == "keras":  # average pools that do not count the padding
        torch.nn.functional.avg_pool2d = lambda x, kernel_size, stride, padding, **_: torch._C._nn.avg_pool2d(
            x, kernel_size, stride, padding, False, False)
    counts = torch.bincount(data["train"][1], minlength=2).float()
    loss_of = nn.CrossEntropyLoss(weight=counts.sum() / (2 * counts))
    scale = {"unit": lambda x: x / 255, "symmetric": lambda x: x / 127.5 - 1}[a.scaling]

    # On processors with AVX512-BF16 or AMX several times as fast.
    narrow = lambda: torch.autocast("cpu", torch.bfloat16, enabled=a.bf16)

    def pixels(images, side):
        images = images.float()
        if side != images.shape[-1]:
            images = nn.functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        return scale(images).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def build(params):
        net = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
        net.load_state_dict(pretrained, strict=False)
        stages = [getattr(net, s) for s in STAGES[:STAGES.index(params["tap"]) + 1]]
        cut = {"none": 0, "all": len(stages)}.get(params["freeze"], None)
        cut = min(STAGES.index(params["freeze"]) + 1, len(stages)) if cut is None else cut
        body = nn.Sequential(*stages).to(memory_format=torch.channels_last).eval()
        width = CHANNELS[params["tap"]]
        dense = [nn.Linear(width, 2)]
        if params["head"] == "hidden":
            dense = [nn.Linear(width, 256), nn.ReLU(), nn.Dropout(params["dropout"]), nn.Linear(256, 2)]
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(width), nn.Dropout(params["dropout"]), *dense)
        frozen = body[:cut].requires_grad_(False)
        for module in frozen.modules():
            if isinstance(module, torchvision.models.inception.BasicConv2d):
                module.conv, module.bn = torch.nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
        return frozen, body[cut:], head, params.get("input_size", a.size)

    @torch.no_grad()
    def features(model, images):
        """Of the frozen part; pooled at once where nothing but the head comes after."""
        with narrow():
            x = model[0](pixels(images, model[3]))
        return x.mean((2, 3), keepdim=True) if len(model[1]) == 0 else x

    def all_features(model, images):
        parts = torch.cat([features(model, part) for part in images.split(32)])
        return parts.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def score(model, found):
        """Scores from the frozen part's features."""
        model[2].eval()
        with narrow():
            return torch.cat([model[2](model[1](part)).float().softmax(1)[:, 1] for part in found.split(32)])

    minutes = lambda: (time.monotonic() - began) / 60
    course, begun, judged = [], [], []  # with minutes: values of trials trained to their end, trials, epochs
    answers = [(0.0, {"rank": (False, -math.inf)})]  # a trial trained to its end comes before one that was not

    def objective(trial):
        params = dict(
            learning_rate=trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
            backbone_rate=trial.suggest_float("backbone_rate", 0.03, 1.0, log=True),
            weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
            dropout=trial.suggest_float("dropout", 0.0, 0.6),
            tap=trial.suggest_categorical("tap", list(CHANNELS)),
            freeze=trial.suggest_categorical("freeze", ["none", "Mixed_5b", "Mixed_5d", "Mixed_6b", "Mixed_6e", "all"]),
            strength=trial.suggest_float("strength", 0.0, 1.0, step=0.5),
            head=trial.suggest_categorical("head", ["linear", "hidden"]))
        if a.sizes:
            params["input_size"] = trial.suggest_categorical("input_size", a.sizes)
        begun.append(minutes())
        model = frozen, trained, head, side = build(params)
        rate = params["learning_rate"]
        groups = [dict(params=[p for p in part.parameters() if (p.dim() > 1) == matrix], rate=share * rate,
                       weight_decay=params["weight_decay"] if matrix else 0.0)
                  for part, share in ((head, 1.0), (trained, params["backbone_rate"])) for matrix in (False, True)]
        optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, fused=True)
        once = frozen_val = None
        if len(frozen):
            frozen_val = all_features(model, data["val"][0])
            once = all_features(model, data["train"][0]) if not params["strength"] else None
        workers = dict(num_workers=a.loaders, persistent_workers=True, prefetch_factor=4) if params["strength"] else {}
        labels = data["train"][1]
        images = Views(data["train"][0] if once is None else once, labels, params["strength"])
        # A batch of one has no statistics.
        loader = torch.utils.data.DataLoader(images, a.batch, shuffle=True, drop_last=len(labels) % a.batch == 1, **workers)
        steps, warm, step = a.epochs * len(loader), 0.5 * len(loader), 0
        for epoch in range(1, a.epochs + 1):
            head.train()
            for images, labels in loader:
                if minutes() > a.minutes:
                    raise optuna.TrialPruned()
                factor = min((step + 1) / warm, 1) if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
                for group in optimiser.param_groups:
                    group["lr"] = group["rate"] * factor
                x = images.contiguous(memory_format=torch.channels_last) if once is not None else features(model, images)
                with narrow():
                    out = head(trained(x))
                loss = loss_of(out.float(), labels)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                step += 1
            if frozen_val is None:
                scores = torch.cat([score(model, pixels(part, side)) for part in data["val"][0].split(32)])
            else:
                scores = score(model, frozen_val)
            if not scores.isfinite().all():
                raise optuna.TrialPruned()
            value = roc_auc_score(data["val"][1].numpy(), scores.numpy())
            judged.append(minutes())
            print(f"trial {trial.number} epoch {epoch}: {value:.4f} {params} {minutes():.1f} min", flush=True)
            if (rank := (epoch == a.epochs, value)) > answers[-1][1]["rank"]:
                answers.append((minutes(), dict(rank=rank, params=params, validation=scores.tolist(), state=[
                    {k: v.clone() for k, v in part.state_dict().items()} for part in (trained, head)])))
            trial.report(value, epoch)
            if epoch < a.epochs and trial.should_prune():
                raise optuna.TrialPruned()
        course.append((minutes(), value))
        return value

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # One rung at a quarter of the epochs, as in the study of race.py. The brackets of trials follow from the study's name.
    rung = max(1, a.epochs // 4)
    pruner = (optuna.pruners.HyperbandPruner(min_resource=rung, max_resource=a.epochs, reduction_factor=4)
              if a.scheduler == "hyperband" else optuna.pruners.SuccessiveHalvingPruner(min_resource=rung, reduction_factor=4))
    study = optuna.create_study(study_name=f"race-{a.seed}", direction="maximize",
                                sampler=optuna.samplers.TPESampler(seed=a.seed), pruner=pruner)
    for params in json.loads(a.first.read_text()) if a.first else []:
        study.enqueue_trial(params)
    study.optimize(objective, timeout=60 * (a.minutes - minutes()), catch=())

    def answer(at):
        best = [answer for since, answer in answers if since <= at][-1]
        if "state" not in best:
            raise SystemExit(f"no epoch was over after {at:g} minutes")
        model = build(best["params"])
        for part, state in zip(model[1:3], best["state"]):
            part.load_state_dict(state)
        test = torch.cat([score(model, features(model, part)) for part in data["test"][0].split(32)])
        return dict(course=[(since, value) for since, value in course if since <= at], trials=sum(t <= at for t in begun),
                    epochs=sum(t <= at for t in judged), params=best["params"], given=at,
                    validation=[data["val"][1].tolist(), best["validation"]], test=[data["test"][1].tolist(), test.tolist()])

    # The last may have come a moment late: an epoch that was under way is judged.
    told = [answer(at) for at in a.answers] + [dict(answer(math.inf), given=a.minutes)]
    a.out.write_text(json.dumps(told))


main()
