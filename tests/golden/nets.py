"""Golden outputs of torchvision's networks for the Rust nets (run with torch, torchvision, numpy and safetensors).

    python tests/golden/nets.py

Weights, batch-norm statistics and inputs are not stored: both sides compute them from the tensor's
name by the same integer rule (`values` here, `nets_rule.rs` there). Only outputs are written:

nets_resnet.safetensors     taps and input gradients of narrow ResNets and MobileNetV2, every output stride
nets_full.safetensors       torchvision's full-width nets at small images
nets_heads.safetensors      narrow segmentation nets
nets_names.txt              names and shapes of torchvision's state dicts
nets_counts.txt             parameters and multiply-adds
nets_tiny.pth, nets_tiny_nested.pth   state dicts of a ResNet-18 of width 2, for the reader
"""

import argparse
import math
import pathlib

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torchvision.models import resnet
from torchvision.models.segmentation import deeplabv3, fcn

HERE = pathlib.Path(__file__).parent
SIZE = (65, 49)


def uniform(name, count):
    """`count` numbers in [0, 1) that depend on the name and the index alone."""
    seed = 2166136261
    for byte in name.encode():
        seed = ((seed ^ byte) * 16777619) & 0xFFFFFFFF
    x = (np.arange(count, dtype=np.uint64) * 0x9E3779B9 + seed) & 0xFFFFFFFF
    x ^= x >> np.uint64(16)
    x = (x * 0x85EBCA6B) & 0xFFFFFFFF
    x ^= x >> np.uint64(13)
    x = (x * 0xC2B2AE35) & 0xFFFFFFFF
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 4294967296.0


def values(name, shape):
    """The tensor of a name and shape."""
    u = uniform(name, math.prod(shape))
    if name.endswith("running_var"):
        v = 0.5 + u
    elif name.endswith("weight") and len(shape) == 1:
        v = 0.25 + 0.5 * u
    elif name.endswith("weight"):
        v = (2.0 * u - 1.0) * math.sqrt(6.0 / math.prod(shape[1:]))
    elif name.endswith("input"):
        v = 2.0 * (2.0 * u - 1.0)
    elif name.startswith("gradient"):
        v = 2.0 * u - 1.0
    else:
        v = 0.2 * (2.0 * u - 1.0)
    return torch.from_numpy(v.astype(np.float32).reshape(shape))


def fill(net):
    state = net.state_dict()
    net.load_state_dict({n: t if n.endswith("num_batches_tracked") else values(n, tuple(t.shape)) for n, t in state.items()})
    return net


def thin(x):
    """At most eight channels, so that the files stay small; gradients check the others."""
    return x[:, :: max(1, x.shape[1] // 8)].detach().contiguous().clone()


def record(out, case, forward, size=SIZE, batch=1):
    """Outputs of `forward(images) -> {name: tensor}` and the gradient of their weighted sum to the images."""
    images = values("input", (batch, 3, *size)).requires_grad_(True)
    outputs = forward(images)
    total = sum((y * values(f"gradient.{name}", tuple(y.shape))).sum() for name, y in outputs.items())
    total.backward()
    for name, y in outputs.items():
        out[f"{case}/{name}"] = thin(y)
    out[f"{case}/input_gradient"] = images.grad.clone()


class DilatedBasicBlock(resnet.BasicBlock):
    """torchvision's basic block, with the dilation that torchvision leaves to the bottleneck."""

    def __init__(self, inplanes, planes, stride=1, downsample=None, groups=1, base_width=64, dilation=1, norm_layer=None):
        super().__init__(inplanes, planes, stride, downsample, groups, base_width, 1, norm_layer)
        for conv in (self.conv1, self.conv2):
            conv.dilation = conv.padding = (dilation, dilation)


class NarrowResNet(resnet.ResNet):
    """torchvision's ResNet with another number of channels in the stem, and without its classifier."""

    def __init__(self, block, layers, width, dilate):
        nn.Module.__init__(self)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups, self.base_width = width, 1, 1, 64
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=False)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._make_layer(block, width, layers[0])
        self.layer2 = self._make_layer(block, 2 * width, layers[1], 2)
        self.layer3 = self._make_layer(block, 4 * width, layers[2], 2, dilate[0])
        self.layer4 = self._make_layer(block, 8 * width, layers[3], 2, dilate[1])


LAYERS = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3], "resnet50": [3, 4, 6, 3], "resnet101": [3, 4, 23, 3]}
DILATE = {8: (True, True), 16: (False, True), 32: (False, False)}


def narrow(kind, width, stride):
    block = DilatedBasicBlock if kind in ("resnet18", "resnet34") else resnet.Bottleneck
    return NarrowResNet(block, LAYERS[kind], width, DILATE[stride])


