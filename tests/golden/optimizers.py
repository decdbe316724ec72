"""Writes optimizers.safetensors: five steps of PyTorch's SGD and AdamW on fixed gradients.

Run: python tests/golden/optimizers.py
Each case holds a matrix `w` (decayed) and a vector `b` (not decayed), the gradients of every step and the weights after it.
"""

import pathlib

import torch
from safetensors.torch import save_file

STEPS = 5
CASES = {
    "sgd": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.01)),
    "nesterov": (torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True)),
    "plain": (torch.optim.SGD, dict(lr=0.1, momentum=0.0, weight_decay=0.01)),
    "adamw": (torch.optim.AdamW, dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05)),
}

torch.manual_seed(0)
tensors = {}
for name, (kind, options) in CASES.items():
    w = torch.nn.Parameter(torch.randn(3, 4))
    b = torch.nn.Parameter(torch.randn(4))
    tensors[f"{name}.w.0"], tensors[f"{name}.b.0"] = w.detach().clone(), b.detach().clone()
    decay = options.pop("weight_decay")
    optimizer = kind([{"params": [w], "weight_decay": decay}, {"params": [b], "weight_decay": 0.0}], **options)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=STEPS, power=0.9)
    for step in range(1, STEPS + 1):
        w.grad, b.grad = torch.randn(3, 4), torch.randn(4)
        tensors[f"{name}.w.grad.{step}"], tensors[f"{name}.b.grad.{step}"] = w.grad.clone(), b.grad.clone()
        optimizer.step()
        schedule.step()
        tensors[f"{name}.w.{step}"], tensors[f"{name}.b.{step}"] = w.detach().clone(), b.detach().clone()

save_file(tensors, pathlib.Path(__file__).with_suffix(".safetensors"))
