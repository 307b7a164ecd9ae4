"""How fast is the built Caffe on the CPU?

Compared on one machine, in turn: the unmodified fork with its own layers, our build, OpenCV DNN and, for the net up to
its heads, onnxruntime with the same weights. Measured: the forward pass of the folded deploy net (to the detections,
and to the heads), a training step (forward and backward) with its memory, and single depthwise layers.

The fork and our build are timed by `net_time`, which `caffe_speed_build` links with each of them. It is built in the
first run, which takes minutes for the fork, in the folder `--build`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
from onnx_net import exact_sixths, onnx_session

from ssdlite_caffe.caffe.prefix import cache_folder, caffe_prefix
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.tools.convert import ConvertOptions, convert

HERE = Path(__file__).resolve().parent
LAYERS = {"112x112x96": (96, 112, 1), "75x75x144": (144, 75, 1), "19x19x576": (576, 19, 1), "10x10x960": (960, 10, 1)}
"""Depthwise layers of kernel 3, stride 1: channels, side, stride."""

LAYER_NET = """
name: "layer" force_backward: true
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: {c} dim: {s} dim: {s} }} }} }}
layer {{ name: "dw" type: "Convolution" bottom: "data" top: "dw" convolution_param {{ num_output: {c} group: {c}
  kernel_size: 3 pad: 1 stride: {stride} bias_term: false weight_filler {{ type: "msra" }} }} }}
"""
PAUSE = 0.2
"""Seconds before each turn, in which threads of the other sides stop."""
WARM = 0.2
"""Seconds of passes right before the timed one, in the same process: as in a stream of images."""
INPUTS = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: {n} dim: 3 dim: {h} dim: {w} }} }} }}
layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: 1 dim: 1 dim: {boxes} dim: 8 }} }} }}
"""


class NetTime:
    """A `net_time` process: one net in one Caffe."""

    def __init__(self, program: Path, net: Path, weights: Path | None, phase: str, threads: int) -> None:
        counts = {f"{name}_NUM_THREADS": str(threads) for name in ("CAFFE", "OPENBLAS", "OMP")}
        self._process = subprocess.Popen(
            [program, net, weights or "-", phase],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **counts},
        )

    def ask(self, word: str) -> list[str]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"net_time ended: {self._process.wait()}")
        return answer.split()

    def milliseconds(self, word: str) -> float:
        return float(self.ask(word)[0])

    def warm(self) -> float:
        """Milliseconds of a forward pass after others."""
        return self.milliseconds(f"warm {WARM}")

    def close(self) -> float:
        """End the process; its peak memory in MiB."""
        peak = self.milliseconds("peak")
        self._process.communicate()
        return peak


def programs(build: Path, prefix: Path, source: Path | None, *, fork: bool) -> dict[str, Path]:
    """Paths of net_time for our side, and the fork's if asked for; builds them if they do not exist or are older."""
    sides = {"fork": build / "net_time_fork"} if fork else {}
    sides["ours"] = build / "net_time_ours"
    written = (HERE / "caffe_speed_build" / "net_time.cpp").stat().st_mtime
    if not all(path.is_file() and path.stat().st_mtime >= written for path in sides.values()):
        if source is None:
            from ssdlite_caffe.caffe.sources import downloaded_sources

            source = downloaded_sources(cache_folder(), print)
        print(f"building in {build}; the unmodified fork takes some minutes", file=sys.stderr)
        options = [f"-DCAFFE_SOURCE={source}", f"-DCAFFE_PREFIX={prefix}"]
        subprocess.run(["cmake", "-G", "Ninja", "-S", HERE / "caffe_speed_build", "-B", build, *options], check=True)
        subprocess.run(["ninja", "-C", build, *(path.name for path in sides.values())], check=True)
    return sides


def measured(
    sides: dict[str, NetTime], words: Sequence[str], repetitions: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, float]]:
    """Milliseconds of each command of net_time on each side, and each side's peak memory in MiB."""

    def once(net: NetTime) -> dict[str, float]:
        return {word: net.milliseconds(word) for word in words}

    runs = {name: lambda net=net: once(net) for name, net in sides.items()}
    turns = common.alternate(runs, repetitions, pause=PAUSE, warm=WARM)
    times = {name: {word: [turn[word] for turn in of] for word in words} for name, of in turns.items()}
    if len(words) > 1:
        for of_side in times.values():
            of_side["step"] = [sum(parts) for parts in zip(*(of_side[word] for word in words), strict=True)]
    return times, {name: net.close() for name, net in sides.items()}


