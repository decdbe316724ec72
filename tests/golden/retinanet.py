"""Golden outputs of torchvision's RetinaNet for the Rust detectors (run with torch, torchvision, numpy and safetensors).

    python tests/golden/retinanet.py

Weights and images follow the rule of `nets.py`. Written are:

retinanet.safetensors   pyramids, head outputs and input gradients of narrow nets at an odd size; detections
retinanet_names.txt     of retinanet_resnet50_fpn and retinanet_resnet50_fpn_v2: parameters and multiply-adds, then names and
                        shapes of the state dict without the backbone's

Scores are [n, classes, h, w * anchors] and distances to the edges in pixels [n, 4, h, w * anchors], anchor by anchor at each point.
"""

import pathlib
from collections import OrderedDict
from functools import partial

import torch
import torch.nn as nn
from safetensors.torch import save_file
from torchvision.models.detection import retinanet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from nets import fill, listing, narrow, resnet_taps, values

HERE = pathlib.Path(__file__).parent
SIZE = (45, 61)
IMAGES = 2
CLASSES = 3
LEVELS = [3, 4, 5, 6, 7]
ANCHORS = 9


class Pyramid(nn.Module):
    """A ResNet with torchvision's feature pyramid over its stages c3 to c5."""

    def __init__(self, body, channels, on_c5):
        super().__init__()
        self.body, self.out_channels = body, channels
        with torch.no_grad():
            taps = resnet_taps(body.eval(), torch.zeros(1, 3, 32, 32))
        inputs = [taps[f"c{level}"].shape[1] for level in LEVELS[:3]]
        # It stands on p5 where both numbers of channels are the same.
        assert inputs[-1] != channels
        self.fpn = FeaturePyramidNetwork(inputs, channels, LastLevelP6P7(inputs[-1] if on_c5 else channels, channels))

    def forward(self, x):
        taps = resnet_taps(self.body, x)
        maps = self.fpn(OrderedDict((f"p{level}", taps[f"c{level}"]) for level in LEVELS[:3]))
        return OrderedDict(zip((f"p{level}" for level in LEVELS), maps.values()))


def detector(width, channels, groups, convs, on_c5):
    backbone = Pyramid(narrow("resnet18", width, 32), channels, on_c5)
    norm = partial(nn.GroupNorm, groups) if groups else None
    head = retinanet.RetinaNetHead(channels, ANCHORS, CLASSES, norm_layer=norm)
    for part in (head.classification_head, head.regression_head):
        part.conv = part.conv[:convs]
    return fill(retinanet.RetinaNet(backbone, CLASSES, anchor_generator=retinanet._default_anchorgen(), head=head)).eval()


def boxes_of_level(level, size, offset):
    """Anchors of the points at `offset` of their squares, and the points, each for each place."""
    stride = 2**level
    sizes = tuple(int(4 * stride * 2 ** (i / 3)) for i in range(3))
    generator = AnchorGenerator((sizes,), ((0.5, 1.0, 2.0),))
    anchors = generator.grid_anchors([size], [[torch.tensor(stride), torch.tensor(stride)]])[0] + offset * stride
    return anchors, (anchors[:, :2] + anchors[:, 2:]) / 2


def outputs(net, images, offset, heads=None):
    """By name: the pyramid and, per level, scores and distances. `heads` collects what postprocessing takes."""
    out = {}
    for level, (name, features) in zip(LEVELS, net.backbone(images).items()):
        n, _, height, width = features.shape
        logits, deltas = net.head.classification_head([features]), net.head.regression_head([features])
        anchors, point = boxes_of_level(level, (height, width), offset)
        boxes = torch.stack([net.box_coder.decode_single(of_image, anchors) for of_image in deltas])
        distances = torch.cat([point - boxes[..., :2], boxes[..., 2:] - point], -1)
        as_map = lambda x: x.permute(0, 2, 1).reshape(n, x.shape[2], height, width * ANCHORS)
        out[name] = features
        out[f"cls_logits.{name}"] = as_map(logits)
        out[f"distances.{name}"] = as_map(distances)
        if heads is not None:
            for key, x in (("cls_logits", logits), ("bbox_regression", deltas), ("anchors", anchors)):
                heads.setdefault(key, []).append(x.detach())
    return out


def detections(out, case, net, heads, score, iou, candidates, limit):
    anchors = heads["anchors"]
    net.score_thresh, net.nms_thresh, net.topk_candidates, net.detections_per_img = score, iou, candidates, 100_000
    found = net.postprocess_detections(heads, [anchors] * IMAGES, [SIZE] * IMAGES)
    for index, image in enumerate(found):
        boxes, scores = image["boxes"], image["scores"]
        # Rust leaves out boxes without area, which suppress nothing, before they take the places of others.
        solid = ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).nonzero()[:limit, 0]
        name = f"{case}/detections_{limit}.{index}"
        out[f"{name}.boxes"] = boxes[solid].contiguous()
        out[f"{name}.scores"] = scores[solid].contiguous()
        out[f"{name}.classes"] = image["labels"][solid].float().contiguous()
        gaps = scores[solid][:-1] - scores[solid][1:]
        print(name, len(solid), "of", len(boxes), "smallest gap", float(gaps.min()))


def record(out, case, net, offset):
    images = values("input", (IMAGES, 3, *SIZE)).requires_grad_(True)
    heads = {}
    found = outputs(net, images, offset, heads)
    total = sum((y * values(f"gradient.{name}", tuple(y.shape))).sum() for name, y in found.items())
    total.backward()
    for name, y in found.items():
        out[f"{case}/{name}"] = y.detach().contiguous().clone()
    out[f"{case}/input_gradient"] = images.grad.clone()
    detections(out, case, net, heads, 0.3, 0.5, 40, 1000)
    detections(out, case, net, heads, 0.05, 0.5, 1000, 20)


def names(build):
    net = build(weights=None, weights_backbone=None, num_classes=91).eval()
    total = 0

    def add(layer, _inputs, output):
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(add) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        net.head(list(net.backbone(torch.zeros(1, 3, 97, 129)).values()))
    for hook in hooks:
        hook.remove()
    counts = f"# 97 129 {sum(p.numel() for p in net.parameters())} {total}"
    return [counts, *(line for line in listing(net) if not line.startswith("backbone.body"))]


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    out = {}
    for case, net, offset in [
        ("plain_corner_p5", detector(4, 16, None, 2, False), 0.0),
        ("group_middle_c5", detector(4, 16, 2, 4, True), 0.5),
    ]:
        record(out, case, net, offset)
    save_file(out, HERE / "retinanet.safetensors")
    lines = names(retinanet.retinanet_resnet50_fpn) + names(retinanet.retinanet_resnet50_fpn_v2)
    (HERE / "retinanet_names.txt").write_text("\n".join(lines) + "\n")
    for path in HERE.glob("retinanet*"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
