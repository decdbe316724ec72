"""Single operations, and the updates of a net's weights."""

import torch
import torch.nn.functional as F

import losses
from nets import Backbone, fill, optimizer, under


class Operation:
    """One function of `FUNCTIONS`, forward alone without a graph, or with its gradients."""

    def __init__(self, setup, spec, tensors):
        self.backward = spec["backward"]
        self.output_weights = setup.place(tensors.pop("output_weights"))
        target = tensors.pop("target", None)
        self.inputs = {name: setup.place(tensor) for name, tensor in tensors.items()}
        self.leaves = spec["grads"] + (["gamma", "beta"] if spec["norm"] else [])
        if self.backward:
            for name in self.leaves:
                self.inputs[name].requires_grad_()
        if spec["norm"]:
            channels = len(self.inputs["gamma"])
            self.inputs["mean"] = torch.zeros(channels, device=setup.device)
            self.inputs["variance"] = torch.ones(channels, device=setup.device)
        if target is not None:
            self.inputs["target"] = target.long().to(setup.device)
        self.function = FUNCTIONS[spec["function"]]
        self.options = spec["options"]

    def forward(self):
        return self.function(self.inputs, self.options, self.backward)

    def gradients(self, y, grad):
        return torch.autograd.grad(y, [self.inputs[name] for name in self.leaves], grad)

    def check(self):
        if not self.backward:
            with torch.no_grad():
                return {"y": self.forward().reshape(self.output_weights.shape)}
        y = self.forward()
        grads = self.gradients(y, self.output_weights.reshape(y.shape))
        results = {f"{name}.grad": grad for name, grad in zip(self.leaves, grads)}
        return {"y": y.reshape(self.output_weights.shape), **results}

    def run(self):
        if self.backward:
            y = self.forward()
            self.gradients(y, torch.ones_like(y))
        else:
            with torch.no_grad():
                self.forward()


def conv2d(t, options, _):
    stride, padding = options["stride"], options["padding"]
    return F.conv2d(t["x"], t["weight"], None, stride, padding, options["dilation"], options["groups"])


def conv_transpose2d(t, options, _):
    return F.conv_transpose2d(t["x"], t["weight"], None, options["stride"], options["padding"])


def batch_norm(t, _, training):
    return F.batch_norm(t["x"], t["mean"], t["variance"], t["gamma"], t["beta"], training, 0.1, 1e-5)


def batch_norm_relu(t, options, training):
    return batch_norm(t, options, training).relu_()


def batch_norm_relu_residual(t, options, training):
    y = batch_norm(t, options, training)
    y += t["residual"]
    return y.relu_()


def adaptive_avg_pool2d(t, *_):
    return torch.cat([F.adaptive_avg_pool2d(t["x"], bins).flatten(2) for bins in (1, 2, 3, 6)], 2).unsqueeze(3)


def bilinear(t, options, _):
    return F.interpolate(t["x"], size=options["size"], mode="bilinear", align_corners=False)


FUNCTIONS = {
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "batch_norm": batch_norm,
    "batch_norm_relu": batch_norm_relu,
    "batch_norm_relu_residual": batch_norm_relu_residual,
    "max_pool2d": lambda t, *_: F.max_pool2d(t["x"], 3, 2, 1),
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "bilinear": bilinear,
    "cross_entropy": lambda t, *_: losses.cross_entropy(t["logits"], t["target"]),
    "pixel_wise": lambda t, *_: losses.pixel_wise(t["student"], t["teacher"], t["target"]),
    "pair_wise": lambda t, *_: losses.pair_wise(t["student"], t["teacher"], t["target"]),
}


def resnet18(setup, weights):
    net = Backbone([2, 2, 2, 2], False, len(weights["bn1.weight"]), 32)
    fill(net, weights)
    return setup.place_net(net)


def state(net):
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


class Sgd:
    """torch.optim.SGD on fixed gradients."""

    def __init__(self, setup, spec, tensors):
        self.net = resnet18(setup, under("net.", tensors))
        self.updates = spec["updates"]
        grads = under("grad.", tensors)
        for name, parameter in self.net.named_parameters():
            parameter.grad = setup.place(grads[name])
        self.optimizer = optimizer(self.net, 0.01, 0.9, 1e-4)

    def check(self):
        for _ in range(self.updates):
            self.run()
        return state(self.net)

    def run(self):
        self.optimizer.step()


class Average:
    """average = decay * average + (1 - decay) * student, over weights and running statistics."""

    def __init__(self, setup, spec, tensors):
        self.net = resnet18(setup, under("average.", tensors))
        student = state(resnet18(setup, under("student.", tensors)))
        self.pairs = [(value, student[name]) for name, value in state(self.net).items()]
        self.decay, self.updates = spec["decay"], spec["updates"]

    def check(self):
        for _ in range(self.updates):
            self.run()
        return state(self.net)

    @torch.no_grad()
    def run(self):
        for average, student in self.pairs:
            average.lerp_(student, 1 - self.decay)
