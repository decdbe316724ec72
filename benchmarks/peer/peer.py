"""The other side of the yardstick: PyTorch, asked line by line in JSON over stdin and stdout.

Started by `mentor-bench`; see benchmarks/README.md. Needs torch and, for the rows of data and of detectors, torchvision; for
those of COCO's scores pycocotools and faster-coco-eval.
"""

import gc
import json
import os
import sys
import time
import traceback

# Whatever a library prints goes to stderr; the answers keep the real stdout for themselves.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class Setup:
    """What all pieces of work share."""

    def __init__(self, torch, question):
        self.torch = torch
        self.device = torch.device(question["device"])
        self.threads = question["threads"]
        self.bf16 = question["precision"] == "bf16"
        self.compiles = question["compile"]
        self.channels_last = question["channels_last"]
        torch.set_num_threads(self.threads)

    def place(self, tensor):
        """A map or a weight where the run wants it."""
        tensor = tensor.to(self.device)
        if self.channels_last and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=self.torch.channels_last)
        return tensor

    def place_net(self, net):
        layout = self.torch.channels_last if self.channels_last else self.torch.contiguous_format
        return net.to(self.device, memory_format=layout)

    def compiled(self, net):
        return self.torch.compile(net) if self.compiles else net

    def autocast(self):
        return self.torch.autocast(self.device.type, self.torch.bfloat16, enabled=self.bf16)

    def synchronize(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)


def memory_mib(key):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
    return 0.0


def forget_peak():
    """Hands back what building left, so that the peak is that of the work."""
    import ctypes

    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as clear:
            clear.write("5")
    except (AttributeError, OSError):
        pass


def build(setup, spec, folder):
    import loading
    import operations
    import training
    from tensors import read

    kind = spec["kind"]
    tensors = read(os.path.join(folder, "inputs.safetensors"))
    # These need torchvision, or a package that scores boxes: whoever asks for other rows needs neither.
    if kind == "detector":
        from detectors import Step

        return Step(setup, spec, tensors)
    if kind in ("coco", "nms"):
        import boxes

        return {"coco": boxes.Scores, "nms": boxes.Suppression}[kind](setup, spec, tensors)
    kinds = {
        "operation": operations.Operation,
        "sgd": operations.Sgd,
        "ema": operations.Average,
        "step": training.Step,
        "infer": training.Prediction,
        "eval": training.Evaluation,
        "data": loading.Loading,
        "mosaic": loading.Mosaics,
    }
    return kinds[kind](setup, spec, tensors)


def run(setup, work, repeat):
    seconds = 0.0
    in_a_row = getattr(work, "in_a_row", False)
    waits, runs = (1, repeat) if in_a_row else (repeat, 1)
    for _ in range(waits):
        setup.synchronize()
        start = time.perf_counter()
        for _ in range(runs):
            work.run()
        setup.synchronize()
        seconds += time.perf_counter() - start
    return seconds * 1e3 / repeat


class Session:
    def __init__(self):
        self.setup = self.work = self.folder = None
        self.before = 0.0

    def answer(self, question):
        op = question["op"]
        if op == "start":
            try:
                import torch
            except ImportError as error:
                return {"missing": str(error)}
            self.setup = Setup(torch, question)
            self.before = memory_mib("VmRSS")
            return {"torch": torch.__version__}
        if op == "prepare":
            self.work = None
            gc.collect()
            self.folder = question["folder"]
            self.work = build(self.setup, question["spec"], self.folder)
            forget_peak()
            return {}
        if op == "check":
            from tensors import write

            write(os.path.join(self.folder, "results.safetensors"), self.work.check())
            return {}
        if op == "run":
            return {"ms": run(self.setup, self.work, question["repeat"])}
        if op == "memory":
            return {"before": self.before, "peak": memory_mib("VmHWM")}
        raise ValueError(f"unknown question {op!r}")


def main():
    session = Session()
    for line in sys.stdin:
        try:
            answer = session.answer(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()


if __name__ == "__main__":
    main()
