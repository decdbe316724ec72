"""Golden values of the segmentation metrics, in numpy.

Run: python tests/golden/metrics.py (needs torch, numpy, safetensors). Writes metrics.safetensors.

The confusion matrix and the IoU are counted as torchvision's reference script does (bincount of truth * K +
prediction over valid pixels). Boundary IoU (Cheng et al. 2021): the boundary of a binary mask is the mask less its
erosion by a 3x3 square, repeated max(1, round(0.02 * diagonal)) times, with zeros outside the image. Pixels without
truth are given to the prediction too before boundaries are taken, and count nowhere.
"""

import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

CLASSES = 4


def erode(mask):
    padded = np.pad(mask, 1)
    result = mask.copy()
    for dy in range(3):
        for dx in range(3):
            result &= padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
    return result


def boundary(mask):
    reach = max(1, round(0.02 * float(np.hypot(*mask.shape))))
    eroded = mask
    for _ in range(reach):
        eroded = erode(eroded)
    return mask & ~eroded


def blobs(rng, height, width, classes):
    """A label map of random rectangles."""
    labels = np.zeros((height, width), np.int64)
    for _ in range(14):
        y, x = rng.integers(0, height), rng.integers(0, width)
        dy, dx = rng.integers(5, height // 2), rng.integers(5, width // 2)
        labels[y : y + dy, x : x + dx] = rng.integers(0, classes)
    return labels


rng = np.random.default_rng(0)
out = {}
confusion = np.zeros((CLASSES, CLASSES), np.int64)
intersection, union = np.zeros(CLASSES, np.int64), np.zeros(CLASSES, np.int64)
for index, (height, width) in enumerate([(60, 83), (97, 64), (111, 120)]):
    truth = blobs(rng, height, width, CLASSES)
    prediction = np.roll(truth, (2, 3), (0, 1))
    noise = blobs(rng, height, width, CLASSES)
    prediction = np.where(rng.random((height, width)) < 0.05, noise, prediction)
    truth[10:20, 30:50] = 255
    truth[40:44, 5:60] = 254
    out[f"truth.{index}"] = torch.from_numpy(truth.astype(np.uint8))
    out[f"prediction.{index}"] = torch.from_numpy(prediction.astype(np.uint8))

    valid = truth < CLASSES
    pairs = truth[valid] * CLASSES + prediction[valid]
    confusion += np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    stamped = np.where(valid, prediction, truth)
    for c in range(CLASSES):
        in_truth, in_prediction = boundary(truth == c) & valid, boundary(stamped == c) & valid
        intersection[c] += (in_truth & in_prediction).sum()
        union[c] += (in_truth | in_prediction).sum()

confusion = confusion.astype(np.float64)
diagonal, truth_sum, prediction_sum = np.diag(confusion), confusion.sum(1), confusion.sum(0)
iou = diagonal / (truth_sum + prediction_sum - diagonal)
values = {
    "confusion": confusion,
    "iou": iou,
    "miou": iou.mean(),
    "pixel_accuracy": diagonal.sum() / confusion.sum(),
    "mean_accuracy": (diagonal / truth_sum).mean(),
    "fw_iou": (truth_sum / confusion.sum() * iou).sum(),
    "boundary_iou_per_class": intersection / union,
    "boundary_iou": (intersection / union).mean(),
}
out |= {name: torch.from_numpy(np.atleast_1d(value)) for name, value in values.items()}
save_file({name: t.contiguous().float() for name, t in out.items()}, pathlib.Path(__file__).with_suffix(".safetensors"))
