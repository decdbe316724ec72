"""PSPNet over ResNet and MobileNetV2 at any width, with the structure and the names of ours."""

import torch
import torch.nn.functional as F
from torch import nn


def conv_norm(inputs, outputs, kernel, stride=1, dilation=1, groups=1, activation=None):
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(*[conv, nn.BatchNorm2d(outputs)] + ([activation] if activation else []))


def conv(inputs, outputs, kernel, stride=1, dilation=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel - 1) // 2, dilation, bias=False)


class Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs, planes, stride, dilation):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, planes, 3, stride, dilation), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv(planes, planes, 3, 1, dilation), nn.BatchNorm2d(planes)
        self.downsample = conv_norm(inputs, planes, 1, stride) if stride != 1 or inputs != planes else None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs, planes, stride, dilation):
        super().__init__()
        outputs = 4 * planes
        self.conv1, self.bn1 = conv(inputs, planes, 1), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv(planes, planes, 3, stride, dilation), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = conv(planes, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = conv_norm(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


class Backbone(nn.Module):
    """ResNet without its classifier; a stride beyond `output_stride` becomes a dilation."""

    def __init__(self, blocks, bottleneck, width, output_stride):
        super().__init__()
        block = Bottleneck if bottleneck else Basic
        self.conv1, self.bn1 = conv(3, width, 7, 2), nn.BatchNorm2d(width)
        inputs, reached, dilation = width, 4, 1
        for index, count in enumerate(blocks):
            planes, before, stride = width << index, dilation, 1 if index == 0 else 2
            if reached * stride > output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            layers = [block(inputs, planes, stride, before)]
            inputs = planes * block.expansion
            layers += [block(inputs, planes, 1, dilation) for _ in range(count - 1)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*layers))
        self.channels = inputs

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, expansion, stride, dilation, shortcut):
        super().__init__()
        hidden = inputs * expansion
        layers = [conv_norm(inputs, hidden, 1, activation=nn.ReLU6(inplace=True))] if expansion != 1 else []
        layers += [
            conv_norm(hidden, hidden, 3, stride, dilation, hidden, nn.ReLU6(inplace=True)),
            conv(hidden, outputs, 1),
            nn.BatchNorm2d(outputs),
        ]
        self.conv, self.shortcut = nn.Sequential(*layers), shortcut

    def forward(self, x):
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """At the published width, up to the last block."""

    STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]

    def __init__(self, output_stride):
        super().__init__()
        layers, inputs = [conv_norm(3, 32, 3, 2, activation=nn.ReLU6(inplace=True))], 32
        reached, dilation = 2, 1
        for expansion, outputs, blocks, stage_stride in self.STAGES:
            for index in range(blocks):
                wanted = stage_stride if index == 0 else 1
                current, stride = dilation, wanted
                if reached * wanted > output_stride:
                    dilation, stride = dilation * wanted, 1
                reached *= stride
                shortcut = wanted == 1 and inputs == outputs
                layers.append(Inverted(inputs, outputs, expansion, stride, current, shortcut))
                inputs = outputs
        self.features, self.channels = nn.Sequential(*layers), inputs

    def forward(self, x):
        return self.features(x)


class PspHead(nn.Module):
    BINS = (1, 2, 3, 6)

    def __init__(self, inputs, classes):
        super().__init__()
        branch, channels = inputs // 4, inputs // 4
        self.stages = nn.ModuleList(conv_norm(inputs, branch, 1, activation=nn.ReLU(inplace=True)) for _ in self.BINS)
        self.bottleneck = conv_norm(inputs + 4 * branch, channels, 3, activation=nn.ReLU(inplace=True))
        self.score = nn.Conv2d(channels, classes, 1)

    def forward(self, x):
        maps = [x]
        for bins, stage in zip(self.BINS, self.stages):
            y = stage(F.adaptive_avg_pool2d(x, bins))
            maps.append(F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=True))
        return self.score(self.bottleneck(torch.cat(maps, 1)))


class PspNet(nn.Module):
    """Scores at an eighth of the image's size, and the features below the head."""

    def __init__(self, spec):
        super().__init__()
        name, width = spec["backbone"], spec["width"]
        if name == "mobilenet_v2":
            assert width == 32, "only the published width"
            self.backbone = MobileNetV2(8)
        else:
            blocks = {"resnet18": [2, 2, 2, 2], "resnet101": [3, 4, 23, 3]}[name]
            self.backbone = Backbone(blocks, name == "resnet101", width, 8)
        self.classifier = PspHead(self.backbone.channels, spec["classes"])

    def forward(self, images):
        features = self.backbone(images)
        return self.classifier(features), features


def under(prefix, tensors):
    return {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}


def fill(net, weights):
    """Loads every weight by name; only PyTorch's own counters may be missing."""
    missing, unexpected = net.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    assert not missing and not unexpected, f"missing {missing[:4]}, unexpected {unexpected[:4]}"


def optimizer(net, lr, momentum, weight_decay):
    """SGD that spares norms and biases from the decay, as ours."""
    decayed = [weight for weight in net.parameters() if weight.dim() > 1]
    others = [weight for weight in net.parameters() if weight.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, momentum=momentum)
