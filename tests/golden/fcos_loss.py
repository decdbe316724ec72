"""Golden targets, losses and gradients of FCOS (run with torch, torchvision and safetensors).

    python tests/golden/fcos_loss.py

From torchvision's own `FCOS.compute_loss`, called on random outputs of a head, in double precision over single-precision
inputs, for points at ((x + 0.5) * stride, (y + 0.5) * stride). Box regressions are in pixels here, in strides there.

fcos_loss.safetensors holds, all as f32, for 3 images of 96x128 and levels 0..2 of stride 4, 8, 16:
class_logits.L [3,2,h,w], distances.L [3,4,h,w], centerness.L [3,1,h,w]; boxes.I [m,4], classes.I [m] (image 2 has none);
positive [3,1,p], one_hot [3,2,p], target_distances [3,4,p], target_centerness [3,1,p];
{classification,bbox_regression,bbox_ctrness}.value, .grad.L (of the class logits, the distances and the centerness)
"""

import pathlib
import types

import torch
from safetensors.torch import save_file
from torchvision.models.detection.fcos import FCOS, FCOSHead

HERE = pathlib.Path(__file__).parent
STRIDES = [4, 8, 16]
HEIGHT, WIDTH, CLASSES = 96, 128, 2
SIZES = [(HEIGHT // stride, WIDTH // stride) for stride in STRIDES]
random = torch.Generator().manual_seed(3)
tensors = {}


def draw(*shape):
    return torch.randn(*shape, generator=random)


def put(name, tensor):
    tensors[name] = tensor.detach().to(torch.float32).contiguous().reshape(tensor.shape or (1,))


def boxes(count):
    middle = torch.rand(count, 2, generator=random) * torch.tensor([WIDTH, HEIGHT])
    half = torch.exp(torch.rand(count, 2, generator=random) * 3.8 + 1.2) / 2
    corners = torch.cat([middle - half, middle + half], 1)
    limit = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    return torch.minimum(corners.clamp(min=0), limit).round(decimals=1).double()


def flat(maps):
    """[n,c,h,w] of each level to [n,p,c]."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)


logits = [draw(3, CLASSES, *size).double().requires_grad_() for size in SIZES]
distances = [(draw(3, 4, *size).exp() * 2 * stride).double().requires_grad_() for size, stride in zip(SIZES, STRIDES)]
centerness = [draw(3, 1, *size).double().requires_grad_() for size in SIZES]
targets = []
for image, count in enumerate([9, 20, 0]):
    targets.append({"boxes": boxes(count), "labels": torch.randint(CLASSES, (count,), generator=random)})
    put(f"boxes.{image}", targets[-1]["boxes"])
    put(f"classes.{image}", targets[-1]["labels"])

anchors = []
for (height, width), stride in zip(SIZES, STRIDES):
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    point = torch.stack([x, y], -1).reshape(-1, 2).double() * stride
    anchors.append(torch.cat([point - stride / 2, point + stride / 2], 1))
per_level = [len(level) for level in anchors]
anchors = torch.cat(anchors)

head = FCOSHead(32, 1, CLASSES)
seen = {}


def compute_loss(targets, outputs, anchors, matched):
    seen["matched"] = torch.stack(matched)
    return head.compute_loss(targets, outputs, anchors, matched)


detector = types.SimpleNamespace(center_sampling_radius=1.5, head=types.SimpleNamespace(compute_loss=compute_loss))
in_strides = [x / stride for x, stride in zip(distances, STRIDES)]
outputs = {"cls_logits": flat(logits), "bbox_regression": flat(in_strides), "bbox_ctrness": flat(centerness)}
losses = FCOS.compute_loss(detector, targets, outputs, [anchors] * 3, per_level)

matched = seen["matched"]
positive = matched >= 0
one_hot = torch.zeros(3, CLASSES, len(anchors))
target_distances = torch.zeros(3, 4, len(anchors), dtype=torch.float64)
point = (anchors[:, :2] + anchors[:, 2:]) / 2
for image in range(3):
    for place in positive[image].nonzero().flatten().tolist():
        index = matched[image, place]
        one_hot[image, targets[image]["labels"][index], place] = 1
        box = targets[image]["boxes"][index]
        target_distances[image, :, place] = torch.cat([point[place] - box[:2], box[2:] - point[place]])
left, top, right, bottom = target_distances.unbind(1)
share = lambda a, b: torch.minimum(a, b) / torch.maximum(a, b).clamp(min=1e-6)
put("positive", positive[:, None])
put("one_hot", one_hot)
put("target_distances", target_distances)
put("target_centerness", (share(left, right) * share(top, bottom)).sqrt()[:, None])
assert all(positive[:2, sum(per_level[:i]) : sum(per_level[: i + 1])].any() for i in range(3)), "a level answers for nothing"

for name, maps in [("classification", logits), ("bbox_regression", distances), ("bbox_ctrness", centerness)]:
    put(f"{name}.value", losses[name])
    for level, gradient in enumerate(torch.autograd.grad(losses[name], maps, retain_graph=True)):
        put(f"{name}.grad.{level}", gradient)
for name, maps in [("class_logits", logits), ("distances", distances), ("centerness", centerness)]:
    for level, x in enumerate(maps):
        put(f"{name}.{level}", x)

save_file(tensors, HERE / "fcos_loss.safetensors")
print({name: float(value.detach()) for name, value in losses.items()}, int(positive.sum()))
