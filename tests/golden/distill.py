"""Golden values and gradients of the distillation terms (run with torch and safetensors).

    python tests/golden/distill.py

Written from the papers' formulas, in double precision over single-precision inputs:
pixel-wise   T^2 * mean over counted pixels of KL(teacher || student), or of the soft cross-entropy
             (Hinton et al. 2015; Liu et al. 2019, eq. 1)
pair-wise    mean squared difference of the cosines between max-pooled nodes (Liu et al. 2019, eq. 2 and 3)
channel-wise T^2 * mean over images and channels of KL(teacher || student) of the softmax over positions
             (Shu et al. 2021)

distill.safetensors holds, all as f32:
pixel.student, pixel.teacher [2,5,4,6]; pixel.target [2,8,12] with 255 ignored and 254 unknown;
pixel.{kl,ce}.t{1,2,4}.{value,grad}; pixel.masked.{value,grad} (kl, T 2, the target's ignored pixels left out);
pair.{even,odd}.{student,teacher}; pair.{even,odd}.p{50,25}.value, .grad (norms attached), .grad_detached;
channel.student, channel.teacher [3,5,4,6]; channel.target [3,8,12] with 255 ignored (all of the last image) and 254 unknown;
channel.t{1,4}.{value,grad}; channel.masked.{value,grad} (T 4, the target's ignored pixels left out);
channel.narrow [3,2,4,6], channel.adapter [5,2,1,1], channel.adapted.{value,grad} (T 4, the adapter before the comparison)
"""

import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
tensors = {}


def draw(seed, *shape, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def put(name, tensor):
    tensors[name] = tensor.detach().to(torch.float32).contiguous().reshape(tensor.shape or (1,))


def gradient(loss, student):
    (grad,) = torch.autograd.grad(loss, student)
    return grad


def pixel_wise(student, teacher, temperature, form, counted=None):
    log_q = F.log_softmax(student / temperature, 1)
    p = F.softmax(teacher / temperature, 1)
    each = -(p * log_q).sum(1)
    if form == "kl":
        each = each + (p * p.log()).sum(1)
    each = each * temperature**2
    return each.mean() if counted is None else each[counted].mean()


def pair_wise(student, teacher, fraction, detach_norm):
    def cosines(x):
        kernel = (int(x.shape[2] * fraction), int(x.shape[3] * fraction))
        nodes = F.max_pool2d(x, kernel, kernel, ceil_mode=True).flatten(2)
        norm = nodes.norm(dim=1, keepdim=True)
        nodes = nodes / (norm.detach() if detach_norm else norm)
        return torch.einsum("ncm,nck->nmk", nodes, nodes)

    return (cosines(teacher) - cosines(student)).pow(2).mean()


def channel_wise(student, teacher, temperature, counted=None):
    images = []
    for index in range(len(student)):
        of_image = torch.ones(student.shape[2:], dtype=torch.bool) if counted is None else counted[index]
        if of_image.any():
            p = F.softmax(teacher[index][:, of_image] / temperature, 1)
            q = F.softmax(student[index][:, of_image] / temperature, 1)
            images.append((p * (p / q).log()).sum(1).mean())
    return torch.stack(images).mean() * temperature**2


def pixel_cases():
    student, teacher = draw(1, 2, 5, 4, 6, scale=3.0), draw(2, 2, 5, 4, 6, scale=3.0)
    target = torch.randint(0, 5, (2, 8, 12), generator=torch.Generator().manual_seed(3))
    target[0, 2:5, 1:8] = 255
    target[1, 6:, :] = 255
    target[:, :, 9:] = 254
    put("pixel.student", student)
    put("pixel.teacher", teacher)
    put("pixel.target", target)
    student, teacher = student.double().requires_grad_(), teacher.double()
    for temperature in (1, 2, 4):
        for form in ("kl", "ce"):
            loss = pixel_wise(student, teacher, temperature, form)
            put(f"pixel.{form}.t{temperature}.value", loss)
            put(f"pixel.{form}.t{temperature}.grad", gradient(loss, student))
    small = F.interpolate(target[:, None].double(), size=(4, 6), mode="nearest")[:, 0]
    loss = pixel_wise(student, teacher, 2, "kl", small != 255)
    put("pixel.masked.value", loss)
    put("pixel.masked.grad", gradient(loss, student))


def pair_cases():
    for seed, (name, size) in enumerate({"even": (2, 8, 6), "odd": (1, 65, 33)}.items()):
        n, height, width = size
        student, teacher = draw(10 + seed, n, 3, height, width), draw(20 + seed, n, 4, height, width)
        put(f"pair.{name}.student", student)
        put(f"pair.{name}.teacher", teacher)
        student, teacher = student.double().requires_grad_(), teacher.double()
        for percent in (50, 25):
            loss = pair_wise(student, teacher, percent / 100, False)
            put(f"pair.{name}.p{percent}.value", loss)
            put(f"pair.{name}.p{percent}.grad", gradient(loss, student))
            put(f"pair.{name}.p{percent}.grad_detached", gradient(pair_wise(student, teacher, percent / 100, True), student))


def channel_cases():
    student, teacher = draw(30, 3, 5, 4, 6, scale=3.0), draw(31, 3, 5, 4, 6, scale=3.0)
    narrow, adapter = draw(32, 3, 2, 4, 6, scale=3.0), draw(33, 5, 2, 1, 1)
    target = torch.randint(0, 5, (3, 8, 12), generator=torch.Generator().manual_seed(34))
    target[0, 2:5, 1:8] = 255
    target[1, 6:, :] = 255
    target[:, :, 9:] = 254
    target[2] = 255
    maps = {"student": student, "teacher": teacher, "target": target, "narrow": narrow, "adapter": adapter}
    for name, tensor in maps.items():
        put(f"channel.{name}", tensor)
    student, narrow = student.double().requires_grad_(), narrow.double().requires_grad_()
    teacher, adapter = teacher.double(), adapter.double()

    def put_case(name, loss, leaf):
        put(f"channel.{name}.value", loss)
        put(f"channel.{name}.grad", gradient(loss, leaf))

    for temperature in (1, 4):
        put_case(f"t{temperature}", channel_wise(student, teacher, temperature), student)
    small = F.interpolate(target[:, None].double(), size=(4, 6), mode="nearest")[:, 0]
    put_case("masked", channel_wise(student, teacher, 4, small != 255), student)
    put_case("adapted", channel_wise(F.conv2d(narrow, adapter), teacher, 4), narrow)


pixel_cases()
pair_cases()
channel_cases()
save_file(tensors, HERE / "distill.safetensors")
