"""Training steps of torchvision's detectors, with our weights."""

import copy

import torch
from torch import nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.resnet import resnet18
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from nets import Backbone, fill, optimizer, under

STAGES = {"layer2": "0", "layer3": "1", "layer4": "2"}


def body(width):
    """ResNet-18: torchvision's own at its width, ours at any other."""
    if width == 64:
        return resnet18(weights=None)
    return Backbone([2, 2, 2, 2], False, width, 32)


class Named(nn.Module):
    """Gives a body of another width the stem that torchvision's takes its layers from."""

    def __init__(self, body):
        super().__init__()
        self.conv1, self.bn1 = body.conv1, body.bn1
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = body.layer1, body.layer2, body.layer3, body.layer4


def detector(spec, weights):
    width, channels = spec["width"], spec["channels"]
    stages = [width << index for index in (1, 2, 3)]
    levels = LastLevelP6P7(channels, channels)
    backbone = BackboneWithFPN(Named(body(width)), STAGES, stages, channels, levels)
    net = {"retinanet": RetinaNet, "fcos": FCOS}[spec["net"]](backbone, spec["classes"])
    fill(net, weights)
    return net


class Step:
    """Forward, assignment, losses, backward and update on one fixed batch; without the transform of whole images."""

    in_a_row = True

    def __init__(self, setup, spec, tensors):
        self.setup, self.spec = setup, spec
        self.net = setup.place_net(detector(spec, under("net.", tensors))).train()
        self.optimizer = optimizer(self.net, spec["lr"], spec["momentum"], spec["weight_decay"])
        # What bf16 does to the first logits on this side, as a measure for the other.
        self.exact = copy.deepcopy(self.net) if setup.bf16 else None
        self.backbone, self.head = setup.compiled(self.net.backbone), setup.compiled(self.net.head)
        self.images = setup.place(tensors["images"])
        sizes = [tuple(self.images.shape[2:])] * len(self.images)
        self.list = ImageList(self.images, sizes)
        boxes, labels = tensors["edges"].to(setup.device), tensors["classes"].long().to(setup.device)
        self.targets = [{"boxes": boxes, "labels": labels} for _ in self.images]
        self.first_logits = None

    def losses(self):
        with self.setup.autocast():
            features = list(self.backbone(self.images).values())
            told = self.head(features)
        told = {name: value.float() for name, value in told.items()}
        if self.first_logits is None:
            self.first_logits = told["cls_logits"].detach().transpose(1, 2).clone()
        anchors = self.net.anchor_generator(self.list, features)
        if self.spec["net"] == "retinanet":
            return self.net.compute_loss(self.targets, told, anchors)
        counts = [level.shape[2] * level.shape[3] for level in features]
        return self.net.compute_loss(self.targets, told, anchors, counts)

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        total = sum(self.losses().values())
        total.backward()
        self.optimizer.step()
        return total.detach()

    def check(self):
        steps = [self.step().item() for _ in range(self.spec["steps"])]
        results = {"losses": torch.tensor(steps), "logits": self.first_logits}
        if self.exact is not None:
            with torch.no_grad():
                features = list(self.exact.backbone(self.images).values())
                results["logits_f32"] = self.exact.head(features)["cls_logits"].transpose(1, 2)
            self.exact = None
        return results

    def run(self):
        self.step()
