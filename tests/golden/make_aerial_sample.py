"""Makes datasets/aerial_sample from a folder of the full-size aerial images.

    python tests/golden/make_aerial_sample.py SOURCE datasets/aerial_sample

SOURCE holds `images/*.jpg`, `labels/*.png` (8-bit index masks) and the lists `train.txt`, `val.txt`, `test.txt`.
Needs Pillow. The card and the README of the sample are written by hand and left alone.
"""

import random
import sys
from pathlib import Path

from PIL import Image

LONGER_SIDE_PX = 384
JPEG_QUALITY = 88
CLASSES = 5


def read_list(path):
    return [line.split() for line in path.read_text().splitlines() if line.strip()]


def shrink(source, target, image, label):
    photo = Image.open(source / image).convert("RGB")
    mask = Image.open(source / label)
    assert mask.mode == "L" and mask.size == photo.size, label
    factor = LONGER_SIDE_PX / max(photo.size)
    size = tuple(max(1, round(side * factor)) for side in photo.size)
    photo.resize(size, Image.Resampling.LANCZOS).save(target / image, quality=JPEG_QUALITY, optimize=True)
    mask.resize(size, Image.Resampling.NEAREST).save(target / label, optimize=True)


def shares(target, pairs):
    """The share of each class among the labelled pixels of some images."""
    counts = [0] * CLASSES
    for _, label in pairs:
        histogram = Image.open(target / label).histogram()
        counts = [a + b for a, b in zip(counts, histogram)]
    return [count / sum(counts) for count in counts]


def choose_labelled(target, train):
    """One part of each of six tiles: the first seed whose choice shows every class on at least 2 % of its pixels."""
    tiles = {}
    for pair in train:
        tiles.setdefault(pair[0].split("_")[0], []).append(pair)
    for seed in range(1000):
        draw = random.Random(seed)
        chosen = [draw.choice(tiles[tile]) for tile in sorted(draw.sample(sorted(tiles), 6))]
        if min(shares(target, chosen)) >= 0.02:
            return seed, chosen
    raise SystemExit("no seed shows every class")


def write_list(path, pairs):
    path.write_text("".join(" ".join(pair) + "\n" for pair in pairs))


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    for folder in ("images", "labels"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    lists = {name: read_list(source / f"{name}.txt") for name in ("train", "val", "test")}
    for name, pairs in lists.items():
        for image, label in pairs:
            shrink(source, target, image, label)
        write_list(target / f"{name}.txt", pairs)
        print(name, len(pairs), [f"{100 * share:.2f} %" for share in shares(target, pairs)])
    seed, labelled = choose_labelled(target, lists["train"])
    write_list(target / "train_1_8.txt", labelled)
    write_list(target / "unlabelled_7_8.txt", [pair for pair in lists["train"] if pair not in labelled])
    print("train_1_8: seed", seed, [f"{100 * share:.2f} %" for share in shares(target, labelled)])


if __name__ == "__main__":
    main()
