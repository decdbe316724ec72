"""Whole training steps, the prediction of one image, and evaluation."""

import copy

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
        # What bf16 does to the first logits on this side, as a measure for the other.
        self.exact = copy.deepcopy(student) if setup.bf16 else None
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
        results = {"losses": torch.tensor(steps), "logits": self.first_logits}
        if self.exact is not None:
            with torch.no_grad():
                results["logits_f32"] = self.exact(self.images)[0]
            self.exact = None
        return results

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


class Evaluation:
    """Bytes of images and labels on the host to counts of (truth, prediction), image by image."""

    def __init__(self, setup, spec, tensors):
        self.setup = setup
        self.net = setup.compiled(net_of(setup, spec["net"], under("net.", tensors)).eval())
        self.photos = tensors["photos"].to(torch.uint8)
        self.truth = tensors["truth"].to(torch.uint8)
        self.classes = spec["net"]["classes"]
        self.mean, self.deviation = (
            torch.tensor(values, device=setup.device).view(1, 3, 1, 1)
            for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )

    @torch.inference_mode()
    def counts(self):
        counts = torch.zeros(self.classes * self.classes, dtype=torch.long, device=self.setup.device)
        for photo, truth in zip(self.photos, self.truth):
            image = photo.to(self.setup.device).permute(2, 0, 1).unsqueeze(0).float().div(255)
            image = self.setup.place((image - self.mean) / self.deviation)
            with self.setup.autocast():
                logits, _ = self.net(image)
            logits = F.interpolate(logits.float(), size=truth.shape, mode="bilinear", align_corners=False)
            predicted = logits.softmax(1).argmax(1).flatten()
            truth = truth.to(self.setup.device).long().flatten()
            pairs = (truth * self.classes + predicted)[truth != losses.IGNORE]
            counts += torch.bincount(pairs, minlength=counts.numel())
        return counts.view(self.classes, self.classes).cpu()

    def check(self):
        return {"counts": self.counts()}

    def run(self):
        self.counts()
