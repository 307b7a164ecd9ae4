"""How do a forward pass and a training step of MobileNetV2-SSDLite grow with width, input, batch size and classes?

One of them varies at a time, the others stay at 1.0, 300x300, 1 image (8 in a training step) and 21 classes. The
forward pass, up to the heads, is ours beside onnxruntime's with the same weights; the training step (forward, matching,
loss, backward) is ours beside PyTorch's with torchvision's parts, which also updates the weights. `--torch-python`
names a Python that has torch and torchvision. `--plot` writes the times against what varies.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import caffe_speed
import common
import numpy as np
from onnx_net import onnx_session

from ssdlite_caffe.caffe.check import torch_side
from ssdlite_caffe.caffe.prefix import cache_folder, caffe_prefix
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, write_caffemodel
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse_net

HEADS = ("mbox_loc", "mbox_conf")
OBJECTS = 3
"""Boxes in an image of a training step, on both sides."""


@dataclass(frozen=True)
class Point:
    """What a net is made for; `batch` None is 1 in a forward pass, and 8 in a training step."""

    width: float = 1.0
    input: int = 300
    batch: int | None = None
    classes: int = 21


AXES: dict[str, tuple[float, ...]] = {
    "width": (0.35, 0.5, 0.75, 1.0, 1.4),
    "input": (224, 300, 416, 512, 640),
    "batch": (1, 2, 8, 16, 32),
    "classes": (2, 21, 91),
}


def work_of(axis: str, value: float) -> float:
    """What the cost should be proportional to, at most: weights of 1x1 convolutions, pixels, images, classes."""
    return value**2 if axis in ("width", "input") else value


def prototxt(point: Point, stage: str, batch: int, folder: Path) -> Path:
    """The net that `gen` prints, for `batch` images."""
    text = subprocess.run(
        [sys.executable, "-m", "ssdlite_caffe", "gen", "-v", "2", "-c", str(point.classes), "-s", stage,
         "--width-multiplier", str(point.width), "--input-size", str(point.input),
         *(["--bn", "fold"] if stage == "headless" else [])],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    if stage == "train":
        data = re.search(r'^layer \{\n  name: "data"\n.*?^\}\n', text, re.MULTILINE | re.DOTALL)
        assert data
        made = caffe_speed.INPUTS.format(n=batch, h=point.input, w=point.input, boxes=OBJECTS * batch)
        text = text[: data.start()] + made + text[data.end() :]
    else:
        text = re.sub(r"dim: 1(?=\s+dim: 3\s)", f"dim: {batch}", text, count=1)
    path = folder / f"{stage}.prototxt"
    path.write_text(text)
    return path


def random_weights(net: Path, folder: Path) -> Path:
    """Weights that keep the size of what passes through: He's for what ReLU6 follows."""
    random, weights = np.random.default_rng(0), caffe_pb2.NetParameter()
    read = parse_net(net.read_text())
    types = {layer.name: layer.type for layer in read.layer}
    for name, shapes in infer(read).param_shapes.items():
        layer = weights.layer.add(name=name, type=types[name])
        for shape in shapes:
            scale = np.sqrt(2 / max(1, np.prod(shape[1:]))) if len(shape) == 4 else 0.1
            layer.blobs.append(blob_from_array(random.normal(0, scale, shape).astype(np.float32)))
    path = folder / "random.caffemodel"
    write_caffemodel(path, weights, force=True)
    return path


def forward(program: Path, point: Point, folder: Path, options: Any) -> dict[str, list[float]]:
    """Milliseconds to the heads: ours, onnxruntime's."""
    batch = point.batch or 1
    net = prototxt(point, "headless", batch, folder)
    weights = random_weights(net, folder)
    ours = caffe_speed.NetTime(program, net, weights, "TEST", options.threads)
    session = onnx_session(net, weights, HEADS, options.threads)
    if session is None:
        sys.exit("onnx or onnxruntime is not installed: pip install 'ssdlite-caffe[benchmarks]'")
    blob = np.random.default_rng(3).uniform(-1, 1, (batch, 3, point.input, point.input)).astype(np.float32)
    sides = {
        "ours": ours.warm,
        "peer": caffe_speed.timed(lambda: session.run(None, {"input": blob})),
    }
    times = common.alternate(sides, options.repetitions, pause=caffe_speed.PAUSE)
    ours.close()
    return times


