"""The losses of a step, written from the formulas in the documentation of ours."""

import torch
import torch.nn.functional as F

IGNORE = 255


def cross_entropy(logits, target):
    return F.cross_entropy(logits, target, ignore_index=IGNORE)


def counted(target, size):
    """1 where a pixel counts and 0 where it is ignored, [n, 1, h, w]."""
    return F.interpolate((target != IGNORE).float().unsqueeze(1), size=size, mode="nearest")


def pixel_wise(student, teacher, target):
    """The divergence of the student's class probabilities from the teacher's, mean over counted pixels."""
    mask = counted(target, student.shape[2:]).squeeze(1)
    q, p = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
    each = F.kl_div(q, p, reduction="none", log_target=True).sum(1)
    return (each * mask).sum() / mask.sum().clamp(min=1e-12)


def pair_wise(student, teacher, target, pool=0.5):
    """The mean squared difference of cosines between max-pooled regions, over pairs of counted regions."""
    height, width = student.shape[2:]
    kernel = (max(int(height * pool), 1), max(int(width * pool), 1))
    mask = counted(target, (height, width))
    weight = F.max_pool2d(mask, kernel, ceil_mode=True)

    def cosines(x):
        nodes = F.max_pool2d(x.masked_fill(mask == 0, -1e30), kernel, ceil_mode=True)
        units = F.normalize(nodes.masked_fill(weight == 0, 0.0).flatten(2), dim=1, eps=1e-8)
        return units.transpose(1, 2) @ units

    with torch.no_grad():
        expected = cosines(teacher)
    nodes_counted = weight.flatten(2)
    pairs = nodes_counted.transpose(1, 2) @ nodes_counted
    return ((expected - cosines(student)).square() * pairs).sum() / pairs.sum().clamp(min=1e-12)
