"""What does an FPNLite of 640 pixels, with its 51150 default boxes, cost?

Converting it, as a whole process, is compared with TensorFlow's loading of the same SavedModel. The deploy net in
OpenCV (and in the built Caffe, where there is one) is compared with the SavedModel in TensorFlow: each is a fresh
process, in turn, which loads its model and runs an image several times. DetectionOutput alone is timed on the values
that the net gives for the image, with the model's score threshold and with 0.3.

The model is one that `exporter_main_v2.py` wrote, or its checkpoint, which TensorFlow does not run. The image should be
one that it was trained for, since the number of good boxes decides what suppression costs.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np

from ssdlite_caffe.errors import MissingRuntimeError
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.caffe_net import CaffeNet
from ssdlite_caffe.runtimes.images import read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import caffe_blob, input_of

CONVERT, LOAD = "convert", "TensorFlow loads it"
FORWARD = ("OpenCV", "Caffe", "TensorFlow")
INPUTS = ("mbox_loc", "mbox_conf_flatten", "mbox_priorbox")
HIGHER = 0.3
"""A threshold at which detections are shown, against the model's own, at which nearly all boxes are candidates."""
_MEGABYTE = 1e6


def process(*command: str | Path) -> dict[str, float]:
    """Run a process: seconds, processor seconds, peak MB, and what it prints as JSON."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        started = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output, env=environment)
        _, status, used = os.wait4(started.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0)
        said = output.read().decode(errors="replace")
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"failed: {' '.join(map(str, command))}\n{said}")
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"seconds": seconds, "processor": used.ru_utime + used.ru_stime, "mb": used.ru_maxrss * unit / _MEGABYTE}
    lines = [line for line in said.splitlines() if line.startswith("{")]
    return found | (json.loads(lines[-1]) if lines else {})


def forward(side: str, model: Path, folder: Path, image: Path, count: int) -> dict[str, float]:
    """In a process of its own: load the model, run an image once untimed and `count` times; the median in ms."""
    opened = ModelFolder.open(folder)
    arch, pixels = opened.arch, read_image(image)
    run: Callable[[], Any]
    end: Callable[[], Any] = lambda: None  # noqa: E731
    if side == "TensorFlow":
        import tensorflow as tf

        saved = tf.saved_model.load(str(model / "saved_model"))  # its variables live as long as it does
        resized = import_opencv().resize(pixels[..., ::-1], arch.input_size[::-1])
        fed = tf.constant(np.ascontiguousarray(resized)[None])

        def run() -> Any:
            return saved.signatures["serving_default"](input_tensor=fed)["detection_scores"].numpy()

    else:
        blob = caffe_blob(input_of(arch, pixels[..., ::-1]))
        files = opened.deploy_prototxt, opened.deploy_caffemodel
        loaded: CaffeNet | OpenCvNet
        if side == "Caffe":
            loaded = CaffeNet(*files)
            end = loaded.close
        else:
            loaded = OpenCvNet(*files)

        def run() -> Any:
            return loaded.forward(blob, ["detection_out"])

    run()
    times = [_milliseconds(run) for _ in range(count)]
    end()  # a process counts among the children when it has ended
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / _MEGABYTE
    return {"ms": float(np.median(times)), **({"mb": children} if side == "Caffe" else {})}


def _milliseconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def detection_output(folder: ModelFolder, image: Path, scratch: Path, sides: list[str], count: int) -> list[Any]:
    """DetectionOutput alone, on the values that the net gives for an image."""
    arch, deploy = folder.arch, read_net(folder.deploy_prototxt)
    blob = caffe_blob(input_of(arch, read_image(image)[..., ::-1]))
    values = OpenCvNet(folder.deploy_prototxt, folder.deploy_caffemodel).forward(blob, INPUTS)
    scores = values["mbox_conf_flatten"].reshape(-1, arch.num_classes)[:, 1:]
    rows = []
    for threshold in (arch.nms.score_threshold, HIGHER):
        net = caffe_pb2.NetParameter(name="suppression")
        for name in INPUTS:
            layer = net.layer.add(name=name, type="Input", top=[name])
            layer.input_param.shape.add(dim=values[name].shape)
        net.layer.add().CopyFrom(deploy.layer[-1])
        net.layer[-1].detection_output_param.confidence_threshold = threshold
        prototxt = scratch / f"{threshold}.prototxt"
        prototxt.write_text(str(net))
        runs = {"OpenCV": _in_opencv(prototxt, values)}
        if "Caffe" in sides:
            caffe = CaffeNet(prototxt, None)
            runs["Caffe"] = partial(_milliseconds, partial(caffe.forward, values, ["detection_out"]))
        times = common.alternate(runs, count)
        rows.append({"threshold": threshold, "candidates": int((scores > threshold).sum()), "ms": times})
    return rows


def _in_opencv(prototxt: Path, values: dict[str, Any]) -> Callable[[], float]:
    net = import_opencv().dnn.readNetFromCaffe(str(prototxt))
    for name, value in values.items():
        net.setInput(value, name)

    def run() -> float:
        for name, value in values.items():
            net.setInput(value, name)
        return _milliseconds(lambda: net.forward("detection_out"))

    return run


def measure(model: Path, image: Path, repetitions: int, count: int) -> dict[str, Any]:
    """All three parts."""
    here = Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        ours = (sys.executable, "-m", "ssdlite_caffe", "convert", model, "-o", out, "--force", "-q")
        load = "import sys, tensorflow as tf; tf.saved_model.load(sys.argv[1])"
        converting = {
            CONVERT: lambda: process(*ours),
            LOAD: lambda: process(sys.executable, "-c", load, model / "saved_model"),
        }
        if not (model / "saved_model").is_dir():
            del converting[LOAD]
        converted = common.alternate(converting, repetitions)
        folder = ModelFolder.open(out)
        there = {"OpenCV": True, "Caffe": _has_caffe(folder), "TensorFlow": LOAD in converting}
        sides = [side for side in FORWARD if there[side]]
        running = {
            side: lambda side=side: process(sys.executable, here, "--side", side, "--model", model, "--folder", out,
                                            "--image", image, "--count", str(count))
            for side in sides
        }  # fmt: skip
        return {
            "arch": {"input": folder.arch.input_size, "classes": folder.arch.num_classes,
                     "width": folder.arch.width_multiplier},
            "convert": converted,
            "forward": common.alternate(running, repetitions),
            "detection_output": detection_output(folder, image, Path(scratch), sides, repetitions),
        }  # fmt: skip


def _has_caffe(folder: ModelFolder) -> bool:
    try:
        CaffeNet(folder.deploy_prototxt, folder.deploy_caffemodel).close()
    except MissingRuntimeError:
        return False
    return True


def main() -> None:
    parser = common.parser(__doc__, repetitions=5)
    parser.add_argument("--model", type=Path, help="folder that exporter_main_v2.py wrote; by default one in --models")
    parser.add_argument("--image", type=Path, help="image to detect in; by default one of the bccd images")
    parser.add_argument("--count", type=int, default=5, help="forward passes of a process")
    parser.add_argument("--side", choices=FORWARD, help="only run this one, in this process")
    parser.add_argument("--folder", type=Path, help="the converted model, with --side")
    options = parser.parse_args()
    images = common.default_images()
    image = options.image or next(iter(sorted(images.glob("JPEGImages/*.jpg"))) if images else iter(()), None)
    model = options.model or next(iter(sorted(options.models.glob("*fpnlite*"))), None)
    if model is None or image is None:
        sys.exit("give a folder that exporter_main_v2.py wrote with --model, and an image with --image")
    if options.side:
        print(json.dumps(forward(options.side, model, options.folder, image, options.count)))
        return
    result = {
        "machine": common.machine("numpy", "opencv", "tensorflow"),
        "model": model.name,
        **measure(model, image, options.repetitions, options.count),
    }
    common.report(result, _text(result), as_json=options.json)


def _text(result: dict[str, Any]) -> Iterator[str]:
    yield f"{result['model']} {result['arch']}; least / median / most\n"
    head = ["what", "seconds", "processor seconds", "peak MB"]
    yield common.table(head, [
        [name, *(common.Spread.of([run[key] for run in runs]).text(form)
                 for key, form in (("seconds", "{:.2f}"), ("processor", "{:.2f}"), ("mb", "{:.0f}")))]
        for name, runs in result["convert"].items()
    ])  # fmt: skip
    rows = [
        [name, *(common.Spread.of([run[key] for run in runs]).text("{:.0f}") for key in ("ms", "mb"))]
        for name, runs in result["forward"].items()
    ]
    yield "\n" + common.table(["forward pass", "ms", "peak MB"], rows)
    rows = [
        [f"{row['threshold']:g}", str(row["candidates"]), name, common.Spread.of(times).text("{:.1f}")]
        for row in result["detection_output"]
        for name, times in row["ms"].items()
    ]
    yield "\n" + common.table(["score threshold", "candidates", "DetectionOutput in", "ms"], rows)


if __name__ == "__main__":
    main()
