"""Depthwise convolutions: ours, timed by `caffe time`, beside PyTorch's, which calls cuDNN or kernels of its own.

For each shape of the bundle: forward, gradient of the input, gradient of the weights; as ratio (PyTorch's time over
ours, so that more than 1 means that ours is faster) and as share of the memory bound: the bytes that must be moved,
each value once, over the rate at which the GPU copies memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .machine import Machine, python_with
from .result import Result
from .steps import layer_times
from .torch_side import ask

_REPEAT, _ITERATIONS = 20, 15

_MOST_BYTES = 2 << 30
"""Of one net's blobs: as many shapes as fit are timed in one process, whose start takes longer than they do."""

_LAYERS = """
layer {{ name: "data{i}" type: "Input" top: "data{i}"
  input_param {{ shape {{ dim: {n} dim: {channels} dim: {height} dim: {width} }} }} }}
layer {{ name: "first{i}" bottom: "data{i}" top: "first{i}" {first} }}
layer {{ name: "depthwise{i}" type: "Convolution" bottom: "first{i}" top: "depthwise{i}" {more}
  convolution_param {{ num_output: {channels} group: {channels} kernel_size: {kernel} stride: {stride} pad: {pad}
    bias_term: false weight_filler {{ type: "msra" }} }} }}
"""

_WAYS = {
    "weights": {"first": 'type: "Power" power_param { shift: 0.37 }', "more": ""},
    "data": {
        "first": 'type: "Scale" scale_param { bias_term: true bias_filler { value: 0.37 } }',
        "more": "param { lr_mult: 0 } loss_weight: 1",
    },
}
"""The gradients of data and of weights are told apart by two nets. Caffe computes that of the weights where they learn,
and that of the data where a layer before learns and what comes out is a loss.
"""


def shape_name(shape: dict[str, int]) -> str:
    """`32x144x75x75 k3 s2`: batch, channels, height, width, kernel, stride."""
    return f"{shape['n']}x{shape['channels']}x{shape['height']}x{shape['width']} k{shape['kernel']} s{shape['stride']}"


def moved(shape: dict[str, int]) -> dict[str, float]:
    """Bytes that each pass must move in float32: each input read once, each output written once.

    Forward reads x and writes y; the gradient of x reads dy and writes dx; that of the weights reads x and dy.
    """

    def out(side: int) -> int:
        return (side + 2 * shape["pad"] - shape["kernel"]) // shape["stride"] + 1

    planes = shape["n"] * shape["channels"]
    there = planes * shape["height"] * shape["width"] * 4.0
    back = planes * out(shape["height"]) * out(shape["width"]) * 4.0
    return {"forward": there + back, "data": there + back, "weights": there + back}


def ours(machine: Machine, shapes: Sequence[dict[str, int]], seconds: float) -> list[dict[str, float]]:
    """Milliseconds of each pass of each shape, the least of several measurements."""
    found: list[dict[str, float]] = [{} for _ in shapes]
    with tempfile.TemporaryDirectory() as folder:
        net = Path(folder) / "net.prototxt"
        for part in _parts(shapes):
            for way, values in _WAYS.items():
                text = "".join(_LAYERS.format(i=i, **values, **shapes[i]) for i in part)
                net.write_text(f'name: "depthwise"\n{text}', "utf-8")
                options = f"--model={net}", f"--iterations={_ITERATIONS}", f"--repeat={_REPEAT}"
                times = layer_times(machine.caffe("time", *options, seconds=seconds))
                for i in part:
                    found[i][way] = times[f"depthwise{i} backward"][1]
                    if way == "weights":  # a loss is summed up as well
                        found[i]["forward"] = times[f"depthwise{i} forward"][1]
    return found


def _parts(shapes: Sequence[dict[str, int]]) -> Iterator[list[int]]:
    """Numbers of shapes whose blobs, values and gradients, fit together."""
    part: list[int] = []
    size = 0.0
    for number, shape in enumerate(shapes):
        blobs = 4 * moved(shape)["forward"]
        if part and size + blobs > _MOST_BYTES:
            yield part
            part, size = [], 0.0
        part.append(number)
        size += blobs
    yield part


def depthwise(machine: Machine, file: Path, seconds: float) -> Result:
    """Time every shape of `file` on both sides."""
    shapes: list[dict[str, int]] = json.loads(file.read_text("utf-8"))
    mine = ours(machine, shapes, seconds)
    theirs = ask(machine, python_with("torch"), {"depthwise": shapes}, seconds)
    rate: float = theirs["copy"]  # bytes in a second
    rows: list[dict[str, Any]] = []
    ratios: dict[str, list[float]] = {}
    for shape, here, there in zip(shapes, mine, theirs["depthwise"], strict=True):
        bytes_of = moved(shape)
        row: dict[str, Any] = {"shape": shape_name(shape)}
        for way, bound in bytes_of.items():
            ratio = there[way] / here[way]
            ratios.setdefault(way, []).append(ratio)
            share = bound / rate * 1e3 / here[way]
            row |= {f"{way} µs": here[way] * 1e3, f"{way} ratio": ratio, f"{way} of bound": share}
        rows.append(row)
    said = "; ".join(
        f"{way} {min(of):.2f} / {sorted(of)[len(of) // 2]:.2f} / {max(of):.2f}" for way, of in ratios.items()
    )
    slow = sum(ratio < 1 for of in ratios.values() for ratio in of)
    said = f"PyTorch's time over ours, least / median / most: {said}; the GPU copies {rate / 1e12:.2f} TB/s"
    of_all = sum(len(of) for of in ratios.values())
    return Result("", "ok", f"{said}; {slow} of {of_all} passes are slower than PyTorch's", rows)
