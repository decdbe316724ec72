"""Labels alone, and FixMatch, in PyTorch: the plainest test of ours. Same data, steps, views, net, start and schedule.

    python benchmarks/peer/unlabelled.py FOLDER --row fixmatch --seed 0

FOLDER is a drawn set of scenes (`mentor scenes --out FOLDER`, or the one that a run names). Prints the mean IoU on val of the
student and, where there is one, of its moving average, in per cent. Needs torch and torchvision; see benchmarks/README.md.
"""

import argparse
import copy
import math
import os
import random

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from losses import IGNORE
from nets import Backbone, conv_norm, optimizer

CLASSES = 7
MEAN, DEVIATION = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


class Fcn(nn.Module):
    """ResNet-18 and torchvision's FCN head, started as torchvision starts them."""

    def __init__(self, width, output_stride):
        super().__init__()
        self.backbone = Backbone([2, 2, 2, 2], False, width, output_stride)
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        channels = self.backbone.channels // 4
        self.head = nn.Sequential(
            conv_norm(self.backbone.channels, channels, 3, activation=nn.ReLU()), nn.Conv2d(channels, CLASSES, 1)
        )

    def forward(self, images):
        """Scores at the size of the images, which are bytes."""
        scores = self.head(self.backbone((images.float() / 255 - MEAN) / DEVIATION))
        return F.interpolate(scores, size=images.shape[2:], mode="bilinear", align_corners=False)


class Stream:
    """The images of a split in a new random order each time around, as crops."""

    def __init__(self, folder, split, crop, scale):
        self.pairs, self.crop, self.scale, self.order = read(folder, split), crop, scale, []

    def batch(self, size):
        if len(self.order) < size:
            self.order += random.sample(range(len(self.pairs)), len(self.pairs))
        taken, self.order = self.order[:size], self.order[size:]
        views = [self.view(*self.pairs[index]) for index in taken]
        return torch.stack([image for image, _ in views]), torch.stack([labels for _, labels in views])

    def view(self, image, labels):
        """A crop at a random place of the image at a random size, mirrored half of the time."""
        side = round(self.crop / random.uniform(*self.scale))
        top, left = (round((length - side) * random.random()) for length in image.shape[1:])
        part = (top, left, side, side, (self.crop, self.crop))
        image = V.resized_crop(image, *part, antialias=True)
        labels = V.resized_crop(labels, *part, interpolation=V.InterpolationMode.NEAREST)
        if random.random() < 0.5:
            image, labels = V.horizontal_flip(image), V.horizontal_flip(labels)
        return image, labels.squeeze(0).long()


def listed(folder, split):
    with open(os.path.join(folder, split.split("_")[0], f"{split}.txt")) as lines:
        return [line.split()[:2] for line in lines if line.strip()]


def read(folder, split):
    """Images and labels of a split; of `X_rest` those of the whole part that are not in `X`."""
    names = listed(folder, split.removesuffix("_rest"))
    if split.endswith("_rest"):
        names = [name for name in listed(folder, split.split("_")[0]) if name not in names]
    path = lambda name: os.path.join(folder, name)
    return [(decode_image(path(a), ImageReadMode.RGB), decode_image(path(b))) for a, b in names]


def strong_view(args):
    steps = [v2.RandomApply([v2.ColorJitter(args.jitter, args.jitter, args.jitter, args.hue)], p=0.8)]
    steps += [v2.RandomGrayscale(args.grey), v2.RandomApply([v2.GaussianBlur(9, (0.1, 2.0))], p=args.blur)]
    return v2.Compose(steps)


def box(crop):
    """Where CutMix pastes: 2 to 40 per cent of the view, 0.3 to 3.3 times as high as wide."""
    area, ratio = random.uniform(0.02, 0.4) * crop * crop, random.uniform(0.3, 3.3)
    rows, columns = min(round(math.sqrt(area * ratio)), crop), min(round(math.sqrt(area / ratio)), crop)
    top, left = random.randint(0, crop - rows), random.randint(0, crop - columns)
    return slice(top, top + rows), slice(left, left + columns)