def opencv(net: Path, weights: Path, blob: Any, outputs: list[str], threads: int) -> Callable[[], float]:
    import_opencv().setNumThreads(threads)
    loaded = OpenCvNet(net, weights, winograd=True)
    return timed(lambda: loaded.forward(blob, outputs))


def timed(run: Callable[[], Any]) -> Callable[[], float]:
    """What `NetTime.warm` measures, of a function."""

    def once() -> float:
        now = time.perf_counter()
        ready = now + WARM
        while now < ready:
            run()
            now = time.perf_counter()
        run()
        return (time.perf_counter() - now) * 1e3

    return once


def forward(sides: dict[str, Path], folder: ModelFolder, scratch: Path, options: Any) -> dict[str, Any]:
    """Milliseconds of a forward pass to the detections, and to the heads, for each count of threads and images."""
    result = {}
    heads = ["mbox_loc", "mbox_conf"]
    weights = folder.deploy_caffemodel
    for threads in options.threads:
        for images in options.images:
            blob = np.random.default_rng(3).uniform(-1, 1, (images, 3, *folder.arch.input_size)).astype(np.float32)
            for name, text, outputs in (
                ("to the detections", folder.deploy_prototxt, ["detection_out"]),
                ("to the heads", folder.headless_prototxt, heads),
            ):
                if outputs != heads and images > 1 and folder.arch.nms.clip_first:
                    print(f"{name}, {images} images: skipped, the deploy net clips the boxes of one", file=sys.stderr)
                    continue
                net = scratch / "forward.prototxt"
                net.write_text(text.read_text().replace("dim: 1\n", f"dim: {images}\n", 1))
                nets = {side: NetTime(path, net, weights, "TEST", threads) for side, path in sides.items()}
                runs = {side: of.warm for side, of in nets.items()}
                runs["opencv"] = opencv(net, weights, blob, outputs, threads)
                if outputs == heads and (session := onnx_session(net, weights, heads, threads)):
                    runs["onnxruntime"] = timed(partial(session.run, None, {"input": blob}))
                    _check_equal(session, net, weights, blob, heads)
                times = common.alternate(runs, options.repetitions, pause=PAUSE)
                peak = {side: of.close() for side, of in nets.items()}
                result[f"{name}, {threads} threads, {images} images"] = {"milliseconds": times, "peak_mib": peak}
    return result


def _check_equal(session: Any, net: Path, weights: Path, blob: Any, outputs: list[str]) -> None:
    """Check that the ONNX graph computes the Caffe net.

    A wrong graph is off by some tenth of the largest value or more, rounding by less than a thousandth. In a V3-large
    of random weights squeeze-and-excitation multiplies rounding, and by chance more in one program than in another:
    there onnxruntime is 7.2 times as far from float64 as OpenCV, and hardly farther up to layer conv_11.
    """
    reference = ReferenceNet(net, weights, double=True)
    exact, of_graph = (one.forward(blob, outputs) for one in (reference, exact_sixths(reference)))
    opencv = OpenCvNet(net, weights).forward(blob, outputs)
    for name, theirs in zip(outputs, session.run(None, {"input": blob}), strict=True):
        apart = float(np.abs(theirs.ravel() - of_graph[name].ravel()).max())
        usual = float(np.abs(opencv[name].ravel() - exact[name].ravel()).max())
        if apart > max(1e-3 * np.abs(exact[name]).max(), 15 * usual):
            sys.exit(
                f"{name} of the ONNX graph is {apart:.3g} away from float64, and OpenCV's of the Caffe net {usual:.3g}"
            )


def training(sides: dict[str, Path], folder: ModelFolder, scratch: Path, options: Any) -> dict[str, Any]:
    """Milliseconds and peak memory of a training step on random images with three boxes each."""
    height, width = folder.arch.input_size
    text = (folder.path / "train.prototxt").read_text()
    data = re.search(r'^layer \{\n  name: "data"\n.*?^\}\n', text, re.MULTILINE | re.DOTALL)
    assert data
    made = INPUTS.format(n=options.batch_size, h=height, w=width, boxes=3 * options.batch_size)
    net = scratch / "train.prototxt"
    net.write_text(text[: data.start()] + made + text[data.end() :])
    weights = folder.path / "train.caffemodel"
    nets = {side: NetTime(path, net, weights, "TRAIN", max(options.threads)) for side, path in sides.items()}
    times, peak = measured(nets, ["forward", "backward"], options.iterations)
    return {"batch": options.batch_size, "milliseconds": times, "peak_mib": peak}