def step(program: Path, point: Point, folder: Path, options: Any) -> dict[str, list[float]]:
    """Milliseconds of a training step: ours, PyTorch's."""
    batch = point.batch or 8
    net = prototxt(point, "train", batch, folder)
    ours = caffe_speed.NetTime(program, net, None, "TRAIN", options.threads)
    times = [ours.milliseconds("forward") + ours.milliseconds("backward") for _ in range(options.steps + 1)][1:]
    ours.close()
    if options.torch_python is None or batch == 1:  # PyTorch's BatchNorm takes no single value, which the last map is
        return {"ours": times}
    request = {
        "threads": options.threads,
        "step": {"side": point.input, "classes": point.classes, "batch": batch, "objects": OBJECTS,
                 "iterations": options.steps, "width": point.width},
    }  # fmt: skip
    answer = subprocess.run(
        [options.torch_python, torch_side.__file__, json.dumps(request)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = json.loads(answer.splitlines()[-1])["step"]["float32"]
    return {"ours": times, "peer": [found["least"], found["median"], found["most"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("-n", "--repetitions", type=int, default=9, help="forward passes of each side, in turn")
    parser.add_argument("--steps", type=int, default=3, help="training steps of each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--torch-python", help="Python with torch and torchvision; without it steps have no peer")
    parser.add_argument("--only", choices=AXES, action="append", help="vary this alone; may be given again")
    parser.add_argument("--prefix", type=Path, help="prefix of the built Caffe")
    parser.add_argument("--source", type=Path, help="sources of the fork, in place of the download")
    parser.add_argument("--build", type=Path, default=cache_folder() / "caffe-speed", help="folder of net_time")
    parser.add_argument("--plot", type=Path, help="PNG file to write")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    program = caffe_speed.programs(options.build.absolute(), caffe_prefix(options.prefix), options.source, fork=False)[
        "ours"
    ]
    result: dict[str, Any] = {"machine": common.machine("onnxruntime", "numpy"), "threads": options.threads, "axes": {}}
    with tempfile.TemporaryDirectory() as name:
        for axis in options.only or AXES:
            rows = result["axes"][axis] = []
            for value in AXES[axis]:
                change: dict[str, Any] = {axis: value if axis == "width" else int(value)}
                point = replace(Point(), **change)
                print(f"{axis} {value:g}", file=sys.stderr)
                rows.append({
                    "value": value,
                    "forward": forward(program, point, Path(name), options),
                    "step": step(program, point, Path(name), options),
                })  # fmt: skip
    result["machine"]["load_after"] = [round(load, 2) for load in os.getloadavg()]
    if options.plot:
        plot(result, options.plot)
    common.report(result, _text(result), as_json=options.json)


def _text(result: dict[str, Any]) -> Iterator[str]:
    yield f"ms, least / median / most, {result['threads']} threads; growth is of the median against the work\n"
    rows = []
    for axis, points in result["axes"].items():
        for point in points:
            cells = [f"{axis} {point['value']:g}"]
            for kind in ("forward", "step"):
                ours, peer = point[kind]["ours"], point[kind].get("peer")
                work = work_of(axis, point["value"]) / work_of(axis, points[0]["value"])
                first = common.Spread.of(points[0][kind]["ours"]).median
                cells += [
                    common.Spread.of(ours).text("{:.1f}"),
                    common.Spread.of(peer).text("{:.1f}") if peer else "",
                    f"{common.Spread.of(peer).median / common.Spread.of(ours).median:.2f}" if peer else "",
                    f"{common.Spread.of(ours).median / first / work:.2f}",
                ]
            rows.append(cells)
    parts = [f"{kind}, {cell}" for kind, peer in (("forward", "onnxruntime"), ("step", "PyTorch"))
             for cell in ("ours", peer, f"{peer} / ours", "growth / work")]  # fmt: skip
    yield common.table(["", *parts], rows)


def plot(result: dict[str, Any], path: Path) -> None:
    """Median times against each axis, with a line in proportion to the work."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    axes = result["axes"]
    figure, grid = plt.subplots(2, len(axes), figsize=(3.4 * len(axes), 6), squeeze=False, layout="constrained")
    for column, (axis, points) in enumerate(axes.items()):
        values = [point["value"] for point in points]
        for row, (kind, peer) in enumerate((("forward", "onnxruntime"), ("step", "PyTorch"))):
            place = grid[row][column]
            for side, label, marker in (("ours", "ours", "o"), ("peer", peer, "s")):
                if side in points[-1][kind]:
                    there = [point for point in points if side in point[kind]]
                    medians = [common.Spread.of(point[kind][side]).median for point in there]
                    place.loglog([point["value"] for point in there], medians, marker=marker, label=label)
            first = common.Spread.of(points[0][kind]["ours"]).median
            work = [first * work_of(axis, value) / work_of(axis, values[0]) for value in values]
            place.loglog(values, work, color="0.7", linestyle="--", label="in proportion to the work")
            place.set_xticks(values, [f"{value:g}" for value in values])
            place.minorticks_off()
            place.set_xlabel(axis)
            place.set_ylabel(f"{'forward pass' if kind == 'forward' else 'training step'}, ms")
            place.legend(fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
