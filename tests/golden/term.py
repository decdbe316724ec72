"""Writes term.safetensors and term.json: tensors for `mentor term`, and what PyTorch makes of them.

Run: python tests/golden/term.py
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(1)
n, k, h, w = 2, 5, 6, 7
tensors = {
    "student_logits": torch.randn(n, k, h, w) * 2,
    "teacher_logits": torch.randn(n, k, h, w) * 2,
    "student_feature": torch.randn(n, 8, 6, 8),
    "teacher_feature": torch.randn(n, 12, 6, 8),
    "target": torch.randint(0, k, (n, h, w)),
    "adapter": torch.randn(12, 8, 1, 1) / 3,
    "images": torch.randn(n, 3, 24, 28),
}
here = pathlib.Path(__file__).parent
save_file(tensors, here / "term.safetensors")

t = 2.0
student = F.log_softmax(tensors["student_logits"] / t, 1)
teacher = F.log_softmax(tensors["teacher_logits"] / t, 1)
value = (teacher.exp() * (teacher - student)).sum(1).mean() * t * t
cross_entropy = F.cross_entropy(tensors["student_logits"], tensors["target"])


def affinities(x):
    nodes = F.max_pool2d(x, (3, 4), (3, 4)).flatten(2)
    nodes = nodes / nodes.norm(dim=1, keepdim=True)
    return torch.einsum("ncm,nck->nmk", nodes, nodes)


adapted = F.conv2d(tensors["student_feature"], tensors["adapter"])
pair_wise = (affinities(tensors["teacher_feature"]) - affinities(adapted)).pow(2).mean()
values = {
    "pixel_wise_t2": value.item(),
    "cross_entropy": cross_entropy.item(),
    "pair_wise_adapted": pair_wise.item(),
}
(here / "term.json").write_text(json.dumps(values) + "\n")
