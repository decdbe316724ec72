"""Golden measures of pairs of boxes (run with torch, torchvision and safetensors).

    python tests/golden/overlap.py

torchvision's losses, in double precision over single-precision inputs. overlap.safetensors holds, all as f32: a, b [1,4,p], the ways
from a point, which may lie outside, to the edges of two boxes; {giou,diou,ciou}.value [p], .grad [1,4,p] of their sum to a
"""

import pathlib

import torch
from safetensors.torch import save_file
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

HERE = pathlib.Path(__file__).parent
COUNT = 64
random = torch.Generator().manual_seed(11)


def ways():
    """About a middle that lies up to 10 pixels from the point."""
    middle = torch.rand(COUNT, 2, generator=random) * 20 - 10
    half = torch.exp(torch.rand(COUNT, 2, generator=random) * 3) + 1
    return torch.cat([half - middle, half + middle], 1).float().double()


box = lambda ways: torch.cat([-ways[:, :2], ways[:, 2:]], 1)
a, b = ways().requires_grad_(), ways()
tensors = {"a": a.T[None], "b": b.T[None]}
for name, loss in [
    ("giou", generalized_box_iou_loss),
    ("diou", distance_box_iou_loss),
    ("ciou", complete_box_iou_loss),
]:
    value = loss(box(a), box(b))
    tensors[f"{name}.value"] = value
    tensors[f"{name}.grad"] = torch.autograd.grad(value.sum(), a)[0].T[None]
save_file({name: x.detach().float().contiguous() for name, x in tensors.items()}, HERE / "overlap.safetensors")
(HERE / "overlap.safetensors").chmod(0o644)
print(int((tensors["giou.value"] < 1).sum()), "of", COUNT, "pairs overlap much")
