#!/usr/bin/env python3
"""PyTorch beside itself: InceptionV3 with autocast to bfloat16 on the CPU, as f32's time over bf16's.

Frozen layers up to Mixed_5d, folded and without gradients, then Mixed_6a to Mixed_6e forward and backward; 16 images,
channels_last, in turn, medians of five. `forward_step.py --precision amp` has our kernels beside it.

  python3 benches/compare/bf16.py

Needs torch and torchvision.
"""
import statistics, time

import torch
import torchvision

from forward_step import STAGES

SIDES = (150, 299)
cut, end = (STAGES.index(name) + 1 for name in ("Mixed_5d", "Mixed_6e"))
FROZEN, TRAINED = STAGES[:cut], STAGES[cut:end]

torch.set_num_threads(2)
net = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
net = net.to(memory_format=torch.channels_last).eval()
frozen, trained = (torch.nn.Sequential(*(getattr(net, name) for name in names)) for names in (FROZEN, TRAINED))
frozen.requires_grad_(False)
for module in frozen.modules():
    if isinstance(module, torchvision.models.inception.BasicConv2d):
        module.conv, module.bn = torch.nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn), torch.nn.Identity()


def step(narrow, side):
    """Seconds of the frozen and of the trained part."""
    x = torch.randn(16, 3, side, side).contiguous(memory_format=torch.channels_last)
    begin = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        with torch.no_grad():
            x = frozen(x)
        between = time.perf_counter()
        loss = trained(x).mean((2, 3)).float().square().mean()
    loss.backward()
    trained.zero_grad(set_to_none=True)
    return between - begin, time.perf_counter() - between


for side in SIDES:
    times = {False: [], True: []}
    for round in range(6):
        for narrow in (False, True):
            found = step(narrow, side)
            if round:  # the first warms up
                times[narrow].append(found)
    for i, part in enumerate(("frozen", "trained")):
        wide, narrow = (statistics.median(t[i] for t in times[kind]) for kind in (False, True))
        print(f"{side} px, {part}: f32 {wide:.3f} s, bf16 {narrow:.3f} s, ratio {wide / narrow:.2f}")
