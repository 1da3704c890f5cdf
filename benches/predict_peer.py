#!/usr/bin/env python3
"""`hpsearch predict` beside PyTorch on the same images, model and threads: whole commands, in turn, and the largest difference of
scores.

    cargo build --release
    python3 benches/predict_peer.py MODEL IMAGES [--runs 3] [--threads 2]

MODEL is a folder that `hpsearch export --out` wrote of a single trial, an InceptionV3, IMAGES a folder of JPEG or PNG files. The peer is written as a
competent user would: batches of 32, channels_last, inference mode, decoding in a worker of its own; `--compile` tries
torch.compile. Needs torch, torchvision, safetensors, Pillow and numpy.
"""
import argparse, csv, io, json, statistics, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def peer(model, images, threads, compiled):
    import torch, torchvision
    from PIL import Image
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    card, t = json.load(open(f"{model}/card.json")), load_file(f"{model}/model.safetensors")
    network = card["members"][0]["network"]
    net = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
    net.load_state_dict({k: v for k, v in t.items() if not k.startswith("top.")}, strict=False)
    net = net.eval().to(memory_format=torch.channels_last)
    if network["pool_padding"] == "excluded":
        torch.nn.functional.avg_pool2d = lambda x, kernel_size, stride, padding: torch._C._nn.avg_pool2d(
            x, kernel_size, stride, padding, False, False)
    F = torch.nn.functional
    mean, std = {"unit": (0, 1), "symmetric": (0.5, 0.5), "imagenet": ([.485, .456, .406], [.229, .224, .225])}[
        network["scaling"]]
    mean, std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
    size, mode = card["preprocessing"]["size"], {"grey": "L", "rgb": "RGB"}[card["preprocessing"]["colour"]]
    tap = network["tap"]

    class Files(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, i):
            image = Image.open(images[i]).convert(mode).resize((size, size), Image.BILINEAR).convert("RGB")
            return (torchvision.transforms.functional.pil_to_tensor(image) / 255 - mean) / std

    def scores(x):
        side = network.get("input_size", size)
        if side != size:
            x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        for name, layer in net.named_children():
            x = layer(x)
            if name == tap:
                break
        x = F.batch_norm(x.mean((2, 3)), t["top.norm.running_mean"], t["top.norm.running_var"], t["top.norm.weight"],
                         t["top.norm.bias"])
        dense = lambda x, name: F.linear(x, t[f"top.{name}.weight"], t[f"top.{name}.bias"])
        return dense(torch.relu(dense(x, "hidden")) if "top.hidden.weight" in t else x, "out").softmax(1)

    run = torch.compile(scores) if compiled else scores
    out = []
    with torch.inference_mode():
        for x in torch.utils.data.DataLoader(Files(), batch_size=32, num_workers=1):
            out += run(x.contiguous(memory_format=torch.channels_last))[:, card["positive"]].tolist()
    json.dump(dict(zip(map(str, images), out)), sys.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    images = sorted(p for p in args.images.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if args.peer:
        return peer(args.model, images, args.threads, args.compile)
    ours = [ROOT / "target/release/hpsearch", "predict", args.model, args.images, "--csv", "-", "-q"]
    theirs = [sys.executable, __file__, args.model, args.images, "--threads", str(args.threads), "--peer"]
    theirs += ["--compile"] if args.compile else []
    times = {"hpsearch": [], "PyTorch": []}
    for _ in range(args.runs):
        for name, command in (("hpsearch", ours), ("PyTorch", theirs)):
            begun = time.perf_counter()
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            times[name].append(time.perf_counter() - begun)
            if name == "hpsearch":
                card = json.load(open(args.model / "card.json"))
                column = "score." + card["classes"][card["positive"]]
                mine = {row["image"]: float(row[column]) for row in csv.DictReader(io.StringIO(said))}
            else:
                other = json.loads(said)
    difference = max(abs(mine[image] - other[image]) for image in other)
    a, b = (statistics.median(times[name]) for name in times)
    for name, seconds in times.items():
        print(f"{name}: {', '.join(f'{s:.1f}' for s in seconds)} s")
    print(f"{len(other)} images; ratio of medians {b / a:.2f}; largest difference of a score {difference:.4f}")


if __name__ == "__main__":
    main()
