"""Golden values of the losses on unlabelled images, written from the papers' formulas in PyTorch.

Run: python tests/golden/unlabelled.py (needs torch, safetensors). Writes unlabelled.safetensors.

fixmatch: cross-entropy of the strong view to the weak view's most probable class, counted where that probability
reaches the threshold, over the number of free pixels (not of confident ones). mean_teacher: squared difference of
probabilities averaged over classes, or soft cross-entropy, averaged over free pixels.
"""

import pathlib

import torch
from safetensors.torch import save_file

out = {}


def case(name, loss, strong):
    leaf = strong.clone().requires_grad_(True)
    value = loss(leaf)
    value.backward()
    out[f"{name}.value"] = value.detach().reshape(1)
    out[f"{name}.grad"] = leaf.grad


torch.manual_seed(0)
n, k, h, w = 2, 4, 7, 8
weak = 3 * torch.randn(n, k, h, w)
strong = 2 * torch.randn(n, k, h, w)
origin = torch.randint(-1, n * h * w, (n, h, w))
origin[torch.rand(n, h, w) < 0.1] = -1
weak_target = torch.full((n, h, w), 254)
weak_target[torch.rand(n, h, w) < 0.15] = 255
weak_target[torch.rand(n, h, w) < 0.15] = 2
threshold = 0.7

index = origin.clamp_min(0).flatten()
free = (origin >= 0) & (weak_target.flatten()[index].reshape(n, h, w) == 254)
p = weak.softmax(1).permute(0, 2, 3, 1).reshape(-1, k)[index].reshape(n, h, w, k).permute(0, 3, 1, 2)
confidence, label = p.max(1)
sure = free & (confidence >= threshold)


def fixmatch(x):
    picked = x.log_softmax(1).gather(1, label[:, None])[:, 0]
    return -(picked * sure).sum() / free.sum()


def mse(mask):
    return lambda x: (((x.softmax(1) - p) ** 2).mean(1) * mask).sum() / free.sum()


def soft_cross_entropy(x):
    return (-(p * x.log_softmax(1)).sum(1) * free).sum() / free.sum()


out |= {"weak": weak, "strong": strong, "origin": origin, "weak_target": weak_target}
out |= {"accepted": sure.sum().reshape(1).float(), "candidates": free.sum().reshape(1).float()}
case("fixmatch", fixmatch, strong)
case("mean_teacher_mse", mse(free), strong)
case("mean_teacher_mse_confident", mse(sure), strong)
case("mean_teacher_cross_entropy", soft_cross_entropy, strong)
save_file({name: t.contiguous().float() for name, t in out.items()}, pathlib.Path(__file__).with_suffix(".safetensors"))
