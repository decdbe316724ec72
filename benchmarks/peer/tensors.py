"""Safetensors files of f32, without the package of that name."""

import ctypes
import json
import struct

import torch


def read(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", f"{name} has type {entry['dtype']}"
        start, end = entry["data_offsets"]
        if start == end:
            tensors[name] = torch.empty(entry["shape"])
            continue
        flat = torch.frombuffer(data, dtype=torch.float32, count=(end - start) // 4, offset=start)
        # A copy, so that the memory of the whole file can go.
        tensors[name] = flat.reshape(entry["shape"]).clone()
    return tensors


def write(path, tensors):
    header, parts, end = {}, [], 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().float().cpu().contiguous()
        size = tensor.numel() * 4
        parts.append(ctypes.string_at(tensor.data_ptr(), size))
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        file.writelines(parts)
