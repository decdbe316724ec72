"""Golden values of the supervised losses, written from the papers' formulas in PyTorch.

Run: python tests/golden/supervised.py (needs torch, numpy, safetensors). Writes supervised.safetensors.

Cross-entropy with PyTorch's weighted mean; OHEM as the threshold max(thresh, min_kept-th smallest probability of
the true class); Dice in two forms (sums, and V-Net's squares); Lovasz-softmax by sorting (Berman et al. 2018, alg. 1).
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

IGNORE, UNKNOWN = 255, 254
out = {}


def case(name, loss, logits, target):
    """Stores value and gradient of loss(logits, target) under name."""
    leaf = logits.clone().requires_grad_(True)
    value = loss(leaf, target)
    value.backward()
    out[f"{name}.value"] = value.detach().reshape(1)
    out[f"{name}.grad"] = leaf.grad


def cross_entropy(logits, target, weight=None):
    valid = target < 254
    return F.cross_entropy(logits, torch.where(valid, target, IGNORE), weight=weight, ignore_index=IGNORE)


def ohem(threshold, min_kept):
    def loss(logits, target):
        valid = target < 254
        safe = torch.where(valid, target, 0)
        true = logits.softmax(1).gather(1, safe[:, None])[:, 0].detach()
        smallest = true[valid].sort().values
        reach = max(threshold, smallest[min(min_kept, len(smallest)) - 1].item())
        keep = valid & (true <= reach)
        return F.cross_entropy(logits, torch.where(keep, target, IGNORE), ignore_index=IGNORE)

    return loss


def dice(squares, smooth, absent):
    def loss(logits, target):
        classes = logits.shape[1]
        valid = (target < 254)[:, None]
        truth = F.one_hot(torch.where(valid[:, 0], target, 0), classes).permute(0, 3, 1, 2) * valid
        p = logits.softmax(1) * valid
        size = (p * p + truth * truth if squares else p + truth).sum((0, 2, 3))
        score = (2 * (p * truth).sum((0, 2, 3)) + smooth) / (size + smooth).clamp_min(1e-7)
        present = truth.sum((0, 2, 3)) > 0
        return torch.where(present | torch.tensor(absent), 1 - score, 0.0).mean()

    return loss


def lovasz_flat(p, target, classes):
    losses = []
    for c in range(classes):
        truth = (target == c).float()
        if truth.sum() == 0:
            continue
        errors, order = (truth - p[:, c]).abs().sort(descending=True)
        truth = truth[order]
        jaccard = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
        steps = jaccard.clone()
        steps[1:] = jaccard[1:] - jaccard[:-1]
        losses.append((errors * steps).sum())
    return torch.stack(losses).mean()


def lovasz(per_image):
    def loss(logits, target):
        classes = logits.shape[1]
        p = logits.softmax(1).permute(0, 2, 3, 1)
        groups = [(p[i : i + 1], target[i : i + 1]) for i in range(len(p))] if per_image else [(p, target)]
        return torch.stack([lovasz_flat(q[t < 254], t[t < 254], classes) for q, t in groups]).mean()

    return loss


def upsampled(logits, target):
    return cross_entropy(F.interpolate(logits, target.shape[1:], mode="bilinear", align_corners=False), target)


torch.manual_seed(0)
n, k, h, w = 2, 5, 9, 11
logits = 2.5 * torch.randn(n, k, h, w)
target = torch.randint(0, k - 1, (n, h, w))  # the last class is absent
target[torch.rand(n, h, w) < 0.15] = IGNORE
target[torch.rand(n, h, w) < 0.15] = UNKNOWN
weight = torch.tensor([0.5, 2.0, 1.0, 0.25, 3.0])
coarse = 2 * torch.randn(n, k, 4, 5)
out |= {"logits": logits, "target": target, "weight": weight, "coarse": coarse}

case("cross_entropy", cross_entropy, logits, target)
case("cross_entropy_weighted", lambda x, y: cross_entropy(x, y, weight), logits, target)
case("ohem_threshold", ohem(0.3, 10), logits, target)
case("ohem_min_kept", ohem(0.05, 90), logits, target)
case("ohem_all", ohem(0.05, 10_000), logits, target)
case("dice", dice(False, 0.0, False), logits, target)
case("dice_squares", dice(True, 1e-5, True), logits, target)
case("lovasz", lovasz(False), logits, target)
case("lovasz_per_image", lovasz(True), logits, target)
case("upsampled", upsampled, coarse, target)

save_file({name: t.contiguous().float() for name, t in out.items()}, pathlib.Path(__file__).with_suffix(".safetensors"))
