"""Whole training steps, and the prediction of one image."""

import torch
import torch.nn.functional as F

import losses
from nets import PspNet, fill, optimizer, under


def net_of(setup, spec, weights):
    net = PspNet(spec)
    fill(net, weights)
    return setup.place_net(net)


class Step:
    """Forward, losses, backward and update on one fixed batch."""

    in_a_row = True

    def __init__(self, setup, spec, tensors):
        self.setup, self.spec = setup, spec
        student = net_of(setup, spec["student"], under("student.", tensors)).train()
        self.optimizer = optimizer(student, spec["lr"], spec["momentum"], spec["weight_decay"])
        self.student, self.teacher = setup.compiled(student), None
        if spec["teacher"] is not None:
            teacher = net_of(setup, spec["teacher"], under("teacher.", tensors)).eval().requires_grad_(False)
            self.teacher = setup.compiled(teacher)
        self.images = setup.place(tensors["images"])
        self.target = tensors["target"].long().to(setup.device)
        self.first_logits = None

    def loss(self):
        with self.setup.autocast():
            logits, features = self.student(self.images)
        if self.first_logits is None:
            self.first_logits = logits.detach().clone()
        logits, features = logits.float(), features.float()
        upsampled = F.interpolate(logits, size=self.target.shape[1:], mode="bilinear", align_corners=False)
        total = losses.cross_entropy(upsampled, self.target)
        if self.teacher is not None:
            with torch.no_grad(), self.setup.autocast():
                taught_logits, taught_features = self.teacher(self.images)
            pixel = losses.pixel_wise(logits, taught_logits.float(), self.target)
            pair = losses.pair_wise(features, taught_features.float(), self.target)
            total = total + self.spec["pixel_wise"] * pixel + self.spec["pair_wise"] * pair
        return total

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        total = self.loss()
        total.backward()
        self.optimizer.step()
        return total.detach()

    def check(self):
        steps = [self.step().item() for _ in range(self.spec["steps"])]
        return {"losses": torch.tensor(steps), "logits": self.first_logits}

    def run(self):
        self.step()


class Prediction:
    """The most probable class of every pixel, on the host."""

    def __init__(self, setup, spec, tensors):
        self.setup = setup
        self.net = setup.compiled(net_of(setup, spec["net"], under("net.", tensors)).eval())
        self.image = setup.place(tensors["image"])

    @torch.inference_mode()
    def probabilities(self):
        with self.setup.autocast():
            logits, _ = self.net(self.image)
        size = self.image.shape[2:]
        return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).softmax(1)

    def check(self):
        return {"probabilities": self.probabilities()}

    def run(self):
        self.probabilities().argmax(1).cpu()
