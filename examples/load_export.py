"""Scores images with a model that `hpsearch export --out` wrote, in PyTorch: python load_export.py FOLDER IMAGE...

For JPEG and PNG of 8 bits a sample; what DICOM files and 16-bit PNG need before that is `window` in the card."""
import json, sys, torch, torchvision
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

card = json.load(open(f"{sys.argv[1]}/card.json"))
size, mode = card["preprocessing"]["size"], {"grey": "L", "rgb": "RGB"}[card["preprocessing"]["colour"]]
images = [Image.open(path).convert(mode).resize((size, size), Image.BILINEAR).convert("RGB") for path in sys.argv[2:]]
pixels = torch.stack([torchvision.transforms.functional.pil_to_tensor(image) / 255 for image in images])
members = [member for member in card["members"] for _ in member["models"]]  # one for each file
scores = 0
for i, network in enumerate(member["network"] for member in members):
    t = load_file(f"{sys.argv[1]}/model{f'-{i + 1}' if len(members) > 1 else ''}.safetensors")
    net = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
    net.load_state_dict({k: v for k, v in t.items() if not k.startswith("top.")}, strict=False)  # all but torchvision's `fc`
    if network["pool_padding"] == "excluded":
        F.avg_pool2d = lambda x, kernel_size, stride, padding: torch._C._nn.avg_pool2d(x, kernel_size, stride, padding, False, False)
    mean, std = {"unit": (0, 1), "symmetric": (0.5, 0.5), "imagenet": ([.485, .456, .406], [.229, .224, .225])}[network["scaling"]]
    side = network.get("input_size", size)
    x = pixels if side == size else F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    x = (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    dense = lambda x, name: F.linear(x, t[f"top.{name}.weight"], t[f"top.{name}.bias"])

    def forward(x):
        for name, layer in net.eval().named_children():
            x = layer(x)
            if name == network["tap"]:
                break
        x = F.batch_norm(x.mean((2, 3)), *(t[f"top.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))
        return dense(torch.relu(dense(x, "hidden")) if "top.hidden.weight" in t else x, "out").softmax(1)

    with torch.no_grad():
        scores += torch.cat([forward(batch) for batch in x.split(16)]) / len(members)
for path, score in zip(sys.argv[2:], scores):
    print(f"{score[card['positive']]:.4f}  {path}")