def resnet_taps(net, x):
    stem = F.relu(net.bn1(net.conv1(x)))
    c2 = net.layer1(net.maxpool(stem))
    c3 = net.layer2(c2)
    c4 = net.layer3(c3)
    return {"stem": stem, "c2": c2, "c3": c3, "c4": c4, "c5": net.layer4(c4)}


def mobilenet(width, stride):
    """torchvision's MobileNetV2 up to its last block, strides replaced by dilation as ResNet does it."""
    net = torchvision.models.mobilenet_v2(weights=None, width_mult=width / 32)
    dilation = 1
    for first, last, keep in ((7, 13, stride >= 16), (14, 17, stride >= 32)):
        for index in range(first, last + 1):
            depthwise = net.features[index].conv[-3][0]
            assert depthwise.groups > 1
            depthwise.dilation = depthwise.padding = (dilation, dilation)
            if depthwise.stride == (2, 2) and not keep:
                depthwise.stride = (1, 1)
                dilation *= 2
    net.features = net.features[:18]
    del net.classifier
    return net


def mobilenet_taps(net, x):
    out = {}
    for index, layer in enumerate(net.features):
        x = layer(x)
        for tap, last in (("stem", 0), ("c2", 3), ("c3", 6), ("c4", 13), ("c5", 17)):
            if index == last:
                out[tap] = x
    return out


def backbones():
    out = {}
    for kind in ("resnet18", "resnet50"):
        for stride in (8, 16, 32):
            net = fill(narrow(kind, 8, stride)).eval()
            record(out, f"{kind}_os{stride}", lambda x: resnet_taps(net, x))
    for kind in ("resnet34", "resnet101"):
        net = fill(narrow(kind, 4, 16)).eval()
        record(out, f"{kind}_os16", lambda x: resnet_taps(net, x), size=(33, 47))
    for stride in (8, 16, 32):
        net = fill(mobilenet(16, stride)).eval()
        record(out, f"mobilenet_v2_os{stride}", lambda x: mobilenet_taps(net, x))
    # Batch statistics: two images, so that the deepest maps have several values per channel.
    net = fill(narrow("resnet18", 8, 16)).train()
    record(out, "resnet18_train", lambda x: resnet_taps(net, x), batch=2)
    out["resnet18_train/bn1.running_mean"] = net.bn1.running_mean.clone()
    out["resnet18_train/layer4.1.bn2.running_mean"] = net.layer4[1].bn2.running_mean.clone()
    return out


def full():
    out = {}
    net = fill(torchvision.models.resnet18(weights=None)).eval()
    record(out, "resnet18", lambda x: resnet_taps(net, x), size=(65, 49))
    net = fill(torchvision.models.resnet101(weights=None)).eval()
    record(out, "resnet101", lambda x: resnet_taps(net, x), size=(33, 17))
    net = torchvision.models.mobilenet_v2(weights=None)
    fill(net).eval()
    net.features = net.features[:18]
    record(out, "mobilenet_v2", lambda x: mobilenet_taps(net, x), size=(65, 49))
    for name in ("fcn_resnet50", "deeplabv3_resnet50"):
        build = getattr(torchvision.models.segmentation, name)
        net = fill(build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)).eval()
        record(out, name, lambda x: {"out": net(x)["out"], "aux": net(x)["aux"]}, size=(33, 47))
    return out


