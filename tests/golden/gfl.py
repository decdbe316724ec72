"""Golden outputs of a head of generalised focal loss (run with torch, torchvision, numpy and safetensors).

    python tests/golden/gfl.py

torchvision has none: the head here is written from arXiv 2006.04388, section 3, on torchvision's pyramid. Weights and images follow
the rule of `nets.py`. gfl.safetensors holds pyramids, head outputs and input gradients of a narrow net at an odd size.
"""

import pathlib
from collections import OrderedDict

import torch
import torch.nn as nn
from safetensors.torch import save_file

from nets import fill, narrow, record
from retinanet import LEVELS, Pyramid

HERE = pathlib.Path(__file__).parent
SIZE = (45, 61)
CLASSES, CHANNELS, GROUPS, CONVS, BINS = 5, 16, 2, 2, 5


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def tower():
    layers = []
    for _ in range(CONVS):
        layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.GroupNorm(GROUPS, CHANNELS), nn.ReLU()]
    return nn.Sequential(*layers)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_convs, self.reg_convs = tower(), tower()
        self.gfl_cls = nn.Conv2d(CHANNELS, CLASSES, 3, padding=1)
        self.gfl_reg = nn.Conv2d(CHANNELS, 4 * BINS, 3, padding=1)
        self.scales = nn.ModuleList([Scale() for _ in LEVELS])

    def forward(self, index, features):
        logits = self.gfl_cls(self.cls_convs(features))
        edges = self.gfl_reg(self.reg_convs(features)) * self.scales[index].scale
        n, _, height, width = edges.shape
        probabilities = edges.reshape(n, 4, BINS, height, width).softmax(2)
        distances = (probabilities * torch.arange(BINS).reshape(1, 1, BINS, 1, 1)).sum(2)
        return logits, distances * 2 ** LEVELS[index]


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Pyramid(narrow("resnet18", 4, 32), CHANNELS, False)
        self.head = Head()

    def forward(self, images):
        out = {}
        for index, (name, features) in enumerate(self.backbone(images).items()):
            out[name] = features
            out[f"cls_logits.{name}"], out[f"distances.{name}"] = self.head(index, features)
        return out


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    out = {}
    record(out, "resnet18_p3_p7", fill(Detector()).eval(), size=SIZE, batch=2)
    save_file(out, HERE / "gfl.safetensors")
    (HERE / "gfl.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
