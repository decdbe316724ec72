"""Golden values and gradients of the terms of [distill] of detection (run with torch, torchvision and safetensors).

    python tests/golden/det_distill.py

Written from the papers' formulas as each term's documentation has them, in double precision over single-precision inputs: none
of it is code of the papers' authors. One level, p3, of stride 8 with points in the middle of their squares, two images of 64x80,
anchors of 64x64, three classes, distributions of 5 bins.

det_distill.safetensors holds, all as f32: {student,teacher}.{features [2,4,8,10], class_logits [2,3,8,10],
distances [2,4,8,10], distribution [2,20,8,10]}; boxes.I [m,4], classes.I [m]; TERM.value, TERM.grad (of what the term compares);
TERM@p3.ADAPTER, the weights of adapters; crosskd.SIDE.NAME, those of heads of FCOS with two convolutions of 4 channels in a tower
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.ops import batched_nms, roi_align

HERE = pathlib.Path(__file__).parent
STRIDE, HEIGHT, WIDTH, CLASSES, BINS = 8, 8, 10, 3, 5
random = torch.Generator().manual_seed(7)
tensors = {}


def put(name, tensor):
    tensors[name] = tensor.detach().to(torch.float32).contiguous().reshape(tensor.shape or (1,))


def draw(channels):
    return torch.randn(2, channels, HEIGHT, WIDTH, generator=random)


def side(name):
    maps = {
        "features": draw(4),
        "class_logits": 2 * draw(CLASSES),
        "distances": draw(4).exp() * 12,
        "distribution": 2 * draw(4 * BINS),
    }
    for part, x in maps.items():
        put(f"{name}.{part}", x)
    return {part: x.double() for part, x in maps.items()}


def boxes(count):
    middle = torch.rand(count, 2, generator=random) * torch.tensor([WIDTH * STRIDE, HEIGHT * STRIDE])
    half = torch.exp(torch.rand(count, 2, generator=random) * 2 + 2.3) / 2
    limit = torch.tensor([WIDTH * STRIDE, HEIGHT * STRIDE] * 2)
    return torch.minimum(torch.cat([middle - half, middle + half], 1).clamp(min=0), limit).round(decimals=1).double()


student, teacher = side("student"), side("teacher")
objects = []
for image, count in enumerate([4, 2]):
    objects.append(boxes(count))
    put(f"boxes.{image}", objects[-1])
    put(f"classes.{image}", torch.randint(CLASSES, (count,), generator=random))

y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
x, y = (x * STRIDE).double(), (y * STRIDE).double()


def ways(box):
    return torch.stack([x - box[0], y - box[1], box[2] - x, box[3] - y])


# The assignment of FCOS on a single level: near the middle of an object, the smallest of several.
positive = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
target = torch.zeros(2, 4, HEIGHT, WIDTH, dtype=torch.float64)
for image in range(2):
    for box in sorted(objects[image], key=lambda box: -(box[2] - box[0]) * (box[3] - box[1])):
        to = ways(box)
        off = torch.maximum((to[0] - to[2]).abs(), (to[1] - to[3]).abs()) / 2
        answers = (to.min(0).values > 0) & (off < 1.5 * STRIDE)
        positive[image] |= answers
        target[image] = torch.where(answers, to, target[image])
assert positive[0].any() and positive[1].any()

# Boxes on the map, as the official code of FGD rounds them.
inside = torch.zeros(2, 1, HEIGHT, WIDTH, dtype=torch.float64)
scaled = inside.clone()
for image in range(2):
    for box in objects[image] / STRIDE:
        left, top, right, bottom = (int(v) for v in (*box[:2].floor(), *box[2:].ceil()))
        share = 1 / ((right + 1 - left) * (bottom + 1 - top))
        region = (image, 0, slice(top, bottom + 1), slice(left, right + 1))
        inside[region] = 1
        scaled[region] = scaled[region].clamp(min=share)
outside = 1 - inside


def standardised(x):
    mean = x.mean((0, 2, 3), keepdim=True)
    return (x - mean) / (x.std((0, 2, 3), keepdim=True, unbiased=False) + 1e-6)


def pkd(s, t):
    return F.mse_loss(standardised(s), standardised(t)) / 2


def fgd(s, t):
    def attention(f):
        places = F.softmax(f.abs().mean(1).flatten(1) / 0.5, 1).reshape(2, 1, HEIGHT, WIDTH) * HEIGHT * WIDTH
        return places, F.softmax(f.abs().mean((2, 3)) / 0.5, 1)[..., None, None] * f.shape[1]

    (places, channels), (own_places, own_channels) = attention(t), attention(s)
    square = (s - t) ** 2 * places * channels
    background = outside / outside.sum((2, 3), keepdim=True)
    off = (places - own_places).abs().sum() + (channels - own_channels).abs().sum()
    return (1e-3 * (square * scaled).sum() + 5e-4 * (square * background).sum() + 5e-4 * off) / 2


def weights(name, *shape):
    weight = torch.randn(*shape, generator=random) / 3
    put(name, weight)
    return weight.double()


def fgd_global(s, t):
    def with_whole(side, f):
        layer = lambda name, *shape: weights(f"fgd_global@p3.{side}.{name}", *shape, 1, 1)
        mask = F.softmax(F.conv2d(f, layer("mask", 1, 4)).flatten(1), 1)
        whole = torch.einsum("ncp,np->nc", f.flatten(2), mask)[..., None, None]
        inner = F.conv2d(whole, layer("reduce", 2, 4))
        inner = F.layer_norm(inner, inner.shape[1:], eps=1e-5).relu()
        return f + F.conv2d(inner, layer("expand", 4, 2))

    return fgd(s, t) + 0.01 * ((with_whole("student", s) - with_whole("teacher", t)) ** 2).sum() / 2


def mgd(s, t):
    first, last = (weights(f"mgd@p3.{name}", 4, 4, 3, 3) for name in ["first", "last"])
    made = F.conv2d(F.conv2d(s, first, padding=1).relu(), last, padding=1)
    return ((made - t) ** 2).sum() / 2


def defeat(s, t):
    square = ((s - t) ** 2).mean(1, keepdim=True)
    return 3 * (square * inside).sum() / (2 * inside.sum()) + 12 * (square * outside).sum() / (2 * outside.sum())


def hint(s, t):
    return F.mse_loss(s, t)


def weighted_cross_entropy(s, t):
    q = t.sigmoid()
    value = -(q * F.logsigmoid(s) + 1.5 * (1 - q) * F.logsigmoid(-s))
    return value.sum() / q.amax(1).sum().clamp(min=1)


def class_kd(s, t):
    q = t.sigmoid()
    value = (s.sigmoid() - q).abs() * F.binary_cross_entropy_with_logits(s, q, reduction="none")
    return value.sum() / q.amax(1).sum().clamp(min=1)


def adaptive(s, t):
    q = t.sigmoid()
    entropy = F.binary_cross_entropy(q, q, reduction="none")
    divergence = F.binary_cross_entropy_with_logits(s, q, reduction="none") - entropy
    weight = (1 - (-(divergence + entropy)).exp()) ** 2
    return (weight * divergence).sum() / (q**1.8).sum().clamp(min=1)


def dist(s, t):
    def correlation(a, b, dim):
        a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
        return (a * b).sum(dim) / (a.norm(dim=dim) * b.norm(dim=dim) + 1e-8)

    p, q = (x.sigmoid().permute(0, 2, 3, 1).flatten(0, 2) for x in (s, t))
    seen = q.amax(1)
    return 2 - (correlation(p, q, 1) * seen).sum() / seen.sum() - correlation(p, q, 0).mean()


def bounded_regression(s, t):
    error = lambda d: (((d - target) / 64) ** 2).sum(1)
    counts = positive & (error(s) + 0.01 > error(t))
    assert 0 < counts.sum() < positive.sum()
    return error(s)[counts].sum() / positive.sum()


def ld(s, t):
    split = lambda e: e.reshape(2, 4, BINS, HEIGHT, WIDTH)
    p, q = F.log_softmax(split(s) / 10, 2), F.log_softmax(split(t) / 10, 2)
    divergence = (q.exp() * (q - p)).sum(2).mean(1)
    valuable = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.float64)
    for image in range(2):
        for box in objects[image]:
            left, top, right, bottom = ways(box)
            reach = lambda a, b: (a.clamp(max=32) + b.clamp(max=32)).clamp(min=0)
            common = reach(left, right) * reach(top, bottom)
            iou = common / ((left + right) * (top + bottom) + 64**2 - common)
            off = ((left - right) ** 2 + (top - bottom) ** 2) / 4
            across, down = left.clamp(min=32) + right.clamp(min=32), top.clamp(min=32) + bottom.clamp(min=32)
            diou = iou - off / (across**2 + down**2)
            region = (diou >= 0.25 * 0.5) & (diou < 0.5)
            valuable[image] = torch.maximum(valuable[image], iou * region)
    valuable = valuable * ~positive
    assert valuable.sum() > 0
    answers = student["class_logits"].sigmoid().amax(1) * positive
    mean = lambda w: (divergence * w).sum() / w.sum()
    return 100 * (mean(answers) + mean(valuable))


HEADS = {}
for name in ["student", "teacher"]:
    HEADS[name] = {}
    for part, last, channels in [("classification", "cls_logits", CLASSES), ("regression", "bbox_reg", 4)]:
        at = lambda layer: f"head.{part}_head.{layer}"
        shapes = {at(f"conv.{i}.weight"): (4, 4, 3, 3) for i in (0, 3)} | {at(f"conv.{i}.bias"): (4,) for i in (0, 3)}
        shapes |= {at(f"conv.{i}.{vector}"): (4,) for i in (1, 4) for vector in ("gamma", "beta")}
        shapes |= {at(f"{last}.weight"): (channels, 4, 3, 3), at(f"{last}.bias"): (channels,)}
        for weight, shape in shapes.items():
            HEADS[name][weight] = weights(f"crosskd.{name}.{weight}", *shape)


def crosskd(part, last):
    """From the student's features to what the teacher's head makes of them, and what it says itself."""

    def partway(side, f):
        w = lambda name: HEADS[side][f"head.{part}_head.{name}"]
        return F.group_norm(F.conv2d(f, w("conv.0.weight"), w("conv.0.bias"), padding=1), 1, w("conv.1.gamma"), w("conv.1.beta"))

    def onward(f):
        w = lambda name: HEADS["teacher"][f"head.{part}_head.{name}"]
        f = F.conv2d(f.relu(), w("conv.3.weight"), w("conv.3.bias"), padding=1)
        f = F.group_norm(f, 1, w("conv.4.gamma"), w("conv.4.beta")).relu()
        return F.conv2d(f, w(f"{last}.weight"), w(f"{last}.bias"), padding=1)

    def value(s, t):
        own, other = partway("student", s), partway("teacher", t)
        deviation = other.std((0, 2, 3), keepdim=True, unbiased=False)
        return onward(standardised(own) * deviation + other.mean((0, 2, 3), keepdim=True)), onward(other)

    return value


def crosskd_classes(s, t):
    return class_kd(*crosskd("classification", "cls_logits")(s, t))


def crosskd_boxes(s, t):
    q = crosskd("classification", "cls_logits")(t, t)[1].sigmoid().amax(1)
    a, b = (x.relu() * STRIDE for x in crosskd("regression", "bbox_reg")(s, t))
    area = lambda d: (d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3])
    common, enclosing = area(torch.minimum(a, b)), area(torch.maximum(a, b))
    union = area(a) + area(b) - common
    giou = common / (union + 1e-7) - (enclosing - union) / (enclosing + 1e-7)
    return ((1 - giou) * q * (area(b) > 0)).sum() / q.sum().clamp(min=1)


def mimic(s, t):
    regions = []
    for image in range(2):
        ways, logits = student["distances"][image], student["class_logits"][image]
        found = torch.stack([x - ways[0], y - ways[1], x + ways[2], y + ways[3]], -1).reshape(-1, 4)
        found = torch.minimum(found.clamp(min=0), torch.tensor([WIDTH * STRIDE, HEIGHT * STRIDE] * 2))
        scores, classes = logits.flatten(1).max(0)
        regions.append(torch.cat([found[batched_nms(found, scores, classes, 0.3)[:5]], objects[image]]))
    pool = lambda features: roi_align(features, regions, 3, 1 / STRIDE, 2)
    return ((pool(s) - pool(t)) ** 2).mean((1, 2, 3)).mean() / 2


TERMS = {
    "features": [pkd, fgd, fgd_global, mgd, defeat, hint, mimic, crosskd_classes, crosskd_boxes],
    "class_logits": [weighted_cross_entropy, class_kd, adaptive, dist],
    "distances": [bounded_regression],
    "distribution": [ld],
}
for part, terms in TERMS.items():
    for term in terms:
        leaf = student[part].clone().requires_grad_()
        value = term(leaf, teacher[part])
        put(f"{term.__name__}.value", value)
        put(f"{term.__name__}.grad", torch.autograd.grad(value, leaf)[0])
        print(term.__name__, float(value.detach()))

save_file(tensors, HERE / "det_distill.safetensors")
