"""Golden values of average precision and recall, by pycocotools.

Run: python tests/golden/coco_ap.py (needs numpy, pycocotools 2.0.11, tidecv 1.0.1). Writes coco_ap.json: random boxes as rows
[image, class, x, y, width, height, area, crowd], found ones as [image, class, x, y, width, height, score], and what
COCOeval makes of them. What it gives as -1 is null. Mistakes are counted by tidecv 1.0.1,
without the crowds.

Among them: equal scores within and between images, equal overlaps, crowds, images without boxes, with nothing found, with more
than 100 of one class, boxes of exactly 32x32 and 96x96 pixels, areas of outlines that differ from that of the box, a class that
is found and never there, one of which there are only crowds, one that is never found.
"""

import contextlib
import io
import json
import pathlib

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

IMAGES, CLASSES = 60, 7
NEVER_THERE, ONLY_CROWDS, NEVER_FOUND = 4, 5, 6


def draw():
    rng = np.random.default_rng(7)
    truth, found = [], []
    for image in range(IMAGES):
        for _ in range(0 if image % 9 == 0 else rng.integers(1, 12)):
            kind = int(rng.choice([0, 0, 0, 1, 1, 2, 3, ONLY_CROWDS, NEVER_FOUND]))
            side = float(rng.choice([32, 96, 0]))
            w, h = (side, side) if side else np.round(np.exp(rng.uniform(1.5, 5.5, 2)), 2).tolist()
            x, y = np.round(rng.uniform(0, 400, 2), 2).tolist()
            crowd = int(kind == ONLY_CROWDS or rng.random() < 0.08)
            area = w * h if side or rng.random() < 0.5 else round(w * h * rng.uniform(0.3, 1), 2)
            truth.append([image, kind, x, y, w, h, area, crowd])
            if kind == NEVER_FOUND or image % 13 == 1:
                continue
            for _ in range(int(rng.choice([0, 1, 1, 1, 2, 3]))):
                shift = rng.normal(0, rng.choice([0, 0, 0.04, 0.15]), 4) * [w, h, w, h]
                box = np.round(np.array([x, y, w, h]) + shift, 2)
                box[2:] = np.maximum(box[2:], 0.5)
                seen = kind if rng.random() < 0.85 else int(rng.integers(0, 4))
                found.append([image, seen, *box.tolist(), round(float(rng.beta(3, 2)), 2)])
        for _ in range(rng.integers(0, 4)):
            box = np.round(np.append(rng.uniform(0, 400, 2), np.exp(rng.uniform(1.5, 5.5, 2))), 2)
            found.append([image, int(rng.integers(0, 6)), *box.tolist(), round(float(rng.beta(2, 4)), 2)])
    # More than the limit, in two images; the objects have the lower scores.
    for image in (17, 31):
        for at in range(130):
            x, y = float(at % 13 * 40), float(at // 13 * 40)
            found.append([image, 0, x, y, 30.0, 30.0, round(0.9 - at // 5 * 0.02, 2)])
            if at % 4 == 3:
                truth.append([image, 0, x, y + 1, 30.0, 30.0, 900.0, 0])
    return truth, [found[at] for at in rng.permutation(len(found))]


def mistakes(truth, found):
    from tidecv import TIDE, Data

    gt, dt = Data("truth"), Data("found")
    for image in range(IMAGES):
        gt.add_image(image, str(image))
    for kind in range(CLASSES):
        gt.add_class(kind, str(kind))
    for r in truth:
        if not r[7]:
            gt.add_ground_truth(r[0], r[1], r[2:6])
    for r in found:
        dt.add_detection(r[0], r[1], r[6], r[2:6])
    run = TIDE().evaluate(gt, dt, mode=TIDE.BOX)
    return {error.short_name: count for error, count in run.count_errors().items()}


def main():
    truth, found = draw()
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(IMAGES)],
        "categories": [{"id": kind, "name": f"class {kind}"} for kind in range(CLASSES)],
        "annotations": [
            {"id": at + 1, "image_id": r[0], "category_id": r[1], "bbox": r[2:6], "area": r[6], "iscrowd": r[7]}
            for at, r in enumerate(truth)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = [{"image_id": r[0], "category_id": r[1], "bbox": r[2:6], "score": r[6]} for r in found]
        ev = COCOeval(coco, coco.loadRes(results), "bbox")
        ev.evaluate()
        ev.accumulate()
        ev.summarize()

    def known(value):
        return None if value < 0 else float(value)

    def mean(values):
        values = values[values > -1]
        return float(values.mean()) if values.size else None

    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    precision = ev.eval["precision"]
    golden = {
        "scores": {name: known(value) for name, value in zip(names, ev.stats)},
        "per_class": [mean(precision[:, :, kind, 0, 2]) for kind in range(CLASSES)],
        "curve of class 0 at 0.75": precision[5, :, 0, 0, 2].tolist(),
        "mistakes without crowds": mistakes(truth, found),
        "thresholds": ev.params.iouThrs.tolist(),
        "recalls": ev.params.recThrs.tolist(),
        "images": IMAGES,
        "truth": truth,
        "found": found,
    }
    text = json.dumps(golden).replace("], [", "],\n[")
    pathlib.Path(__file__).with_suffix(".json").write_text(text + "\n")
    print(golden["scores"], golden["per_class"], len(truth), len(found))


main()
