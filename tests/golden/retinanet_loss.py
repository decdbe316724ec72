"""Golden targets, losses and gradients of RetinaNet (run with torch, torchvision and safetensors).

    python tests/golden/retinanet_loss.py

From torchvision's own `RetinaNet.compute_loss`, called image by image on random outputs of a head, in double precision over
single-precision inputs, for points at ((x + 0.5) * stride, (y + 0.5) * stride). torchvision divides the loss of an image by its own
positive anchors; here the sums over all images are divided by all of them.

retinanet_loss.safetensors holds, all as f32, for 2 images of 64x96, levels 0..2 of stride 8, 16, 32 and 9 anchors at each point:
class_logits.L [2,2,p], deltas.L [2,4,p]; boxes.I [m,4], classes.I [m] (image 1 has none);
positive [2,1,p], one_hot [2,2,p], counted [2,2,p], target_distances [2,4,p];
{classification,l1,smooth_l1}.value, .grad.L (of the class logits, of the deltas); beta of smooth_l1 is 0.5
"""

import pathlib
import types

import torch
from safetensors.torch import save_file
from torchvision.models.detection import _utils
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead

from retinanet import boxes_of_level

HERE = pathlib.Path(__file__).parent
LEVELS = [3, 4, 5]
HEIGHT, WIDTH, CLASSES, IMAGES = 64, 96, 2, 2
SIZES = [(HEIGHT // 2**level, WIDTH // 2**level) for level in LEVELS]
random = torch.Generator().manual_seed(5)
tensors = {}


def draw(*shape):
    return torch.randn(*shape, generator=random)


def put(name, tensor):
    tensors[name] = tensor.detach().to(torch.float32).contiguous().reshape(tensor.shape or (1,))


def boxes(count):
    """On a grid of a quarter of a pixel, so that equal overlaps are equal in both precisions."""
    middle = torch.rand(count, 2, generator=random) * torch.tensor([WIDTH, HEIGHT])
    half = torch.exp(torch.rand(count, 2, generator=random) * 2.5 + 2.0) / 2
    corners = torch.cat([middle - half, middle + half], 1)
    limit = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    return ((torch.minimum(corners.clamp(min=0), limit) * 4).round() / 4).double()


anchors, points = zip(*(boxes_of_level(level, size, 0.5) for level, size in zip(LEVELS, SIZES)))
per_level = [len(level) for level in anchors]
anchors, points = torch.cat(anchors).double(), torch.cat(points).double()
logits = [draw(IMAGES, CLASSES, places).double().requires_grad_() for places in per_level]
deltas = [(0.5 * draw(IMAGES, 4, places)).double().requires_grad_() for places in per_level]
targets = []
for image, count in enumerate([8, 0]):
    targets.append({"boxes": boxes(count), "labels": torch.randint(CLASSES, (count,), generator=random)})
    put(f"boxes.{image}", targets[-1]["boxes"])
    put(f"classes.{image}", targets[-1]["labels"])

head = RetinaNetHead(32, 9, CLASSES)
matched = []


def compute_loss(targets, outputs, anchors, indices):
    matched.append(indices[0])
    return head.compute_loss(targets, outputs, anchors, indices)


matcher = _utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)
detector = types.SimpleNamespace(proposal_matcher=matcher, head=types.SimpleNamespace(compute_loss=compute_loss))
rows = lambda maps, image: torch.cat([x[image].T for x in maps])[None]


def losses(kind):
    head.regression_head._loss_type = kind
    # Its own beta is that of the Fast R-CNN of Detectron, 1/9.
    of_images, counts = [], []
    for image in range(IMAGES):
        outputs = {"cls_logits": rows(logits, image), "bbox_regression": rows(deltas, image)}
        of_images.append(RetinaNet.compute_loss(detector, [targets[image]], outputs, [anchors]))
        counts.append(int((matched[-1] >= 0).sum()))
    all_of_them = max(1, sum(counts))
    return {key: sum(l[key] * max(1, c) for l, c in zip(of_images, counts)) / all_of_them for key in of_images[0]}


plain = losses("l1")
matched = torch.stack(matched[:IMAGES])
positive, between = matched >= 0, matched == _utils.Matcher.BETWEEN_THRESHOLDS
one_hot = torch.zeros(IMAGES, CLASSES, len(anchors))
target_distances = torch.zeros(IMAGES, 4, len(anchors), dtype=torch.float64)
for image in range(IMAGES):
    for place in positive[image].nonzero().flatten().tolist():
        index = matched[image, place]
        one_hot[image, targets[image]["labels"][index], place] = 1
        box, point = targets[image]["boxes"][index], points[place]
        target_distances[image, :, place] = torch.cat([point - box[:2], box[2:] - point])
put("positive", positive[:, None])
put("one_hot", one_hot)
put("counted", (~between)[:, None].expand(-1, CLASSES, -1))
put("target_distances", target_distances)

# Smooth L1 with another beta than torchvision's: of its own encoding of the boxes.
coder = head.regression_head.box_coder
own = coder.encode_single(targets[0]["boxes"][matched[0][positive[0]]], anchors[positive[0]])
found = rows(deltas, 0)[0][positive[0]]
smooth = torch.nn.functional.smooth_l1_loss(found, own, beta=0.5, reduction="sum") / positive.sum()

for name, value, maps in [
    ("classification", plain["classification"], logits),
    ("l1", plain["bbox_regression"], deltas),
    ("smooth_l1", smooth, deltas),
]:
    put(f"{name}.value", value)
    for level, gradient in enumerate(torch.autograd.grad(value, maps, retain_graph=True)):
        put(f"{name}.grad.{level}", gradient)
for name, maps in [("class_logits", logits), ("deltas", deltas)]:
    for level, x in enumerate(maps):
        put(f"{name}.{level}", x)

save_file(tensors, HERE / "retinanet_loss.safetensors")
(HERE / "retinanet_loss.safetensors").chmod(0o644)
print({k: float(v.detach()) for k, v in plain.items()}, float(smooth.detach()), int(positive.sum()), int(between.sum()))
