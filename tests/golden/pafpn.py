"""Golden outputs of a detector with PANet's second path for the Rust nets (run with torch, torchvision, numpy and safetensors).

    python tests/golden/pafpn.py

Written from section 3.1 of arXiv 1803.01534: N2 = P2, and N(i+1) = relu(conv(P(i+1) + relu(down(N(i))))), 3x3 convolutions, the
one that goes down of stride 2. Weights and images follow the rule of `nets.py`. Written is:

pafpn.safetensors       pyramids, head outputs and input gradients of a narrow net at an odd size
"""

import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from fcos import HERE, SIZE, detector, outputs
from nets import fill, record


class Step(nn.Module):
    """From one level to the next coarser one."""

    def __init__(self, channels):
        super().__init__()
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)


class BothWays(FeaturePyramidNetwork):
    """torchvision's pyramid, and the second path before the levels above all stages."""

    def __init__(self, inputs, channels, extra):
        super().__init__(inputs, channels)
        self.bottom_up = nn.ModuleList([Step(channels) for _ in inputs[1:]])
        if extra:
            self.extra_blocks = LastLevelP6P7(channels, channels)

    def forward(self, stages):
        extra, self.extra_blocks = self.extra_blocks, None
        maps = list(super().forward(stages).values())
        self.extra_blocks = extra
        for index, step in enumerate(self.bottom_up):
            maps[index + 1] = F.relu(step.out(maps[index + 1] + F.relu(step.down(maps[index]))))
        names = list(stages)
        if extra is not None:
            maps, names = extra(maps, [None] * len(maps), names)
        return dict(zip(names, maps))


def case(out, name, kind, width, levels, channels, groups, convs):
    net = detector(kind, width, levels, channels, groups, convs)
    plain = net.backbone.fpn
    inputs = [block[0].in_channels for block in plain.inner_blocks]
    net.backbone.fpn = BothWays(inputs, channels, plain.extra_blocks is not None)
    net = fill(net).eval()
    record(out, name, lambda x: outputs(net, x), size=SIZE, batch=2)


if __name__ == "__main__":
    out = {}
    case(out, "resnet18_p3_p7", "resnet18", 4, [3, 4, 5, 6, 7], 16, 2, 1)
    save_file(out, HERE / "pafpn.safetensors")
