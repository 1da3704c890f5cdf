#!/usr/bin/env python3
"""Does a trial train as PyTorch trains it? The same images, batches, initial weights and learning rates on both sides.

    cargo build --release --example course --bin hpsearch
    python3 benches/quality/course.py --data FOLDER --positive CLASS --weights FILE --scaling unit \\
        --freeze none Mixed_5d Mixed_6e --seeds 5 [--markdown TABLE.md]

For every depth and seed `hpsearch run` trains a study's one trial; `course` writes its starting point (decoded images, the
order of every epoch's samples, the head's initial weights), and PyTorch (torchvision's InceptionV3, channels_last, eager,
batch norm as the study has it, torch's AdamW) starts from there and takes the same steps. With `--precision amp` its network
runs under autocast to bfloat16. Dropout is off unless asked for,
since its masks cannot be the same. Prints validation AUC after every epoch, for both sides, and means with standard errors;
with --trace how far both sides are from PyTorch in double precision, step by step.
FOLDER has train/CLASS/* and is only read. Needs torch, torchvision, safetensors, scikit-learn.
"""
import argparse, json, math, os, shutil, sqlite3, statistics, subprocess, sys, time
from pathlib import Path

import folders

ROOT = Path(__file__).resolve().parents[2]
# Steps after which a trace keeps the parameters.
KEPT = [1, 2, 5, 10, 20, 50, 100, 200, 500]
STAGES = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2",
          "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e",
          "Mixed_7a", "Mixed_7b", "Mixed_7c"]


def study(a, seed, freeze):
    return f"""name = "course"
seed = {seed}
[data]
folder = "{a.data.resolve()}"
positive = "{a.positive}"
size = {a.size}
[split]
validation = {a.validation}
[network]
backbone = "inception_v3"
weights = "{a.weights.resolve()}"
preset = "{a.preset}"
scaling = "{a.scaling}"
tap = "{a.tap}"
freeze = "{freeze}"
batch_norm = "{a.batch_norm}"
[head]
dropout = {a.dropout}
[training]
epochs = {a.epochs}
batch_size = {a.batch}
learning_rate = {a.learning_rate}
weight_decay = {a.weight_decay}
optimiser = "{a.optimiser}"
backbone_rate = {a.backbone_rate}
layer_decay = {a.layer_decay}
clip_norm = {a.clip_norm}
norm_statistics = "{a.norm_statistics}"
warmup_epochs = {a.warmup}
probe_epochs = {a.probe}
[augment]
strength = {a.flips}
flip = 0.5
rotation = 0
brightness = 0
edges = 0
views = 2
[space]
batch_size = {a.batch}
[scheduler]
kind = "none"
[objective]
metric = "roc_auc"
[budget]
n_trials = 1
[run]
threads = {a.threads}
precision = "{a.precision}"
"""


