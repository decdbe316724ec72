"""Golden outputs of torchvision's FCOS for the Rust detectors (run with torch, torchvision, numpy and safetensors).

    python tests/golden/fcos.py

Weights and images follow the rule of `nets.py`. Written are:

fcos.safetensors        pyramids, head outputs and input gradients of narrow nets at an odd size; detections; kept boxes
fcos_names.txt          names and shapes of the state dict of fcos_resnet50_fpn, its parameters and multiply-adds
"""

import pathlib
from collections import OrderedDict
from functools import partial

import torch
import torch.nn as nn
from safetensors.torch import save_file
from torchvision.models.detection import fcos
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import batched_nms, nms
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from nets import fill, listing, narrow, record, resnet_taps, uniform

HERE = pathlib.Path(__file__).parent
SIZE = (67, 93)
CLASSES = 5


class Pyramid(nn.Module):
    """A ResNet with torchvision's feature pyramid over its stages."""

    def __init__(self, body, levels, channels):
        super().__init__()
        self.body, self.levels, self.out_channels = body, levels, channels
        self.stages = [level for level in levels if level <= 5]
        with torch.no_grad():
            taps = resnet_taps(body.eval(), torch.zeros(1, 3, 32, 32))
        inputs = [taps[f"c{level}"].shape[1] for level in self.stages]
        extra = LastLevelP6P7(channels, channels) if levels[-1] == 7 else None
        self.fpn = FeaturePyramidNetwork(inputs, channels, extra)

    def forward(self, x):
        taps = resnet_taps(self.body, x)
        maps = self.fpn(OrderedDict((f"p{level}", taps[f"c{level}"]) for level in self.stages))
        return OrderedDict(zip((f"p{level}" for level in self.levels), maps.values()))


def detector(kind, width, levels, channels, groups, convs):
    backbone = Pyramid(narrow(kind, width, 32), levels, channels)
    # With 32 channels, which its 32 groups divide; both of its parts are replaced.
    head = fcos.FCOSHead(32, 1, CLASSES, convs)
    norm = partial(nn.GroupNorm, groups)
    head.classification_head = fcos.FCOSClassificationHead(channels, 1, CLASSES, convs, norm_layer=norm)
    head.regression_head = fcos.FCOSRegressionHead(channels, 1, convs, norm_layer=norm)
    anchors = AnchorGenerator(tuple((2**level,) for level in levels), ((1.0,),) * len(levels))
    return fill(fcos.FCOS(backbone, CLASSES, anchor_generator=anchors, head=head)).eval()


def outputs(net, images):
    """By name: the pyramid and, per level, scores, distances in pixels and centerness as maps."""
    out = {}
    for level, (name, features) in zip(net.backbone.levels, net.backbone(images).items()):
        n, _, height, width = features.shape
        as_map = lambda x: x.reshape(n, height, width, -1).permute(0, 3, 1, 2)
        distances, centerness = net.head.regression_head([features])
        out[name] = features
        out[f"cls_logits.{name}"] = as_map(net.head.classification_head([features]))
        out[f"distances.{name}"] = as_map(distances) * 2**level
        out[f"centerness.{name}"] = as_map(centerness)
    return out


def as_rows(x):
    n, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, height * width, channels)


def squares(stride, height, width):
    """Anchors as large as the stride, around the points of a level. Those of torchvision's generator lie half a stride before."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = torch.stack([x, y, x, y], -1).reshape(-1, 4) * float(stride) + 0.5 * stride
    return centre + 0.5 * stride * torch.tensor([-1.0, -1.0, 1.0, 1.0])


def detections(out, case, net, score, iou, candidates, limit):
    """What torchvision finds in what the case holds, so that both sides start from the same numbers."""
    names = [f"p{level}" for level in net.backbone.levels]
    maps = {key: [out[f"{case}/{key}.{name}"] for name in names] for key in ("cls_logits", "distances", "centerness")}
    strides = [2**level for level in net.backbone.levels]
    anchors = [squares(s, *m.shape[2:]) for s, m in zip(strides, maps["cls_logits"])]
    heads = {
        "cls_logits": [as_rows(m) for m in maps["cls_logits"]],
        "bbox_regression": [as_rows(m) / s for s, m in zip(strides, maps["distances"])],
        "bbox_ctrness": [as_rows(m) for m in maps["centerness"]],
    }
    net.score_thresh, net.nms_thresh, net.topk_candidates, net.detections_per_img = score, iou, candidates, 100_000
    images = heads["cls_logits"][0].shape[0]
    found = net.postprocess_detections(heads, [anchors] * images, [SIZE] * images)
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


def kept(out):
    """What torchvision's suppression keeps of random boxes: many overlap, some are equal, some scores are."""
    count = 400
    u = torch.from_numpy(uniform("boxes", 6 * count)).float().reshape(6, count)
    corner, side = 60 * u[:2], 4 + 24 * u[2:4]
    boxes = torch.cat([corner, corner + side]).T.contiguous()
    boxes[::17] = boxes[0]
    scores = (u[4] * 50).floor() / 50
    classes = (u[5] * 4).floor().long()
    out["nms/boxes"], out["nms/scores"], out["nms/classes"] = boxes, scores, classes.float()
    for iou in (0.3, 0.5, 0.6):
        out[f"nms/one_class.{iou}"] = nms(boxes, scores, iou).float()
        out[f"nms/by_class.{iou}"] = batched_nms(boxes, scores, classes, iou).float()
        print(iou, len(out[f"nms/one_class.{iou}"]), len(out[f"nms/by_class.{iou}"]), "of", count)


def names():
    net = fcos.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).eval()
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
    return "\n".join([counts, *listing(net)]) + "\n"


def main():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    out = {}
    for case, net in {
        "resnet18_p3_p7": detector("resnet18", 8, [3, 4, 5, 6, 7], 32, 4, 2),
        "resnet18_p2_p5": detector("resnet18", 4, [2, 3, 4, 5], 24, 3, 1),
        "resnet50_p3_p7": detector("resnet50", 4, [3, 4, 5, 6, 7], 16, 2, 4),
    }.items():
        record(out, case, lambda images: outputs(net, images), size=SIZE, batch=2)
        detections(out, case, net, 0.3, 0.6, 40, 1000)
        detections(out, case, net, 0.05, 0.5, 1000, 20)
    kept(out)
    save_file(out, HERE / "fcos.safetensors")
    (HERE / "fcos_names.txt").write_text(names())
    for path in HERE.glob("fcos*"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
