"""Makes course_figures.json: hundreds of steps of fine-tuning by PyTorch in double precision.

An InceptionA block (torchvision's Mixed_5b, full width, on feature maps of 5 x 5 pixels) under the usual head is trained for
300 steps, four times: batch norm of the block frozen or training, AdamW or SGD with momentum. On record: the loss before
every step, the loss of all samples judged with running statistics after the last, and how far PyTorch's own single
precision strays from both, which is the measure of what may be asked of anybody's single precision.

Inputs come from integers, by the recipe of make_training_figures.py.
Run with torch, torchvision and numpy installed: python make_course_figures.py > course_figures.json
"""

import json
import math

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.models.inception import InceptionA

from make_training_figures import s

SAMPLES, BATCH, EPOCHS, WARM = 32, 8, 75, 2
RATE, NETWORK_RATE, DECAY = {"adamw": 2e-4, "sgd": 2e-3}, 0.5, 0.01


def course(kind, batch_norm, dtype):
    block, norm, out = InceptionA(192, 32).to(dtype), torch.nn.BatchNorm1d(256).to(dtype), torch.nn.Linear(256, 2).to(dtype)
    with torch.no_grad():
        for name, t in list(block.named_parameters()) + list(block.named_buffers()):
            if not t.dim():
                continue
            x = s("course." + name, *t.shape)
            if t.dim() == 4:
                x = x * math.sqrt(6 / t[0].numel())
            elif name.endswith(("bn.weight", "running_var")):
                x = 1 + 0.25 * x
            else:
                x = 0.25 * x
            t.copy_(x.float().to(dtype))  # exact in single precision
        out.weight.copy_((s("course.out.weight", 2, 256) / 16).float())
        out.bias.zero_()
    x = s("course.x", SAMPLES, 192, 5, 5).clamp(min=0).to(dtype)
    labels = (x[:, :96].mean((1, 2, 3)) > x[:, 96:].mean((1, 2, 3))).long()
    groups = [dict(params=[p], rate=rate, weight_decay=DECAY if p.dim() > 1 else 0.0)
              for module, rate in ((norm, 1.0), (out, 1.0), (block, NETWORK_RATE)) for p in module.parameters()]
    optimiser = torch.optim.AdamW(groups) if kind == "adamw" else torch.optim.SGD(groups, lr=1, momentum=0.9)
    steps = SAMPLES // BATCH
    warm, total, losses = WARM * steps, EPOCHS * steps, []
    norm.train()
    block.train(batch_norm == "train")
    for step in range(total):
        first = step % steps * BATCH
        loss = F.cross_entropy(out(norm(block(x[first:first + BATCH]).mean((2, 3)))), labels[first:first + BATCH])
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        at = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        for group in optimiser.param_groups:
            group["lr"] = RATE[kind] * at * group["rate"]
        optimiser.step()
    norm.eval()
    block.eval()
    with torch.no_grad():
        return losses, F.cross_entropy(out(norm(block(x).mean((2, 3)))), labels).item(), labels.tolist()


def main():
    torch.set_num_threads(1)
    cases = []
    for batch_norm in ("frozen", "train"):
        for kind in ("adamw", "sgd"):
            losses, judged, labels = course(kind, batch_norm, torch.float64)
            single, single_judged, _ = course(kind, batch_norm, torch.float32)
            cases.append(dict(
                batch_norm=batch_norm, optimiser=kind, learning_rate=RATE[kind], losses=[float(f"{x:.9g}") for x in losses],
                judged=float(f"{judged:.9g}"), single=dict(
                    losses=float(f"{np.abs(np.subtract(losses, single)).max():.2g}"),
                    judged=float(f"{abs(judged - single_judged):.2g}"))))
    print(json.dumps(dict(torch=torch.__version__, samples=SAMPLES, batch=BATCH, epochs=EPOCHS, warm=WARM,
                          network_rate=NETWORK_RATE, decay=DECAY, labels=labels, cases=cases)))


main()