def peer(a, freeze, folder, log, double=False):
    """The same trial by PyTorch: validation AUC by epoch. `double`: in double precision, the witness of both."""
    import torch, torchvision
    from safetensors.torch import load_file, save_file
    from sklearn.metrics import roc_auc_score
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    t = load_file(folder / "start.safetensors")
    net = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
    net.load_state_dict({k: v.to(torch.get_default_dtype()) for k, v in load_file(a.weights).items()}, strict=False)
    for module in net.modules():
        if isinstance(module, torch.nn.AvgPool2d):
            module.count_include_pad = a.preset != "keras"
    if a.preset == "keras":  # torchvision's blocks call the function
        torch.nn.functional.avg_pool2d = lambda x, kernel_size, stride, padding, **_: torch._C._nn.avg_pool2d(
            x, kernel_size, stride, padding, False, False)
    net = net.to(memory_format=torch.channels_last).eval()
    stages = [getattr(net, s) for s in STAGES[:STAGES.index(a.tap) + 1]]
    cut = 0 if freeze == "none" else STAGES.index(freeze) + 1
    for p in net.parameters():
        p.requires_grad_(False)
    trained = [p for s in stages[cut:] for p in s.parameters()]
    for p in trained:
        p.requires_grad_(True)
    channels = t["head.norm.weight"].numel()
    norm = torch.nn.BatchNorm1d(channels)
    out = torch.nn.Linear(channels, 2)
    with torch.no_grad():
        norm.weight.copy_(t["head.norm.weight"]); norm.bias.copy_(t["head.norm.bias"])
        out.weight.copy_(t["head.out.weight"]); out.bias.copy_(t["head.out.bias"])
    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), norm, torch.nn.Dropout(a.dropout), out)
    own = list(head.parameters())
    rated = [(p, 1.0) for p in own]
    for above, stage in enumerate(reversed([s for s in stages[cut:] if any(True for _ in s.parameters())])):
        rated += [(p, a.backbone_rate * a.layer_decay ** above) for p in stage.parameters()]
    groups = [dict(params=[p], rate=rate, weight_decay=a.weight_decay if p.dim() > 1 else 0.0) for p, rate in rated]
    kinds = {"adamw": torch.optim.AdamW, "sgd": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=0.9)}
    optimiser = kinds[a.optimiser](groups, lr=a.learning_rate)
    labels = t["labels"]
    counts = torch.bincount(labels[t["train"]], minlength=2).double()
    loss_of = torch.nn.CrossEntropyLoss(weight=(counts.sum() / (2 * counts)).to(torch.get_default_dtype()))
    scale = {"unit": lambda x: x / 255, "symmetric": lambda x: x / 127.5 - 1}[a.scaling]
    positive = sorted(p.name for p in (a.data / "train").iterdir() if p.is_dir()).index(a.positive)

    def pixels(images, flips=None):
        x = t["images"][images].permute(0, 3, 1, 2)
        if flips is not None:
            x = torch.where(flips.bool()[:, None, None, None], x.flip(3), x)
        return scale(x.to(torch.get_default_dtype())).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    narrow = lambda: torch.autocast("cpu", torch.bfloat16, enabled=a.precision == "amp" and not double)

    def frozen(x):
        with torch.no_grad(), narrow():
            for stage in stages[:cut]:
                x = stage(x)
        return x

    # Without flips an image's frozen features never change: they are computed once, for time's sake alone.
    kept = None
    if cut and not a.flips:
        kept = torch.cat([frozen(pixels(c)) for c in torch.arange(len(labels)).split(a.batch)])

    def features(images, flips, grad):
        """`grad`: whether the layers above the frozen ones are trained."""
        x = frozen(pixels(images, flips)) if kept is None else kept[images].contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(grad), narrow():
            for stage in stages[cut:]:
                x = stage(x)
        return x.to(torch.get_default_dtype())

    def parameters():
        owned = {id(p) for p in trained}
        yield from ((name, p.contiguous()) for name, p in net.named_parameters() if id(p) in owned)
        yield from zip(["head.norm.weight", "head.norm.bias", "head.out.weight", "head.out.bias"], own)

    def measure(samples, flips):
        """Statistics of the head's batch norm, computed anew over an epoch's last samples."""
        last = -min(max(-(-len(samples) // 4), 256), 1024)
        rows = torch.cat([features(s, f, False).mean((2, 3))
                          for s, f in zip(samples[last:].split(a.batch), flips[last:].split(a.batch))]).double()
        norm.running_mean.copy_(rows.mean(0))
        norm.running_var.copy_(rows.var(0))

    step, aucs = 0, []
    for epoch in range(1, a.epochs + 1):
        order, flips, batches = t[f"order.{epoch}"], t[f"flip.{epoch}"], t[f"batches.{epoch}"].tolist()
        probing = epoch <= a.probe
        if epoch == 1 or epoch == a.probe + 1:  # each part has a course of its own
            begun, total, warm = step, (a.probe if probing else a.epochs - a.probe) * len(batches), a.warmup * len(batches)
        head.train()
        for stage in stages[cut:]:
            stage.train(a.batch_norm == "train" and not probing)
        at, summed = 0, 0.0
        for size in batches:
            images = order[at:at + size]
            maps = features(images, flips[at:at + size], not probing)
            loss = loss_of(head(maps), labels[images])
            optimiser.zero_grad()
            loss.backward()
            length = lambda params: math.sqrt(sum(float(p.grad.double().square().sum())
                                                      for p in params if p.grad is not None))
            log.write(json.dumps(dict(step=step, loss=loss.item(), head=length(own), network=length(trained),
                                      mean=maps.mean().item(), max=maps.max().item())) + "\n")
            if a.clip_norm:
                torch.nn.utils.clip_grad_norm_(trained + own, a.clip_norm)
            done = step - begun
            course = min((done + 1) / warm, 1) if done < warm else \
                0.5 * (1 + math.cos(math.pi * min((done - warm) / max(total - warm, 1), 1)))
            for group in optimiser.param_groups:
                group["lr"] = a.learning_rate * group["rate"] * course
            optimiser.step()
            at, step, summed = at + size, step + 1, summed + loss.item() * size
            if step in KEPT and a.trace:
                save_file({k: v.float() for k, v in parameters()}, folder / f"{'double' if double else 'peer'}.{step}.safetensors")
            if step == a.trace:
                return aucs
        head.eval()
        for stage in stages[cut:]:
            stage.eval()
        with torch.no_grad():
            if a.norm_statistics == "precise":
                measure(order, flips)
            scores = torch.cat([head(features(c, None, False)).softmax(1)[:, positive]
                                for c in t["validation"].split(a.batch)])
        aucs.append(float(roc_auc_score((labels[t["validation"]] == positive).numpy(), scores.numpy())))
        log.write(json.dumps(dict(epoch=epoch, train_loss=summed / at, auc=aucs[-1],
                                  range=[scores.min().item(), scores.max().item()])) + "\n")
        log.flush()
    return aucs


def start(a, seed, freeze, folder):
    """Writes the trial's starting point, and the first steps of our side if asked for."""
    path = folder / "study.toml"
    path.write_text(study(a, seed, freeze))
    subprocess.run([a.binaries / "examples/course", path, folder, a.work / "cache", str(a.trace)], check=True)


def ours(a, folder):
    """What `hpsearch run` makes of the study: validation AUC by epoch."""
    state = folder / "state"
    shutil.rmtree(state, ignore_errors=True)
    command = [a.binaries / "hpsearch", "run", folder / "study.toml", "--state", state, "--workers", "1"]
    with open(folder / "run.log", "w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    with sqlite3.connect(f"file:{next(state.rglob('study.db'))}?mode=ro", uri=True) as database:
        return [auc for auc, in database.execute("SELECT value FROM epoch ORDER BY epoch")]


def trace(a, folder, freeze):
    """How far each side is from PyTorch in double precision, as a share of the way that it has come."""
    from safetensors.torch import load_file
    for side in ("peer", "double"):
        with open(folder / f"{side}.jsonl", "w") as log:
            peer(a, freeze, folder, log, double=side == "double")
    start, rows = load_file(folder / "ours.0.safetensors"), []
    logs = {s: [json.loads(line) for line in open(folder / f"{s}.jsonl")] for s in ("ours", "peer", "double")}
    for step in (s for s in KEPT if s <= a.trace):
        kept = {s: load_file(folder / f"{s}.{step}.safetensors") for s in logs}
        length = lambda x, y: math.sqrt(sum(float((x[k] - y[k]).double().square().sum()) for k in start))
        come = length(kept["double"], start)
        off = [length(kept[s], kept["double"]) / come for s in ("ours", "peer")]
        losses = [abs(logs[s][step - 1]["loss"] - logs["double"][step - 1]["loss"]) for s in ("ours", "peer")]
        rows.append(f"| {step} | {come:.4g} | {off[0]:.2e} | {off[1]:.2e} | {losses[0]:.2e} | {losses[1]:.2e} |")
    return ["| step | way | ours | PyTorch | loss: ours | PyTorch |", "|---|---|---|---|---|---|", *rows]


def mean_and_error(values):
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):.4f} ± {error:.4f}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders.arguments(p)
    p.add_argument("--size", type=int, default=150)
    p.add_argument("--tap", default="Mixed_7c")
    p.add_argument("--freeze", nargs="*", default=["none"])
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--first-seed", type=int, default=1)
    p.add_argument("--epochs", type=int, default=8)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--learning-rate", type=float, default=1e-3)
    p.add_argument("--backbone-rate", type=float, default=0.3)
    p.add_argument("--weight-decay", type=float, default=1e-4)
    p.add_argument("--warmup", type=float, default=0.5)
    p.add_argument("--probe", type=int, default=0, help="epochs at the start in which only the head is trained")
    p.add_argument("--dropout", type=float, default=0.0)
    p.add_argument("--batch-norm", default="frozen", choices=["frozen", "train"])
    p.add_argument("--flips", type=float, default=0.0, help="1: every second sample is mirrored")
    p.add_argument("--optimiser", default="adamw", choices=["adamw", "sgd"])
    p.add_argument("--layer-decay", type=float, default=1.0)
    p.add_argument("--clip-norm", type=float, default=0.0)
    p.add_argument("--norm-statistics", default="running", choices=["running", "precise"])
    p.add_argument("--validation", type=float, default=0.2)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--sides", nargs="*", default=["ours", "peer"], choices=["ours", "peer"])
    p.add_argument("--work", type=Path, default=Path("/tmp/course"), help="where starting points and courses are kept")
    p.add_argument("--precision", default="f32", choices=["f32", "amp"], help="of both sides")
    p.add_argument("--trace", type=int, default=0, metavar="STEPS",
                   help="no epochs: so many steps of both sides, measured against PyTorch in double precision")
    p.add_argument("--binaries", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release")
    p.add_argument("--markdown", type=Path, help="also write the table here")
    a = p.parse_args()
    lines = ["| freeze | side | " + " | ".join(f"{e + 1}" for e in range(a.epochs)) + " | lowest |",
             "|---|---|" + "---|" * (a.epochs + 1)]
    for freeze in a.freeze:
        found = {side: [] for side in a.sides}
        for seed in range(a.first_seed, a.first_seed + a.seeds):
            folder = a.work / f"{freeze}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            start(a, seed, freeze, folder)
            if a.trace:
                print(f"{freeze}, seed {seed}", *trace(a, folder, freeze), sep="\n", flush=True)
                continue
            for side in a.sides:
                begin = time.perf_counter()
                if side == "ours":
                    aucs = ours(a, folder)
                else:
                    with open(folder / "peer.jsonl", "w") as log:
                        aucs = peer(a, freeze, folder, log)
                found[side].append(aucs)
                print(f"{freeze}, seed {seed}, {side}: {' '.join(f'{x:.4f}' for x in aucs)}"
                      f" ({time.perf_counter() - begin:.0f} s)", file=sys.stderr, flush=True)
        for side, courses in ((side, courses) for side, courses in found.items() if courses):
            cells = [mean_and_error(epoch) for epoch in zip(*courses)]
            lowest = min(min(course) for course in courses)
            lines.append(f"| {freeze} | {side} | " + " | ".join(cells) + f" | {lowest:.4f} |")
    if not a.trace:
        print("\n".join(lines))
    if a.markdown:
        a.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
