"""Golden outputs, proposals, detections and losses of torchvision's Faster R-CNN (run with torch, torchvision, numpy and safetensors).

    python tests/golden/faster_rcnn.py

Weights and images follow the rule of `nets.py`. Written are:

faster_rcnn.safetensors   CASE/NAME: pyramids, outputs of the first stage, those of the second for `CASE/boxes` [n,r,4], and input
                          gradients, of a narrow net at an odd size; CASE/proposals.LIMIT.I [r,4] and CASE/detections.I.{boxes,
                          scores,classes} of these outputs;
                          loss/...: inputs, values and gradients of the four losses
faster_rcnn_names.txt     of fasterrcnn_resnet50_fpn: parameters, then names and shapes of the state dict without the backbone's body

Scores of the first stage are [n, 1, h, w * anchors], distances to the edges in pixels [n, 4, h, w * anchors], anchor by anchor at each
point; of the second [n, r, 1 + classes, 1] and [n, r, classes, 4].
"""

import pathlib
from collections import OrderedDict

import torch
import torch.nn as nn
from safetensors.torch import save_file
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from nets import fill, listing, narrow, resnet_taps, values

HERE = pathlib.Path(__file__).parent
SIZE = (67, 93)
IMAGES = 2
CLASSES = 3
LEVELS = [2, 3, 4, 5, 6]
ANCHORS = 3
NAMES = [f"p{level}" for level in LEVELS]


class Pyramid(nn.Module):
    """A ResNet with torchvision's feature pyramid over its stages c2 to c5, and every second value of the last."""

    def __init__(self, body, channels):
        super().__init__()
        self.body, self.out_channels = body, channels
        with torch.no_grad():
            taps = resnet_taps(body.eval(), torch.zeros(1, 3, 32, 32))
        inputs = [taps[f"c{level}"].shape[1] for level in LEVELS[:4]]
        self.fpn = FeaturePyramidNetwork(inputs, channels, LastLevelMaxPool())

    def forward(self, x):
        taps = resnet_taps(self.body, x)
        maps = self.fpn(OrderedDict((f"p{level}", taps[f"c{level}"]) for level in LEVELS[:4]))
        return OrderedDict(zip(NAMES, maps.values()))


def detector(width, channels, region_width):
    sizes = tuple((8 * 2**level,) for level in LEVELS)
    net = FasterRCNN(
        Pyramid(narrow("resnet18", width, 32), channels),
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(LEVELS)),
        box_roi_pool=MultiScaleRoIAlign(NAMES[:4], 7, 2),
        box_head=TwoMLPHead(channels * 49, region_width),
        box_predictor=FastRCNNPredictor(region_width, CLASSES + 1),
    )
    return fill(net).eval()


def anchors_of(level, size, offset):
    generator = AnchorGenerator(((8 * 2**level,),), ((0.5, 1.0, 2.0),))
    stride = torch.tensor(2**level)
    anchors = generator.grid_anchors([size], [[stride, stride]])[0] + offset * 2**level
    return anchors, (anchors[:, :2] + anchors[:, 2:]) / 2


def boxes_of_rule(name, count):
    """Boxes inside and beyond the image."""
    u = values(name, (IMAGES, count, 4)) * 2.5 + 0.5
    height, width = SIZE
    x, y = u[..., 0] * width, u[..., 1] * height
    w, h = 4 + u[..., 2].abs() * 70, 4 + u[..., 3].abs() * 50
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).detach()


def second(net, features, boxes):
    pooled = net.roi_heads.box_roi_pool(features, boxes, [SIZE] * IMAGES)
    logits, deltas = net.roi_heads.box_predictor(net.roi_heads.box_head(pooled))
    count = boxes[0].shape[0]
    return {
        "class_logits": logits.reshape(IMAGES, count, CLASSES + 1, 1),
        "deltas": deltas.reshape(IMAGES, count, CLASSES + 1, 4)[:, :, 1:],
    }


def record(out, case, net, offset):
    images = values("input", (IMAGES, 3, *SIZE)).requires_grad_(True)
    features = net.backbone(images)
    objectness, regression = net.rpn.head(list(features.values()))
    found, flat = {}, {"scores": [], "boxes": []}
    for level, name, logits, deltas in zip(LEVELS, NAMES, objectness, regression):
        n, _, height, width = logits.shape
        anchors, point = anchors_of(level, (height, width), offset)
        rows = lambda x, c: x.view(n, ANCHORS, c, height, width).permute(0, 3, 4, 1, 2).reshape(n, -1, c)
        scores, deltas = rows(logits, 1), rows(deltas, 4)
        boxes = torch.stack([net.rpn.box_coder.decode_single(of_image, anchors) for of_image in deltas])
        distances = torch.cat([point - boxes[..., :2], boxes[..., 2:] - point], -1)
        as_map = lambda x: x.permute(0, 2, 1).reshape(n, x.shape[2], height, width * ANCHORS)
        found[name] = features[name]
        found[f"cls_logits.{name}"] = as_map(scores)
        found[f"distances.{name}"] = as_map(distances)
        flat["scores"].append(scores.detach())
        flat["boxes"].append(boxes.detach())
    boxes = boxes_of_rule("boxes", 7)
    out[f"{case}/boxes"] = boxes
    of_regions = second(net, features, list(boxes))
    found |= of_regions
    total = sum((y * values(f"gradient.{name}", tuple(y.shape))).sum() for name, y in found.items())
    total.backward()
    for name, y in found.items():
        out[f"{case}/{name}"] = y.detach().contiguous().clone()
    out[f"{case}/input_gradient"] = images.grad.clone()

    counts = [x.shape[1] for x in flat["scores"]]
    for candidates, limit in [(1000, 1000), (60, 15)]:
        net.rpn._pre_nms_top_n = {"training": candidates, "testing": candidates}
        net.rpn._post_nms_top_n = {"training": limit, "testing": limit}
        kept, _ = net.rpn.filter_proposals(torch.cat(flat["boxes"], 1), torch.cat(flat["scores"], 1), [SIZE] * IMAGES, counts)
        for image, boxes in enumerate(kept):
            out[f"{case}/proposals.{limit}.{image}"] = boxes.contiguous()
            print(case, "proposals", limit, len(boxes), "of", sum(counts))
    detections(out, case, net, of_regions)


