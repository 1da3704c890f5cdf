#!/usr/bin/env python3
"""Plants faults among real images and counts what `hpsearch audit` finds of them.

    cargo build --release
    python3 benches/quality/audit.py --data FOLDER --positive CLASS --weights FILE --scaling unit --work DIR [--size 150]
        [--trials 8 --network 'freeze = "all"' --epochs 20]

FOLDER has CLASS/* or {train,test}/CLASS/*; it is copied to DIR, where a twentieth of the labels of `train` are swapped (only with two
classes) and copies of 160 pictures of `train` are put into `test`: saved again as JPEG of quality 60, made smaller, made
brighter or darker, with another gamma, cropped by up to 5 % on each side, mirrored, turned by up to 3 degrees, and mirrored,
turned, cropped and saved again. What the audit finds without any fault is counted first: pairs that it names then are there in the
data, right or wrong, and are not held against it. With `--trials`, labels are judged a second time, after a study of so many trials in five
folds was run over the images with swapped labels.

Needs Pillow.
"""
import argparse, csv, io, json, random, shutil, subprocess
from collections import Counter
from pathlib import Path
from PIL import Image, ImageEnhance

ROOT = Path(__file__).resolve().parents[2]

STUDY = """name = "{name}"
[data]
folder = "{folder}"
positive = "{positive}"
size = {size}
[network]
weights = "{weights}"
scaling = "{scaling}"
{network}
{split}
[augment]
strength = 0
[training]
epochs = {epochs}
[objective]
metric = "roc_auc"
[space]
learning_rate = {{ type = "float", low = 1e-4, high = 1e-2, log = true }}
dropout = {{ type = "float", low = 0.0, high = 0.6 }}
[scheduler]
kind = "none"
[budget]
n_trials = {trials}
"""


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


def crop(image, most):
    w, h = image.size
    a, b, c, d = (random.uniform(0, most) for _ in range(4))
    return image.crop((int(a * w), int(b * h), int(w - c * w), int(h - d * h)))


def mirror(image):
    return image.transpose(Image.FLIP_LEFT_RIGHT)


def turn(image, most):
    return image.rotate(random.uniform(-most, most), Image.BILINEAR)


def lit(image):
    brighter = ImageEnhance.Brightness(image).enhance(random.uniform(0.8, 1.25))
    return ImageEnhance.Contrast(brighter).enhance(random.uniform(0.8, 1.25))


AGAIN = {
    "jpeg": lambda i: jpeg(i, 60),
    "smaller": lambda i: i.resize((i.width * 2 // 5, i.height * 2 // 5), Image.BILINEAR),
    "brighter": lit,
    "gamma": lambda i: i.point([round(255 * (v / 255) ** 1.4) for v in range(256)] * len(i.getbands())),
    "cropped": lambda i: crop(i, 0.05),
    "mirrored": mirror,
    "turned": lambda i: turn(i, 3),
    "all": lambda i: jpeg(crop(turn(mirror(i), 2), 0.03), 70),
}


def audit(args, name, folder, trials=0):
    study = args.work / f"{name}.toml"
    network, split = (args.network, "[split]\nfolds = 5") if trials else ("", "")
    text = STUDY.format(name=name, folder=folder, positive=args.positive, size=args.size, weights=args.weights.resolve(),
                        scaling=args.scaling, network=network, split=split, epochs=args.epochs, trials=trials or 1)
    study.write_text(text)
    state = ["--state", args.work / "state"]
    program = ROOT / "target/release/hpsearch"
    if trials:
        subprocess.run([program, "run", study, *state, "-q"], check=True)
    command = [program, "audit", study, *state, "--json", "-q"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["audit"]


def judged(found, before, flipped, labels):
    named = [s["image"] for s in found["labels"]["suspects"]]
    right = [image in flipped for image in named]
    already = {s["image"] for s in before["labels"]["suspects"]}
    old = [image in already for image in named]
    first = right[: len(flipped)]
    print(f"labels: {len(flipped)} of {labels} swapped, estimated {found['labels']['wrong']} (before: "
          f"{before['labels']['wrong']}); named {len(named)}, of them swapped {sum(right)} and named before {sum(old)}; "
          f"among the first {len(first)}: {sum(first)} swapped")


def pairs(found):
    return {frozenset((d["first"]["image"], d["second"]["image"])) for d in found["duplicates"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--positive", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--scaling", default="unit")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--network", default='freeze = "all"')
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    random.seed(1)
    planted = args.work / "planted"
    clean = args.work / "clean"
    for folder in (planted, clean):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(args.data if (args.data / "train").is_dir() else args.data, clean,
                    ignore=lambda d, names: [n for n in names if n.endswith(".csv")])
    shutil.copytree(clean, planted)
    before = audit(args, "clean", "clean")

    train = sorted(p for p in (planted / "train").rglob("*") if p.is_file())
    classes = sorted({p.parent.name for p in train})
    random.shuffle(train)
    copies = {}
    for i, file in enumerate(train[:160]):
        kind = list(AGAIN)[i % len(AGAIN)]
        image = Image.open(file).convert("L" if Image.open(file).mode in ("L", "I;16") else "RGB")
        target = planted / "test" / file.parent.name / f"again-{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        AGAIN[kind](image).save(target)
        copies[frozenset(str(p.relative_to(planted)) for p in (file, target))] = kind
    found = audit(args, "planted", "planted")
    hit, all_kinds = Counter(copies[p] for p in pairs(found) if p in copies), Counter(copies.values())
    print("planted copies found:", ", ".join(f"{k} {hit[k]}/{n}" for k, n in all_kinds.items()))
    images = found["looked_at"]
    known = pairs(before)
    new = [p for p in pairs(found) if p not in copies and p not in known
           and not any("again-" in image for image in p)]
    print(f"{sum(hit.values())} of {len(copies)}; named without any copy planted: {len(known)} pairs of {before['looked_at']} "
          f"images, across sets {sum(d['across'] for d in before['duplicates'])}; "
          f"new and not planted: {len(new)}; control {found['control']}")
    if len(classes) != 2:
        return
    shutil.rmtree(planted)
    shutil.copytree(clean, planted)
    train = sorted(p for p in (planted / "train").rglob("*") if p.is_file())
    random.shuffle(train)
    flipped = set()
    for file in train[: len(train) // 20]:
        other = classes[1 - classes.index(file.parent.name)]
        target = planted / "train" / other / f"{file.stem}-flip{file.suffix}"
        file.rename(target)
        flipped.add(str(target.relative_to(planted)))
    found = audit(args, "flipped", "planted")
    judged(found, before, flipped, len(train))
    if args.trials:
        judged(audit(args, "trained", "planted", args.trials), before, flipped, len(train))
    for shortcut in before["shortcuts"]:
        print(f"  {shortcut['by']}: {shortcut['roc_auc']:.3f} {shortcut['interval']}")


if __name__ == "__main__":
    main()
