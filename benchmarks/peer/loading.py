"""Reading, cutting and colouring images into batches with torchvision; what differs from ours stands in src/data.rs."""

import os
import random

import torch

IGNORE = 255


class Crops(torch.utils.data.Dataset):
    def __init__(self, spec):
        from torchvision.transforms import v2

        self.spec, folder = spec, spec["folder"]
        with open(os.path.join(folder, "train", "train.txt")) as lines:
            pairs = [line.split() for line in lines if line.strip()]
        self.pairs = [tuple(os.path.join(folder, name) for name in pair) for pair in pairs]
        jitter = v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25)
        self.colours = v2.RandomApply([jitter], p=0.8)
        # Filled before the workers are forked, which then share it.
        self.cache = [self.decode(*pair) for pair in self.pairs] if spec["cache"] else None

    @staticmethod
    def decode(image, labels):
        from torchvision.io import ImageReadMode, decode_image, decode_jpeg, read_file

        return decode_jpeg(read_file(image), mode=ImageReadMode.RGB), decode_image(read_file(labels))

    def __len__(self):
        return self.spec["batches"] * self.spec["batch"]

    def __getitem__(self, index):
        from torchvision.transforms.v2 import functional as V

        index %= len(self.pairs)
        image, labels = self.cache[index] if self.cache else self.decode(*self.pairs[index])
        height, width = self.spec["crop"]
        factor = random.uniform(*self.spec["scale"])
        # The part of the image that the crop shows, so that nothing else is resized.
        rows, columns = max(round(height / factor), 1), max(round(width / factor), 1)
        top = round((image.shape[1] - rows) * random.random())
        left = round((image.shape[2] - columns) * random.random())
        part = (top, left, rows, columns, (height, width))
        image = V.resized_crop(image, *part, antialias=True)
        # Padding is 0, so labels are moved up by one for the while: ignored is 255 and wraps around.
        labels = V.resized_crop(labels + 1, *part, interpolation=V.InterpolationMode.NEAREST) - 1
        if random.random() < self.spec["flip"]:
            image, labels = V.horizontal_flip(image), V.horizontal_flip(labels)
        return self.colours(image), labels.squeeze(0)


class Loading:
    def __init__(self, _setup, spec, _tensors):
        self.crops = Crops(spec)
        self.loader = torch.utils.data.DataLoader(
            self.crops,
            batch_size=spec["batch"],
            shuffle=True,
            drop_last=True,
            num_workers=spec["workers"],
            persistent_workers=True,
            generator=torch.Generator().manual_seed(0),
        )

    def check(self):
        image, labels = self.crops.decode(*self.crops.pairs[0])
        images, targets = next(iter(self.loader))
        assert targets.shape == images.shape[:1] + images.shape[2:], f"{images.shape} and {targets.shape}"
        batch = torch.tensor([images.shape[0], images.shape[2], images.shape[3]])
        return {"image": image.permute(1, 2, 0), "labels": labels.squeeze(0), "batch": batch}

    def run(self):
        for _ in self.loader:
            pass
