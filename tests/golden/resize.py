"""Golden images of torchvision's transform before a detector, for the Rust evaluation (run with torch, torchvision, numpy and
safetensors).

    python tests/golden/resize.py

Images follow the rule of `nets.py`, and are enlarged: where it shrinks them, torchvision leaves pixels out. Written is:

resize.safetensors      images as a detector sees them, padded; a box of them in pixels of the image as it was
"""

import pathlib

import torch
from safetensors.torch import save_file
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from nets import values

HERE = pathlib.Path(__file__).parent
BOX = [10.0, 20.0, 70.0, 60.0]


def case(out, size, short, long):
    height, width = size
    transform = GeneralizedRCNNTransform(short, long, [0.0] * 3, [1.0] * 3, size_divisible=32).eval()
    image = values("input", (3, height, width))
    images, _ = transform([image])
    found = transform.postprocess([{"boxes": torch.tensor([BOX])}], images.image_sizes, [size])
    name = f"{height}x{width}_{short}_{long}"
    out[f"{name}/image"] = images.tensors.contiguous()
    out[f"{name}/size"] = torch.tensor(images.image_sizes[0]).float()
    out[f"{name}/box"] = found[0]["boxes"][0].contiguous()
    print(name, images.image_sizes, tuple(images.tensors.shape))


if __name__ == "__main__":
    out = {}
    # By the shorter side, by the longer side, and upright.
    case(out, (24, 36), 64, 120)
    case(out, (20, 50), 64, 100)
    case(out, (45, 30), 80, 133)
    save_file(out, HERE / "resize.safetensors")