def detections(out, case, net, of_regions):
    heads = net.roi_heads
    heads.score_thresh, heads.nms_thresh, heads.detections_per_img = 0.05, 0.5, 12
    logits = of_regions["class_logits"].detach().reshape(-1, CLASSES + 1)
    deltas = of_regions["deltas"].detach()
    deltas = torch.cat([torch.zeros_like(deltas[:, :, :1]), deltas], 2).reshape(len(logits), -1)
    found = heads.postprocess_detections(logits, deltas, list(out[f"{case}/boxes"]), [SIZE] * IMAGES)
    for image, (boxes, scores, labels) in enumerate(zip(*found)):
        name = f"{case}/detections.{image}"
        out[f"{name}.boxes"], out[f"{name}.scores"] = boxes.contiguous(), scores.contiguous()
        out[f"{name}.classes"] = (labels - 1).float().contiguous()
        print(name, len(boxes), "smallest gap", float((scores[:-1] - scores[1:]).min()))


def losses(out):
    """Of random outputs, targets and draws, in double precision over single-precision inputs."""
    random = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=random)
    put = lambda name, x: out.__setitem__(f"loss/{name}", x.detach().float().contiguous().reshape(x.shape or (1,)))
    net = detector(4, 16, 8)
    places, regions = 40, 24
    labels = torch.where(torch.rand(IMAGES, places, generator=random) < 0.3, 1.0, 0.0)
    taken = torch.rand(IMAGES, places, generator=random) < 0.6
    logits = draw(IMAGES, places).double().requires_grad_()
    deltas, own = (0.5 * draw(IMAGES, places, 4)).double().requires_grad_(), (0.5 * draw(IMAGES, places, 4)).double()
    sampler = lambda _: ([(t & (l == 1)).long() for t, l in zip(taken, labels)], [(t & (l == 0)).long() for t, l in zip(taken, labels)])
    net.rpn.fg_bg_sampler = sampler
    objectness, boxes = net.rpn.compute_loss(logits.reshape(-1, 1), deltas.reshape(-1, 4), list(labels), list(own))
    for name, x in [("objects", labels), ("anchors_drawn", taken.float()), ("logits", logits), ("deltas", deltas), ("own", own)]:
        put(name, x)
    for name, value, leaf in [("rpn_objectness", objectness, logits), ("rpn_boxes", boxes, deltas)]:
        put(f"{name}.value", value)
        put(f"{name}.grad", torch.autograd.grad(value, leaf, retain_graph=True)[0])

    classes = [torch.randint(0, CLASSES + 1, (regions,), generator=random) for _ in range(IMAGES)]
    logits = draw(IMAGES, regions, CLASSES + 1).double().requires_grad_()
    deltas = draw(IMAGES, regions, CLASSES + 1, 4).double().requires_grad_()
    own = [draw(regions, 4).double() for _ in range(IMAGES)]
    of_class, of_box = fastrcnn_loss(logits.flatten(0, 1), deltas.flatten(0, 1).flatten(1), classes, own)
    for name, x in [("classes", torch.stack(classes).float()), ("region_logits", logits), ("region_deltas", deltas[:, :, 1:]), ("region_own", torch.stack(own))]:
        put(name, x)
    put("region_classes.value", of_class)
    put("region_classes.grad", torch.autograd.grad(of_class, logits, retain_graph=True)[0])
    put("region_boxes.value", of_box)
    put("region_boxes.grad", torch.autograd.grad(of_box, deltas)[0][:, :, 1:])
    print("losses", [float(x.detach()) for x in (objectness, boxes, of_class, of_box)])


def names():
    net = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    lines = [line for line in listing(net) if not line.startswith("backbone.body")]
    return [f"# {sum(p.numel() for p in net.parameters())}", *lines]


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    out = {}
    for case, offset in [("corner", 0.0), ("middle", 0.5)]:
        record(out, case, detector(4, 16, 24), offset)
    losses(out)
    save_file(out, HERE / "faster_rcnn.safetensors")
    (HERE / "faster_rcnn_names.txt").write_text("\n".join(names()) + "\n")
    for path in HERE.glob("faster_rcnn*"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
