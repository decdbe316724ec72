"""How torchvision starts its networks, for the Rust nets (run with torch, torchvision, numpy and safetensors).

    python tests/golden/starts.py

Each net is made with several seeds, by torchvision's own constructors, which draw its weights; where torchvision lacks the head, by
PyTorch's layers, which draw their own. Narrow ones, so that Rust makes them as often in a second. Written is, for each weight:

starts.txt      name, law, mean, root of the mean square, largest absolute value, how many values were drawn
"""

import pathlib

import torch
import torch.nn as nn
from torchvision.models import resnet
from torchvision.models.segmentation import deeplabv3, fcn

from nets import LAYERS, Plus, Psp, mobilenet

HERE = pathlib.Path(__file__).parent
SEEDS = 16
CLASSES = 6
WIDTH = 8


class ScaledResNet(resnet.ResNet):
    """torchvision's ResNet, its constructor and so its start included, with WIDTH channels where it has 64."""

    def __init__(self, kind):
        self.widen = 64 // WIDTH
        super().__init__(resnet.BasicBlock if kind == "resnet18" else resnet.Bottleneck, LAYERS[kind])
        del self.fc

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        return super()._make_layer(block, planes * WIDTH // 64, blocks, stride, dilate)

    @property
    def inplanes(self):
        return self._inplanes

    @inplanes.setter
    def inplanes(self, channels):
        """The constructor sets the stem's 64, then what the layers above make of theirs."""
        self._inplanes = channels if hasattr(self, "_inplanes") else channels * WIDTH // 64


class Net(nn.Module):
    def __init__(self, backbone, classifier, auxiliary=None):
        super().__init__()
        self.backbone, self.classifier = backbone, classifier
        if auxiliary is not None:
            self.aux_classifier = auxiliary


def cases():
    """Makers by name, the Rust test's."""
    return {
        "fcn_resnet18": lambda: Net(ScaledResNet("resnet18"), fcn.FCNHead(64, CLASSES), fcn.FCNHead(32, CLASSES)),
        "fcn_resnet50": lambda: Net(ScaledResNet("resnet50"), fcn.FCNHead(256, CLASSES)),
        "fcn_mobilenet_v2": lambda: Net(mobilenet(16, 8), fcn.FCNHead(160, CLASSES)),
        "pspnet_resnet18": lambda: Net(ScaledResNet("resnet18"), Psp(64, 16, CLASSES)),
        "deeplabv3_resnet18": lambda: Net(ScaledResNet("resnet18"), deeplabv3.DeepLabHead(64, CLASSES, [12, 24, 36])),
        "deeplabv3plus_resnet18": lambda: Net(ScaledResNet("resnet18"), Plus(64, 8, 6, 32, [6, 12, 18], CLASSES)),
    }


def law(values):
    """By the fourth moment over the square of the second: 1.8 where uniform, 3 where normal."""
    if values.min() == values.max():
        return "constant"
    ratio = values.pow(4).mean() / values.pow(2).mean().pow(2)
    assert abs(ratio - 1.8) < 0.25 or abs(ratio - 3.0) < 0.6, ratio
    return "uniform" if ratio < 2.1 else "normal"


def listing(make):
    drawn = {}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        for name, weight in make().named_parameters():
            drawn.setdefault(name, []).append(weight.detach().double().flatten())
    lines = []
    for name, parts in drawn.items():
        values = torch.cat(parts)
        numbers = [values.mean(), values.pow(2).mean().sqrt(), values.abs().max()]
        lines.append(f"{name} {law(values)} {' '.join(f'{number:.6g}' for number in numbers)} {values.numel()}")
    return lines


def main():
    text = "".join("\n".join([f"# {name}", *listing(make)]) + "\n" for name, make in cases().items())
    (HERE / "starts.txt").write_text(text)


if __name__ == "__main__":
    main()