class ConvNorm(nn.Sequential):
    def __init__(self, inputs, outputs, kernel):
        super().__init__(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Psp(nn.Module):
    """Pyramid pooling as in the paper (arXiv 1612.01105): bins 1, 2, 3, 6, corners aligned."""

    def __init__(self, inputs, channels, classes):
        super().__init__()
        self.stages = nn.ModuleList(ConvNorm(inputs, inputs // 4, 1) for _ in range(4))
        self.bottleneck = ConvNorm(2 * inputs, channels, 3)
        self.score = nn.Conv2d(channels, classes, 1)

    def forward(self, taps):
        x = taps["c5"]
        maps = [x]
        for bins, stage in zip((1, 2, 3, 6), self.stages):
            y = stage(F.adaptive_avg_pool2d(x, bins))
            maps.append(F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True))
        head = self.bottleneck(torch.cat(maps, 1))
        return self.score(head), head


class Plus(nn.Module):
    """The decoder of DeepLabV3+ (arXiv 1802.02611) over torchvision's ASPP."""

    def __init__(self, inputs, low, reduced, channels, rates, classes):
        super().__init__()
        self.aspp = deeplabv3.ASPP(inputs, rates, channels)
        self.low = ConvNorm(low, reduced, 1)
        self.fuse = nn.ModuleList([ConvNorm(reduced + channels, channels, 3), ConvNorm(channels, channels, 3)])
        self.score = nn.Conv2d(channels, classes, 1)

    def forward(self, taps):
        low = self.low(taps["c2"])
        deep = F.interpolate(self.aspp(taps["c5"]), low.shape[2:], mode="bilinear", align_corners=False)
        head = self.fuse[1](self.fuse[0](torch.cat([low, deep], 1)))
        return self.score(head), head


class TorchvisionHead(nn.Module):
    """FCNHead or DeepLabHead, which take the last features and return scores."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, taps):
        x = taps["c5"]
        layers = list(self.head)
        for layer in layers[:-1]:
            x = layer(x)
        return layers[-1](x), x


class Segmenter(nn.Module):
    def __init__(self, backbone, classifier):
        super().__init__()
        self.backbone, self.classifier = backbone, classifier

    def forward(self, x):
        logits, head = self.classifier(resnet_taps(self.backbone, x))
        return {"logits": logits, "head": head}


def fill_segmenter(net):
    """As `fill`, with names as torchvision has them: without the wrapper's `head.`."""
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if not name.endswith("num_batches_tracked"):
                tensor.copy_(values(name.replace("classifier.head.", "classifier."), tuple(tensor.shape)))
    return net.eval()


def heads():
    out = {}
    for kind, stride in (("resnet18", 16), ("resnet50", 8)):
        c2, c5 = (8, 64) if kind == "resnet18" else (32, 256)
        rates = {8: [12, 24, 36], 16: [6, 12, 18], 32: [3, 6, 9]}[stride]
        cases = {
            "fcn": TorchvisionHead(fcn.FCNHead(c5, 5)),
            "pspnet": Psp(c5, c5 // 4, 5),
            "deeplabv3": TorchvisionHead(deeplabv3.DeepLabHead(c5, 5, rates)),
            "deeplabv3plus": Plus(c5, c2, 6, 32, rates, 5),
        }
        for name, head in cases.items():
            net = fill_segmenter(Segmenter(narrow(kind, 8, stride), head))
            record(out, f"{name}_{kind}", net)
    return out


def names():
    lines = []
    for kind in ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"):
        lines += [f"# {kind}"] + listing(getattr(torchvision.models, kind)(weights=None))
    for kind in ("fcn_resnet50", "deeplabv3_resnet50"):
        build = getattr(torchvision.models.segmentation, kind)
        lines += [f"# {kind}"] + listing(build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True))
    return "\n".join(lines) + "\n"


def listing(net):
    return [f"{n} {','.join(map(str, t.shape))}".rstrip() for n, t in net.state_dict().items()]


def counts():
    """`net height width parameters multiply_adds`, over convolutions, classifier left out."""
    lines = []

    def count(name, net, size):
        total = 0

        def add(layer, _inputs, output):
            nonlocal total
            total += output.numel() * layer.weight[0].numel()

        hooks = [m.register_forward_hook(add) for m in net.modules() if isinstance(m, nn.Conv2d)]
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, *size))
        for hook in hooks:
            hook.remove()
        lines.append(f"{name} {size[0]} {size[1]} {sum(p.numel() for p in net.parameters())} {total}")

    for kind in ("resnet18", "resnet34", "resnet50", "resnet101"):
        net = getattr(torchvision.models, kind)(weights=None)
        net.fc = nn.Identity()
        count(kind, net, (97, 129))
    net = torchvision.models.mobilenet_v2(weights=None)
    net.features, net.classifier = net.features[:18], nn.Identity()
    count("mobilenet_v2", net, (97, 129))
    for kind in ("fcn_resnet50", "deeplabv3_resnet50"):
        build = getattr(torchvision.models.segmentation, kind)
        count(kind, build(weights=None, weights_backbone=None, num_classes=21, aux_loss=True), (97, 129))
    return "\n".join(lines) + "\n"


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    save_file(backbones(), HERE / "nets_resnet.safetensors")
    save_file(heads(), HERE / "nets_heads.safetensors")
    save_file(full(), HERE / "nets_full.safetensors")
    (HERE / "nets_names.txt").write_text(names())
    (HERE / "nets_counts.txt").write_text(counts())
    state = fill(narrow("resnet18", 2, 32)).state_dict()
    torch.save(state, HERE / "nets_tiny.pth")
    # A training checkpoint as people keep them: wrapped, prefixed, with other things beside.
    wrapped = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "state_dict": {f"module.{n}": t for n, t in state.items()}}
    torch.save(wrapped, HERE / "nets_tiny_nested.pth", _use_new_zipfile_serialization=False)
    for path in HERE.glob("nets_*"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
