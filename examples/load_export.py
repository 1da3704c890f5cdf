"""Scores an image with a model that `hpsearch export --out` wrote, in PyTorch: python load_export.py FOLDER IMAGE...

For JPEG and PNG of 8 bits a sample; what DICOM files and 16-bit PNG need before that is `window` in the card."""
import json, sys, torch, torchvision
from PIL import Image
from safetensors.torch import load_file

card, t = json.load(open(f"{sys.argv[1]}/card.json")), load_file(f"{sys.argv[1]}/model.safetensors")
net = torchvision.models.inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
net.load_state_dict({k: v for k, v in t.items() if not k.startswith("top.")}, strict=False)  # all but torchvision's own `fc`
if card["network"]["pool_padding"] == "excluded":
    torch.nn.functional.avg_pool2d = lambda x, kernel_size, stride, padding: torch._C._nn.avg_pool2d(
        x, kernel_size, stride, padding, False, False)
top = lambda x: torch.nn.functional.batch_norm(x, t["top.norm.running_mean"], t["top.norm.running_var"], t["top.norm.weight"],
                                               t["top.norm.bias"])
dense = lambda x, name: torch.nn.functional.linear(x, t[f"top.{name}.weight"], t[f"top.{name}.bias"])
mean, std = {"unit": (0, 1), "symmetric": (0.5, 0.5), "imagenet": ([.485, .456, .406], [.229, .224, .225])}[
    card["preprocessing"]["scaling"]]
size, mode = card["preprocessing"]["size"], {"grey": "L", "rgb": "RGB"}[card["preprocessing"]["colour"]]
for path in sys.argv[2:]:
    image = Image.open(path).convert(mode).resize((size, size), Image.BILINEAR).convert("RGB")
    x = torchvision.transforms.functional.pil_to_tensor(image)[None] / 255
    x = (x - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    with torch.no_grad():
        for name, layer in net.eval().named_children():
            x = layer(x)
            if name == card["network"]["tap"]:
                break
        x = top(x.mean((2, 3)))
        x = dense(torch.relu(dense(x, "hidden")) if "top.hidden.weight" in t else x, "out").softmax(1)[0]
    print(f"{x[card['positive']]:.4f}  {path}")
