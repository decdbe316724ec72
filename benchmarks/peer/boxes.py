"""COCO's scores by pycocotools and by faster-coco-eval, and torchvision's suppression of boxes."""

import contextlib
import io

import torch


class Scores:
    """From indexed boxes to the twelve numbers."""

    def __init__(self, _setup, spec, tensors):
        if spec["package"] == "pycocotools":
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval

            self.evaluator = COCOeval
        else:
            from faster_coco_eval import COCO, COCOeval_faster

            self.evaluator = COCOeval_faster
        truth, found = tensors["truth"].double().tolist(), tensors["found"].double().tolist()
        annotations = [
            {
                # An id of 0 would count as a miss.
                "id": index + 1,
                "image_id": int(image),
                "category_id": int(category) + 1,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
            }
            for index, (image, category, x, y, w, h, _) in enumerate(truth)
        ]
        results = [
            {"image_id": int(image), "category_id": int(category) + 1, "bbox": [x, y, w, h], "score": score}
            for image, category, x, y, w, h, score in found
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            self.truth = COCO()
            self.truth.dataset = {
                "images": [{"id": image, "width": 640, "height": 480} for image in range(spec["images"])],
                "categories": [{"id": index + 1, "name": str(index)} for index in range(spec["classes"])],
                "annotations": annotations,
            }
            self.truth.createIndex()
            self.found = self.truth.loadRes(results)

    def scores(self):
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = self.evaluator(self.truth, self.found, iouType="bbox")
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
        return evaluator.stats[:12]

    def check(self):
        return {"scores": torch.tensor(list(self.scores()))}

    def run(self):
        self.scores()


class Suppression:
    """Which boxes are left, the best first."""

    def __init__(self, setup, spec, tensors):
        from torchvision import ops

        self.ops, self.iou = ops, spec["iou"]
        self.edges, self.scores = (tensors[name].to(setup.device) for name in ("edges", "scores"))
        self.classes = tensors["classes"].long().to(setup.device) if spec["classes"] > 1 else None

    def kept(self):
        if self.classes is None:
            return self.ops.nms(self.edges, self.scores, self.iou)
        return self.ops.batched_nms(self.edges, self.scores, self.classes, self.iou)

    def check(self):
        return {"kept": self.kept()}

    def run(self):
        self.kept()
