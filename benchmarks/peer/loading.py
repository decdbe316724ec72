"""Reading, cutting and colouring images into batches with torchvision; what differs from ours stands in src/data.rs."""

import json
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


def loader(crops, spec, collate=None):
    return torch.utils.data.DataLoader(
        crops,
        batch_size=spec["batch"],
        shuffle=True,
        drop_last=True,
        num_workers=spec["workers"],
        persistent_workers=True,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(0),
    )


class Loading:
    def __init__(self, _setup, spec, _tensors):
        self.crops = Crops(spec)
        self.loader = loader(self.crops, spec)

    def check(self):
        image, labels = self.crops.decode(*self.crops.pairs[0])
        images, targets = next(iter(self.loader))
        assert targets.shape == images.shape[:1] + images.shape[2:], f"{images.shape} and {targets.shape}"
        batch = torch.tensor([images.shape[0], images.shape[2], images.shape[3]])
        return {"image": image.permute(1, 2, 0), "labels": labels.squeeze(0), "batch": batch}

    def run(self):
        for _ in self.loader:
            pass


class MosaicCrops(torch.utils.data.Dataset):
    """Four random crops with what is left of their boxes, around a point of the middle half of both sides."""

    MIDDLE = (0.25, 0.75)
    LEAST_SHARE = 0.25

    def __init__(self, spec):
        from torchvision.transforms import v2

        self.spec, self.folder = spec, spec["folder"]
        with open(os.path.join(self.folder, "train", "instances.json")) as file:
            truth = json.load(file)
        places = {category["id"]: place for place, category in enumerate(truth["categories"])}
        self.samples = {image["id"]: (image["file_name"], [], []) for image in truth["images"]}
        for annotation in truth["annotations"]:
            x, y, w, h = annotation["bbox"]
            _, edges, classes = self.samples[annotation["image_id"]]
            edges.append([x, y, x + w, y + h])
            classes.append(places[annotation["category_id"]])
        self.samples = list(self.samples.values())
        jitter = v2.ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25)
        self.colours = v2.RandomApply([jitter], p=0.8)
        # Filled before the workers are forked, which then share it.
        self.cache = [self.decode(index) for index in range(len(self.samples))] if spec["cache"] else None

    def decode(self, index):
        from torchvision.io import ImageReadMode, decode_jpeg, read_file
        from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

        name, edges, classes = self.samples[index]
        image = decode_jpeg(read_file(os.path.join(self.folder, name)), mode=ImageReadMode.RGB)
        edges = torch.tensor(edges).reshape(-1, 4)
        edges = BoundingBoxes(edges, format=BoundingBoxFormat.XYXY, canvas_size=image.shape[1:])
        return image, edges, torch.tensor(classes, dtype=torch.long)

    def __len__(self):
        return self.spec["batches"] * self.spec["batch"]

    def part(self, index, height, width):
        from torchvision.transforms.v2 import functional as V

        image, edges, classes = self.cache[index] if self.cache else self.decode(index)
        factor = random.uniform(*self.spec["scale"]) / 2
        rows, columns = max(round(height / factor), 1), max(round(width / factor), 1)
        top = round((image.shape[1] - rows) * random.random())
        left = round((image.shape[2] - columns) * random.random())
        part = (top, left, rows, columns, (height, width))
        image, edges = V.resized_crop(image, *part, antialias=True), V.resized_crop(edges, *part)
        if random.random() < self.spec["flip"]:
            image, edges = V.horizontal_flip(image), V.horizontal_flip(edges)
        whole = self.areas(edges)
        edges = V.clamp_bounding_boxes(edges)
        shown = self.areas(edges) >= self.LEAST_SHARE * whole.clamp(min=1e-6)
        return self.colours(image), edges.as_subclass(torch.Tensor)[shown], classes[shown]

    @staticmethod
    def areas(edges):
        edges = edges.as_subclass(torch.Tensor)
        return (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])

    def __getitem__(self, index):
        height, width = self.spec["crop"]
        y, x = round(height * random.uniform(*self.MIDDLE)), round(width * random.uniform(*self.MIDDLE))
        view, edges, classes = torch.empty(3, height, width, dtype=torch.uint8), [], []
        corners = [(0, 0, y, x), (0, x, y, width - x), (y, 0, height - y, x), (y, x, height - y, width - x)]
        for place, (top, left, rows, columns) in enumerate(corners):
            own = index % len(self.samples) if place == 0 else random.randrange(len(self.samples))
            image, part_edges, part_classes = self.part(own, rows, columns)
            view[:, top : top + rows, left : left + columns] = image
            edges.append(part_edges + torch.tensor([left, top, left, top]))
            classes.append(part_classes)
        return view, {"boxes": torch.cat(edges), "labels": torch.cat(classes)}


def stacked(samples):
    """Images as one tensor; boxes stay with their image."""
    return torch.stack([image for image, _ in samples]), [targets for _, targets in samples]


class Mosaics:
    def __init__(self, _setup, spec, _tensors):
        self.crops = MosaicCrops(spec)
        self.loader = loader(self.crops, spec, stacked)

    def check(self):
        image, edges, classes = self.crops.decode(0)
        images, targets = next(iter(self.loader))
        assert len(targets) == len(images), f"{images.shape} and {len(targets)}"
        batch = torch.tensor([images.shape[0], images.shape[2], images.shape[3]])
        edges = edges.as_subclass(torch.Tensor)
        return {"image": image.permute(1, 2, 0), "edges": edges, "classes": classes, "batch": batch}

    def run(self):
        for _ in self.loader:
            pass
