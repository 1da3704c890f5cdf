#!/usr/bin/env python3
"""InceptionV3 in PyTorch on a GPU: images a second of what examples/gpu_check measures, as JSON.

Eager, channels_last, automatic mixed precision in bf16, fused AdamW; the frozen part in inference mode. Needs torch alone: the
network is torchvision's `inception_v3` without its classifier, written out.
"""
import argparse, json, time
import torch
from torch import nn
import torch.nn.functional as F

SIDE, BATCH, SECONDS = 299, 64, 4.0


class Unit(nn.Module):
    def __init__(self, i, o, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(i, o, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(o, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Fan(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return torch.cat([part(x) for part in self.parts], 1)


def chain(*parts):
    return nn.Sequential(*parts)


def average():
    return nn.AvgPool2d(3, 1, 1)


def a(i, pool):
    return Fan(Unit(i, 64, 1), chain(Unit(i, 48, 1), Unit(48, 64, 5, 1, 2)),
               chain(Unit(i, 64, 1), Unit(64, 96, 3, 1, 1), Unit(96, 96, 3, 1, 1)), chain(average(), Unit(i, pool, 1)))


def c(i, n):
    flat, tall = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    return Fan(Unit(i, 192, 1), chain(Unit(i, n, 1), Unit(n, n, *flat), Unit(n, 192, *tall)),
               chain(Unit(i, n, 1), Unit(n, n, *tall), Unit(n, n, *flat), Unit(n, n, *tall), Unit(n, 192, *flat)),
               chain(average(), Unit(i, 192, 1)))


def e(i):
    def split(n):
        return Fan(Unit(n, 384, (1, 3), 1, (0, 1)), Unit(n, 384, (3, 1), 1, (1, 0)))
    return Fan(Unit(i, 320, 1), chain(Unit(i, 384, 1), split(384)),
               chain(Unit(i, 448, 1), Unit(448, 384, 3, 1, 1), split(384)), chain(average(), Unit(i, 192, 1)))


def network():
    b = Fan(Unit(288, 384, 3, 2), chain(Unit(288, 64, 1), Unit(64, 96, 3, 1, 1), Unit(96, 96, 3, 2)), nn.MaxPool2d(3, 2))
    d = Fan(chain(Unit(768, 192, 1), Unit(192, 320, 3, 2)),
            chain(Unit(768, 192, 1), Unit(192, 192, (1, 7), 1, (0, 3)), Unit(192, 192, (7, 1), 1, (3, 0)),
                  Unit(192, 192, 3, 2)), nn.MaxPool2d(3, 2))
    return nn.ModuleList([
        Unit(3, 32, 3, 2), Unit(32, 32, 3), Unit(32, 64, 3, 1, 1), nn.MaxPool2d(3, 2), Unit(64, 80, 1),
        Unit(80, 192, 3), nn.MaxPool2d(3, 2), a(192, 32), a(256, 64), a(288, 64), b, c(768, 128), c(768, 160),
        c(768, 160), c(768, 192), d, e(1280), e(2048)])


def measure(device, start, train):
    torch.manual_seed(0)
    stages = network().to(device, memory_format=torch.channels_last)
    x = torch.randn(BATCH, 3, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
    for i, stage in enumerate(stages):
        stage.train(i >= start and train)
        for p in stage.parameters():
            p.requires_grad_(i >= start)
    trained = [p for stage in stages[start:] for p in stage.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, fused=True) if trained else None

    def step():
        y = x
        with torch.autocast("cuda", dtype=torch.bfloat16):
            with torch.no_grad():
                for stage in stages[:start]:
                    y = stage(y)
            for stage in stages[start:]:
                y = stage(y)
        if optimiser:
            y.float().mean((2, 3)).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    for _ in range(5):
        step()
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    torch.cuda.synchronize(device)
    rounds = int(min(max(SECONDS / (time.perf_counter() - began), 3), 500))
    began = time.perf_counter()
    for _ in range(rounds):
        step()
    torch.cuda.synchronize(device)
    return rounds * BATCH / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("--shapes", action="store_true", help="only check the network's shapes, on the CPU")
    options = parser.parse_args()
    if options.shapes:
        x = torch.zeros(1, 3, 75, 75)
        for stage in network().eval():
            x = stage(x)
        count = sum(p.numel() for p in network().parameters())
        assert x.shape == (1, 2048, 1, 1) and count == 23_834_568 - 2_049_000, (x.shape, count)
        return
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU")
    device = torch.device("cuda", options.gpu)
    torch.backends.cudnn.benchmark = True
    figures = {"version": f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}"}
    for name, start, train in [("forward", 18, False), ("step_last2", 16, False), ("step_all", 0, False),
                               ("step_all_train", 0, True)]:
        figures[name] = measure(device, start, train)
    print(json.dumps(figures))


main()