def layers(sides: dict[str, Path], scratch: Path, options: Any) -> dict[str, Any]:
    """Milliseconds of single depthwise layers."""
    result = {}
    for name, (channels, side, stride) in LAYERS.items():
        net = scratch / "layer.prototxt"
        net.write_text(LAYER_NET.format(c=channels, s=side, stride=stride))
        nets = {of: NetTime(path, net, None, "TRAIN", max(options.threads)) for of, path in sides.items()}
        result[name] = {"milliseconds": measured(nets, ["forward", "backward"], options.repetitions)[0]}
    return result


def main() -> None:
    parser = common.parser(__doc__, repetitions=30)
    parser.add_argument("--iterations", type=int, default=5, help="training steps of each side")
    parser.add_argument("--batch-size", type=int, default=8, help="images in a training step")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[os.cpu_count() or 1],
        help="of a forward pass; training: the most",
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1], help="images in a forward pass")
    parser.add_argument("--only-forward", action="store_true", help="no fork, no training: ours and its peers")
    parser.add_argument("--prefix", type=Path, help="prefix of the built Caffe")
    parser.add_argument("--source", type=Path, help="sources of the fork, in place of the download")
    parser.add_argument(
        "--build", type=Path, default=cache_folder() / "caffe-speed", help="folder to build net_time in"
    )
    options = parser.parse_args()
    sides = programs(
        options.build.absolute(), caffe_prefix(options.prefix), options.source, fork=not options.only_forward
    )
    result: dict[str, Any] = {
        "machine": common.machine("opencv", "onnxruntime", "numpy"),
        "repetitions": options.repetitions,
        "threads": options.threads,
        "models": {},
    }
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        result["layers"] = {} if options.only_forward else layers(sides, scratch, options)
        for model, graph in common.graphs(options.models).items():
            try:
                convert(graph, scratch / model, ConvertOptions())
                folder = ModelFolder.open(scratch / model)
                result["models"][model] = {"forward": forward(sides, folder, scratch, options)}
                if not options.only_forward:
                    result["models"][model]["training"] = training(sides, folder, scratch, options)
            except KeyError as error:
                print(f"{model} skipped: {error}", file=sys.stderr)
    _compare(result)
    result["machine"]["load_after"] = [round(load, 2) for load in os.getloadavg()]
    common.report(result, _text(result), as_json=options.json)


def _compare(result: dict[str, Any]) -> None:
    """Add the quotients of each side's times and ours, run by run."""
    for layer in result["layers"].values():
        times = layer["milliseconds"]
        layer["fork_over_ours"] = {
            word: common.ratios(times["fork"][word], times["ours"][word]) for word in times["fork"]
        }
    for model in result["models"].values():
        for part in model["forward"].values():
            times = part["milliseconds"]
            part["over_ours"] = {name: common.ratios(times[name], times["ours"]) for name in times if name != "ours"}
        if "training" in model:
            model["training"]["fork_over_ours"] = _over(model["training"]["milliseconds"])


def _over(times: dict[str, dict[str, list[float]]]) -> dict[str, common.Spread]:
    return {word: common.ratios(times["fork"][word], times["ours"][word]) for word in times["fork"]}


def _text(result: dict[str, Any]) -> Iterator[str]:
    yield f"least / median / most of {result['repetitions']} runs; ratios run by run\n"
    rows = []
    for name, layer in result["layers"].items():
        rows += _rows(f"depthwise 3x3 {name}", layer)
    for model, measures in result["models"].items():
        for part, forwards in measures["forward"].items():
            for side, times in forwards["milliseconds"].items():
                ratio = forwards["over_ours"].get(side)
                what = [f"{model} {part}", side, common.Spread.of(times).text("{:.2f}")]
                rows.append([*what, ratio.text("{:.2f}") if ratio else ""])
        if "training" in measures:
            rows += _rows(f"{model} training, batch {measures['training']['batch']}", measures["training"])
    yield common.table(["what", "side", "ms", "ratio to ours"], rows)
    yield ""
    for model, measures in result["models"].items():
        parts = {**measures["forward"], **({"training": measures["training"]} if "training" in measures else {})}
        for part, peak in ((part, of["peak_mib"]) for part, of in parts.items()):
            yield f"{model} {part}, peak memory: " + ", ".join(f"{side} {mib:.0f} MiB" for side, mib in peak.items())


def _rows(what: str, measures: dict[str, Any]) -> list[list[str]]:
    return [
        [
            f"{what}, {word}",
            side,
            common.Spread.of(times).text("{:.3f}"),
            measures["fork_over_ours"][word].text("{:.2f}") if side == "fork" else "",
        ]
        for word in measures["fork_over_ours"]
        for side, times in ((side, of[word]) for side, of in measures["milliseconds"].items())
    ]


if __name__ == "__main__":
    main()
