#!/usr/bin/env python3
"""InceptionV3 forward and training steps: PyTorch's time over ours, on this machine, in these minutes.

Both sides run the same work in turn, many short runs, and medians are compared, so load from elsewhere falls on both.
PyTorch: torchvision's inception_v3, channels_last, eager, the frozen part under no_grad in eval mode.

  cargo build --release --example network_speed
  python3 benches/compare/forward_step.py [--rounds 15] [--only forward_299] [--precision amp]

On a machine that others use, `--processor-time` with `--threads 1` compares the time the processes ran instead.

Needs torch and torchvision. Prints a table, and as its last line `forward_299=R forward_150=R ...`.
"""
import argparse, os, platform, statistics, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2",
          "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e",
          "Mixed_7a", "Mixed_7b", "Mixed_7c"]
# name: (kind, side, batch, first trained position, batch norm of the trained part)
WORK = {
    "forward_299": ("forward", 299, 8, 18, None),
    "forward_150": ("forward", 150, 8, 18, None),
    "forward_75": ("forward", 75, 8, 18, None),
    "step_last2": ("step", 150, 8, 16, "frozen"),
    "step_last2_train": ("step", 150, 8, 16, "train"),
    "step_all": ("step", 150, 8, 0, "frozen"),
    "step_all_train": ("step", 150, 8, 0, "train"),
    "step_6a_299": ("step", 299, 16, 10, "frozen"),
}


class Peer:
    def __init__(self, threads, precision):
        import torch, torchvision
        self.torch, self.narrow = torch, precision == "amp"
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        net = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
        net = net.to(memory_format=torch.channels_last)
        self.stages = [getattr(net, s) for s in STAGES]
        for p in net.parameters():
            p.requires_grad_(False)
        self.net = net

    def run(self, kind, side, batch, start, norm):
        torch = self.torch
        x = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
        for i, stage in enumerate(self.stages):
            stage.train(i >= start and norm == "train")
            for p in stage.parameters():
                p.requires_grad_(i >= start)
                p.grad = None
        begin, used = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.narrow):
            with torch.no_grad():
                for stage in self.stages[:start]:
                    x = stage(x)
            if kind == "step":
                for stage in self.stages[start:]:
                    x = stage(x)
        if kind == "step":
            x.float().mean((2, 3)).square().mean().backward()
        return time.perf_counter() - begin, time.process_time() - used

    def memory(self):
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Ours:
    def __init__(self, binary, threads, precision):
        env = dict(os.environ, RAYON_NUM_THREADS=str(threads))
        self.process = subprocess.Popen([binary, precision], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return tuple(map(float, self.process.stdout.readline().split()))

    def run(self, kind, side, batch, start, norm):
        return self.ask(f"forward {side} {batch}" if kind == "forward" else f"step {side} {batch} {start} {norm}")

    def memory(self):
        return self.ask("memory")[0]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--binary", default=str(ROOT / "target/release/examples/network_speed"))
    ap.add_argument("--rounds", type=int, default=15)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--only", nargs="*", default=list(WORK), choices=list(WORK))
    ap.add_argument("--precision", default="f32", choices=["f32", "amp"], help="amp: bfloat16, PyTorch by autocast")
    ap.add_argument("--processor-time", action="store_true")
    ap.add_argument("--memory", choices=list(WORK), help="run this work alone and compare peak memory")
    a = ap.parse_args()
    sides = [Peer(a.threads, a.precision), Ours(a.binary, a.threads, a.precision)]
    if a.memory:
        for _ in range(4):
            for side in sides:
                side.run(*WORK[a.memory])
        theirs, ours = (side.memory() for side in sides)
        print(f"peak memory, {a.memory}: PyTorch {theirs:.0f} MiB, ours {ours:.0f} MiB")
        return
    print(f"{platform.processor() or platform.machine()}, {a.threads} threads, {a.precision}, torch {sides[0].torch.__version__}, "
          f"median of {a.rounds} interleaved runs")
    ratios = []
    for name in a.only:
        times = [[], []]
        for round in range(a.rounds + 2):
            for side, t in zip(sides, times):
                seconds = side.run(*WORK[name])[int(a.processor_time)]
                if round >= 2:
                    t.append(seconds)
        theirs, ours = map(statistics.median, times)
        best = min(times[0]) / min(times[1])
        ratios.append(f"{name}={theirs / ours:.2f}")
        print(f"{name:18} PyTorch {theirs * 1e3:7.1f} ms  ours {ours * 1e3:7.1f} ms  ratio {theirs / ours:.2f} "
              f"(best of each {best:.2f})", flush=True)
    print(" ".join(ratios))


if __name__ == "__main__":
    sys.exit(main())
