"""PyTorch's side, in a process of its own: `python torch_side.py REQUEST` answers in JSON on its last line.

REQUEST is JSON: `depthwise`, a list of shapes, or `step`, a V2-SSDLite's training step (input, classes, batch size,
objects of an image, width); `threads` are those of the CPU, where there is no GPU. Times are of the GPU: events around
several calls, the least of several such measurements for the layers and all of them for the steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .machine import Machine

_REPEAT, _ITERATIONS = 20, 15
_COPY_BYTES = 1 << 30


def ask(machine: Machine, python: str, request: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run this file with a Python that has PyTorch; its answer.

    Raises:
        StepError: it fails, or takes longer.
    """
    from .machine import StepError

    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(machine.gpu)}
    command = [python, os.fspath(Path(__file__).resolve()), json.dumps(request)]
    try:
        done = subprocess.run(  # noqa: S603
            command, env=environment, capture_output=True, text=True, timeout=max(1.0, seconds), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StepError(f"PyTorch was stopped after {seconds:.0f} s") from error
    if done.returncode:
        raise StepError(f"PyTorch's side ends with {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _device() -> str:
    """The GPU; the CPU where there is none."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _milliseconds(call: Any, repeat: int = _REPEAT, iterations: int = _ITERATIONS) -> list[float]:
    """Of one call, in each of several measurements of `repeat` calls."""
    import torch

    for _ in range(3):
        call()
    times = []
    if not torch.cuda.is_available():
        for _ in range(iterations):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        return times
    for _ in range(iterations):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(repeat):
            call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / repeat)
    return times


def _depthwise(shape: dict[str, int]) -> dict[str, float]:
    import torch

    size = (shape["n"], shape["channels"], shape["height"], shape["width"])
    x = torch.randn(size, device=_device())
    w = torch.randn(shape["channels"], 1, shape["kernel"], shape["kernel"], device=_device())
    settings = ([shape["stride"]] * 2, [shape["pad"]] * 2, [1, 1], False, [0, 0], shape["channels"])

    def forward() -> Any:
        return torch.convolution(x, w, None, *settings)

    dy = torch.randn_like(forward())

    def backward(mask: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(dy, x, w, None, *settings, mask)

    return {
        "forward": min(_milliseconds(forward)),
        "data": min(_milliseconds(lambda: backward([True, False, False]))),
        "weights": min(_milliseconds(lambda: backward([False, True, False]))),
    }


def _copy_rate() -> float:
    """Bytes read and written in a second by a copy within the GPU's memory."""
    import torch

    a = torch.empty(_COPY_BYTES, dtype=torch.uint8, device=_device())
    b = torch.empty_like(a)
    return 2 * _COPY_BYTES / (min(_milliseconds(lambda: b.copy_(a), repeat=5)) * 1e-3)


def _model(side: int, classes: int, width: float) -> Any:
    """V2-SSDLite of torchvision's parts, with the feature maps and default boxes of the Object Detection API's."""
    from collections import OrderedDict
    from functools import partial

    import torchvision
    from torch import nn
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD
    from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block

    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)

    class Backbone(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            features = torchvision.models.mobilenet_v2(weights=None, norm_layer=norm, width_mult=width).features
            expand, *rest = features[14].conv
            self.channels = [expand[0].out_channels, features[-1].out_channels, 512, 256, 256, 128]
            self.maps = nn.ModuleList(
                [nn.Sequential(*features[:14], expand), nn.Sequential(*rest, *features[15:])]
                + [_extra_block(a, b, norm) for a, b in zip(self.channels[1:], self.channels[2:], strict=False)]
            )

        def forward(self, x: Any) -> Any:
            maps = OrderedDict()
            for number, part in enumerate(self.maps):
                maps[str(number)] = x = part(x)
            return maps

    boxes = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    backbone = Backbone()
    head = SSDLiteHead(backbone.channels, boxes.num_anchors_per_location(), classes, norm)
    return SSD(backbone, boxes, (side, side), classes, head=head).to(_device()).train()


def _step(side: int, classes: int, batch: int, objects: int, iterations: int, width: float = 1.0) -> dict[str, Any]:
    """Milliseconds of forward, matching, loss, backward and update with momentum; MiB that the process took."""
    import torch
    from torchvision.models.detection.image_list import ImageList
    from torchvision.ops import box_iou

    model = _model(side, classes, width)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=5e-5)
    images = torch.rand(batch, 3, side, side, device=_device())
    corners = torch.rand(batch, objects, 2, device=_device()) * 0.7 * side
    sides = (0.1 + 0.2 * torch.rand(batch, objects, 2, device=_device())) * side
    targets = [
        {"boxes": torch.cat([c, c + s], 1), "labels": torch.randint(1, classes, (objects,), device=_device())}
        for c, s in zip(corners, sides, strict=True)
    ]

    def once() -> None:
        maps = list(model.backbone(images).values())
        outputs = model.head(maps)
        anchors = model.anchor_generator(ImageList(images, [(side, side)] * batch), maps)
        pairs = zip(anchors, targets, strict=True)
        matched = [model.proposal_matcher(box_iou(target["boxes"], boxes)) for boxes, target in pairs]
        loss = sum(model.compute_loss(targets, outputs, anchors, matched).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    times = sorted(_milliseconds(once, repeat=10, iterations=iterations))
    memory = torch.cuda.max_memory_reserved() / (1 << 20) if torch.cuda.is_available() else float("nan")
    return {"least": times[0], "median": times[len(times) // 2], "most": times[-1], "MiB": memory}


def main() -> None:
    """Answer one request."""
    import torch

    request = json.loads(sys.argv[1])
    answer: dict[str, Any] = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    torch.backends.cudnn.benchmark = True  # the fastest algorithm for each shape
    if "threads" in request:
        torch.set_num_threads(request["threads"])
    if "depthwise" in request:
        torch.backends.cudnn.allow_tf32 = False
        answer["copy"] = _copy_rate()
        answer["depthwise"] = [_depthwise(shape) for shape in request["depthwise"]]
    if "step" in request:
        answer["step"] = {}
        for name, tf32 in (("float32", False), *([("TF32", True)] if torch.cuda.is_available() else [])):
            torch.backends.cudnn.allow_tf32 = tf32
            answer["step"][name] = _step(**request["step"])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
