"""Golden targets, losses and gradients of generalised focal loss (run with torch, torchvision and safetensors).

    python tests/golden/gfl_loss.py

Written from the papers: adaptive training sample selection (arXiv 1912.02424, algorithm 1, with a square of 8 strides about each
point), SimOTA (arXiv 2107.08430), quality focal loss and distribution focal loss (arXiv 2006.04388, equations 3 and 6); measures of boxes are torchvision's.
In double precision over single-precision inputs, for points at ((x + 0.5) * stride, (y + 0.5) * stride).

gfl_loss.safetensors holds, all as f32, for 3 images of 64x96 and levels 0..2 of stride 8, 16, 32:
class_logits.L [3,2,p], distances.L [3,4,p] in pixels, distribution.L [3,24,p]; boxes.I [m,4], classes.I [m] (image 2 has none);
positive [3,1,p], one_hot [3,2,p], target_distances [3,4,p]; simota.{positive,one_hot,target_distances}, the same by cost;
{quality_focal,giou,diou,ciou,distribution_focal}.value, .grad.L (of the class logits, the distances, the distribution); places of giou
and of distribution_focal count by the highest class probability
"""

import pathlib

import torch
from safetensors.torch import save_file
from torchvision.ops import box_iou, complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

HERE = pathlib.Path(__file__).parent
STRIDES = [8, 16, 32]
HEIGHT, WIDTH, CLASSES, IMAGES, BINS, NEAREST = 64, 96, 2, 3, 6, 9
SIZES = [(HEIGHT // stride, WIDTH // stride) for stride in STRIDES]
random = torch.Generator().manual_seed(11)
tensors = {}


def draw(*shape):
    return torch.randn(*shape, generator=random)


def put(name, tensor):
    tensors[name] = tensor.detach().to(torch.float32).contiguous().reshape(tensor.shape or (1,))


def boxes(count):
    """Some of them reach far beyond the image, so that there is an object for each level."""
    middle = torch.rand(count, 2, generator=random) * torch.tensor([WIDTH, HEIGHT])
    half = torch.exp(torch.rand(count, 2, generator=random) * 1.0 + torch.rand(count, 1, generator=random) * 3.4 + 1.4) / 2
    return torch.cat([middle - half, middle + half], 1).double()


points, strides = [], []
for (height, width), stride in zip(SIZES, STRIDES):
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    points.append(torch.stack([x, y], -1).reshape(-1, 2).double() * stride)
    strides += [stride] * (height * width)
per_level = [len(level) for level in points]
points, strides = torch.cat(points), torch.tensor(strides).double()
anchors = torch.cat([points - 4 * strides[:, None], points + 4 * strides[:, None]], 1)


def select(gt):
    """The box of each place, or -1."""
    if not len(gt):
        return torch.full((len(points),), -1)
    middle = (gt[:, :2] + gt[:, 2:]) / 2
    away = ((middle[:, None] - points[None]) ** 2).sum(-1).sqrt()
    near, start = [], 0
    for places in per_level:
        level = away[:, start : start + places]
        count = min(NEAREST, places)
        nearest = level.topk(min(count + 1, places), largest=False)
        assert count == places or (nearest.values[:, -1] - nearest.values[:, -2]).min() > 1e-3, "a tie"
        near.append(nearest.indices[:, :count] + start)
        start += places
    near = torch.cat(near, 1)
    overlap = box_iou(gt, anchors)
    candidates = overlap.gather(1, near)
    bound = candidates.mean(1, keepdim=True) + candidates.std(1, keepdim=True)
    assert (candidates - bound).abs().min() > 1e-4, "at the bound"
    x, y = points[near].unbind(-1)
    ways = torch.stack([x - gt[:, :1], y - gt[:, 1:2], gt[:, 2:3] - x, gt[:, 3:] - y])
    good = (candidates >= bound) & (ways.min(0).values > 0)
    assert good.any(1).all(), "an object that no place answers for"
    of_place = torch.full_like(overlap, -1.0)
    for box, place in good.nonzero().tolist():
        of_place[box, near[box, place]] = candidates[box, place]
    most = of_place.max(0)
    return torch.where(most.values >= 0, most.indices, -1)


logits = [draw(IMAGES, CLASSES, places).double().requires_grad_() for places in per_level]
distances = [
    (draw(IMAGES, 4, places).exp() * 2 * stride).double().requires_grad_() for places, stride in zip(per_level, STRIDES)
]
distribution = [draw(IMAGES, 4 * BINS, places).double().requires_grad_() for places in per_level]
one_hot = torch.zeros(IMAGES, CLASSES, len(points), dtype=torch.float64)
target_distances = torch.zeros(IMAGES, 4, len(points), dtype=torch.float64)
positive = torch.zeros(IMAGES, len(points), dtype=torch.bool)
for image, count in enumerate([6, 11, 0]):
    gt, classes = boxes(count), torch.randint(CLASSES, (count,), generator=random)
    put(f"boxes.{image}", gt)
    put(f"classes.{image}", classes)
    for place, box in enumerate(select(gt).tolist()):
        if box >= 0:
            positive[image, place] = True
            one_hot[image, classes[box], place] = 1
            target_distances[image, :, place] = torch.cat([points[place] - gt[box, :2], gt[box, 2:] - points[place]])
put("positive", positive[:, None])
put("one_hot", one_hot)
put("target_distances", target_distances)


def box(ways):
    """[p,4] ways from a point to the edges to a box about it."""
    return torch.cat([-ways[:, :2], ways[:, 2:]], 1)


image, place = positive.nonzero(as_tuple=True)
all_logits, all_distances = torch.cat(logits, 2), torch.cat(distances, 2)
found, own = box(all_distances[image, :, place]), box(target_distances[image, :, place])
quality = all_logits.detach().sigmoid().max(1).values[image, place]
count, total = len(image), quality.sum().clamp(min=1)

overlap = torch.zeros(IMAGES, len(points), dtype=torch.float64)
overlap[image, place] = torch.stack([box_iou(a[None], b[None])[0, 0] for a, b in zip(found.detach(), own)])
y = one_hot * overlap[:, None]
p = all_logits.sigmoid()
losses = {"quality_focal": ((y - p).abs() ** 2 * -((1 - y) * (1 - p).log() + y * p.log())).sum() / count}
losses["giou"] = (generalized_box_iou_loss(found, own) * quality).sum() / total
losses["diou"] = distance_box_iou_loss(found, own).sum() / count
losses["ciou"] = complete_box_iou_loss(found, own).sum() / count

in_strides = (target_distances / strides)[image, :, place].clamp(max=BINS - 1)
low = in_strides.floor().long().clamp(max=BINS - 2)
log = torch.cat(distribution, 2)[image, :, place].reshape(count, 4, BINS).log_softmax(2)
at = lambda index: log.gather(2, index[..., None])[..., 0]
edges = -((low + 1 - in_strides) * at(low) + (in_strides - low) * at(low + 1))
losses["distribution_focal"] = (edges.mean(1) * quality).sum() / total

for name, maps in {
    "quality_focal": logits,
    "giou": distances,
    "diou": distances,
    "ciou": distances,
    "distribution_focal": distribution,
}.items():
    put(f"{name}.value", losses[name])
    for level, gradient in enumerate(torch.autograd.grad(losses[name], maps, retain_graph=True)):
        put(f"{name}.grad.{level}", gradient)
for name, maps in [("class_logits", logits), ("distances", distances), ("distribution", distribution)]:
    for level, x in enumerate(maps):
        put(f"{name}.{level}", x)
start = 0
for places in per_level:
    assert positive[:, start : start + places].any(), "a level answers for nothing"
    start += places



def cheapest(gt, classes, logits, ways):
    """The box of each place by SimOTA (arXiv 2107.08430), or -1; a place answers for boxes that hold it or whose middle is near."""
    if not len(gt):
        return torch.full((len(points),), -1)
    x, y = points.T
    edges = torch.stack([x - gt[:, :1], y - gt[:, 1:2], gt[:, 2:3] - x, gt[:, 3:] - y])
    inside = edges.min(0).values > 0
    off = (points[None] - ((gt[:, :2] + gt[:, 2:]) / 2)[:, None]).abs().max(-1).values
    near = off < 2.5 * strides
    allowed = inside | near
    overlap = torch.where(allowed, box_iou(gt, torch.cat([points - ways[:, :2], points + ways[:, 2:]], 1)), 0.0)
    one = torch.nn.functional.one_hot(classes, CLASSES).double()[:, None].expand(-1, len(points), -1)
    scores = logits[None].expand(len(gt), -1, -1)
    cost = torch.nn.functional.binary_cross_entropy_with_logits(scores, one, reduction="none").sum(-1)
    cost = cost - 3 * (overlap + 1e-8).log() + 1e5 * ~(inside & near)
    cost = torch.where(allowed, cost, torch.inf)
    sums = overlap.topk(10, 1).values.sum(1)
    assert ((sums - sums.round()).abs() > 1e-4).all(), "a sum of overlaps at a whole number"
    chosen = torch.full_like(cost, torch.inf)
    for box, count in enumerate(sums.int().clamp(min=1).tolist()):
        best = cost[box].topk(count, largest=False).indices
        chosen[box, best] = cost[box, best]
    least = chosen.min(0)
    return torch.where(least.values.isfinite(), least.indices, -1)


simota = {"positive": torch.zeros(IMAGES, 1, len(points))}
simota |= {"one_hot": torch.zeros(IMAGES, CLASSES, len(points)), "target_distances": torch.zeros(IMAGES, 4, len(points))}
for image in range(IMAGES):
    gt, classes = tensors[f"boxes.{image}"].double(), tensors[f"classes.{image}"].long()
    found = cheapest(gt, classes, all_logits[image].detach().T, all_distances[image].detach().T)
    for place, box in enumerate(found.tolist()):
        if box >= 0:
            simota["positive"][image, 0, place] = 1
            simota["one_hot"][image, classes[box], place] = 1
            way = torch.cat([points[place] - gt[box, :2], gt[box, 2:] - points[place]])
            simota["target_distances"][image, :, place] = way
for name, x in simota.items():
    put(f"simota.{name}", x)
print("simota", int(simota["positive"].sum()), "places")

save_file(tensors, HERE / "gfl_loss.safetensors")
(HERE / "gfl_loss.safetensors").chmod(0o644)
print({name: float(value.detach()) for name, value in losses.items()}, count, float(total))
