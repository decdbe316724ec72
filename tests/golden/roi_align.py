"""Golden regions and gradients of torchvision's RoIAlign (run with torch, torchvision and safetensors).

    python tests/golden/roi_align.py

roi_align.safetensors holds, all as f32:
p2 [2,3,23,31], p3 [2,3,12,16], p4 [2,3,6,8]: maps of images of 91x122 pixels
boxes [2,6,4]: left, top, right, bottom in pixels; some partly or wholly outside, one empty, one tiny
BINS.SAMPLES.ALIGNED.value [2,6,3,BINS,BINS], .grad: of p2 alone, and the gradient there of the sum of values times weights
levels.value [2,6,3,7,7], levels.grad.L: of MultiScaleRoIAlign over all maps with 2 samples, as torchvision's detectors have it,
with boxes four times as large
weights.BINS [2,6,3,BINS,BINS]
"""

import pathlib
from collections import OrderedDict

import torch
from safetensors.torch import save_file
from torchvision.ops import MultiScaleRoIAlign, roi_align

HERE = pathlib.Path(__file__).parent
random = torch.Generator().manual_seed(11)
SIZES = {"p2": (23, 31), "p3": (12, 16), "p4": (6, 8)}
BOXES = [
    [[3, 5, 60, 44], [-20.5, -9, 15, 30], [100, 70, 140, 120], [40, 40, 40.2, 40.1], [10, 10, 10, 10], [0, 0, 122, 91]],
    [[300, 20, 330, 40], [17.3, 2.1, 19.9, 88.8], [1, 60, 121, 66], [-50, -50, 170, 140], [64, 32, 80, 48], [7, 7, 30, 9]],
]
out = {name: torch.randn(2, 3, *size, generator=random) for name, size in SIZES.items()}
out["boxes"] = torch.tensor(BOXES)
for bins in (2, 7):
    out[f"weights.{bins}"] = torch.randn(2, 6, 3, bins, bins, generator=random)


def record(name, bins, maps, pooled):
    pooled = pooled.reshape(2, 6, 3, bins, bins)
    gradients = torch.autograd.grad((pooled * out[f"weights.{bins}"]).sum(), maps)
    out[f"{name}.value"] = pooled.detach().contiguous()
    for index, gradient in enumerate(gradients):
        out[f"{name}.grad.{index}" if len(maps) > 1 else f"{name}.grad"] = gradient.contiguous()


leaf = lambda name: out[name].clone().requires_grad_()
for bins, samples, aligned in [(7, 2, False), (7, 2, True), (2, 1, False), (2, 3, True)]:
    x = leaf("p2")
    pooled = roi_align(x, list(out["boxes"]), bins, 0.25, samples, aligned)
    record(f"{bins}.{samples}.{int(aligned)}", bins, [x], pooled)
maps = OrderedDict((name, leaf(name)) for name in SIZES)
pool = MultiScaleRoIAlign(list(SIZES), 7, 2)
record("levels", 7, list(maps.values()), pool(maps, list(out["boxes"] * 4), [(91, 122)] * 2))
print("scales", pool.scales, "levels", pool.map_levels(list(out["boxes"] * 4)).tolist())
save_file(out, HERE / "roi_align.safetensors")
(HERE / "roi_align.safetensors").chmod(0o644)