def cutmix(strong, labels, sure):
    """Half of the samples get a box of another one's image, with its pseudo-labels."""
    ahead = random.randint(1, len(strong) - 1)
    before = strong.clone(), labels.clone(), sure.clone()
    for sample in range(len(strong)):
        if random.random() < 0.5:
            rows, columns = box(strong.shape[-1])
            for values, old in zip((strong, labels, sure), before):
                values[sample, ..., rows, columns] = old[(sample + ahead) % len(strong), ..., rows, columns]


def fixmatch(student, labeller, weak, colours, threshold, class_weights):
    """The weighted mean over all pixels of the cross-entropy with pseudo-labels, of which only the sure ones add."""
    with torch.no_grad():
        was_training = labeller.training
        confidence, labels = labeller.eval()(weak).softmax(1).max(1)
        labeller.train(was_training)
    strong = torch.stack([colours(image) for image in weak])
    sure = (confidence >= threshold).float()
    cutmix(strong, labels, sure)
    weights = class_weights[labels]
    return (F.cross_entropy(student(strong), labels, reduction="none") * sure * weights).sum() / weights.sum()


def miou(net, pairs):
    net.eval()
    counts = torch.zeros(CLASSES * CLASSES, dtype=torch.long)
    with torch.inference_mode():
        for image, labels in pairs:
            labels = labels.squeeze(0).long()
            pairs_seen = (labels * CLASSES + net(image[None]).argmax(1)[0])[labels != IGNORE]
            counts += torch.bincount(pairs_seen, minlength=counts.numel())
    counts = counts.view(CLASSES, CLASSES).double()
    both = counts.diag()
    return 100 * (both / (counts.sum(0) + counts.sum(1) - both)).mean().item()


def train(args):
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    student = Fcn(args.width, 8).train()
    average = copy.deepcopy(student).eval().requires_grad_(False)
    labelled = Stream(args.folder, args.labelled, 96, (0.8, 1.25))
    unlabelled = Stream(args.folder, args.unlabelled, 96, (0.8, 1.25)) if args.row == "fixmatch" else None
    class_weights = torch.tensor(args.class_weights)
    sgd, colours = optimizer(student, args.lr, 0.9, 5e-4), strong_view(args)
    for step in range(args.steps):
        # Poly, over a linear warm-up.
        rate = args.lr * (1 - step / args.steps) ** 0.9 * min((step + 1) / 20, 1)
        for group in sgd.param_groups:
            group["lr"] = rate
        images, labels = labelled.batch(8)
        total = F.cross_entropy(student(images), labels, class_weights, ignore_index=IGNORE)
        if unlabelled:
            ramp = math.exp(-5 * (1 - min((step + 1) / max(args.ramp, 1), 1)) ** 2)
            labeller = average if args.ema else student
            weak = unlabelled.batch(8)[0]
            total = total + args.weight * ramp * fixmatch(
                student, labeller, weak, colours, args.threshold, class_weights
            )
        sgd.zero_grad()
        total.backward()
        sgd.step()
        move(average, student, min(args.ema or 0.99, 1 - 1 / (step + 2)))
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: loss {total.item():.4f}", flush=True)
    return student, average


@torch.no_grad()
def move(average, student, decay):
    both = [(average.parameters(), student.parameters()), (average.buffers(), student.buffers())]
    for mean, value in (pair for mine, theirs in both for pair in zip(mine, theirs)):
        mean.lerp_(value, 1 - decay) if mean.is_floating_point() else mean.copy_(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--row", choices=["labels_alone", "fixmatch"], required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--labelled", default="train_1_64")
    parser.add_argument("--unlabelled", default="train_1_64_rest")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--ramp", type=int, default=500)
    parser.add_argument("--ema", type=float, default=0.99, help="label by the average, with this decay; 0: by the student")
    parser.add_argument("--class-weights", type=float, nargs=CLASSES, default=[0.7, 1.0, 1.2, 1.3, 1.1, 2.5, 3.5])
    parser.add_argument("--jitter", type=float, default=0.1)
    parser.add_argument("--hue", type=float, default=0.01)
    parser.add_argument("--grey", type=float, default=0.0)
    parser.add_argument("--blur", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    student, average = train(args)
    pairs = read(args.folder, "val")
    print(f"{args.row} seed {args.seed}: student {miou(student, pairs):.2f}, average {miou(average, pairs):.2f}")


if __name__ == "__main__":
    main()
