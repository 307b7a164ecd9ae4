"""How fast are the Keras nets, on the CPU?

Training: a step of V3-large SSDLite 320 with 91 classes, ours in Keras compared with torchvision's. Both read images
from memory, with the same number of objects, and do forward, loss, backward and update with momentum. torchvision
matches boxes in the step. Our training does it in tf.data, so here the matching is added to the timed step.

Inference: TensorFlow's frozen graph and what it is converted to: Keras, TensorFlow Lite and OpenCV with the Caffe net,
each from an image of any size to detections.

Every side runs in its own process, in turn; the result is the shortest step of all turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common

if TYPE_CHECKING:
    from ssdlite_caffe.gen_model.arch import FamilyName

SIDE, CLASSES, OBJECTS = 320, 91, 8
TENSORFLOW, KERAS, TFLITE, OPENCV = "TensorFlow's graph", "Keras", "TensorFlow Lite", "OpenCV, Caffe net"
OURS, TORCHVISION = "ours, Keras", "torchvision"


def training_step(family: FamilyName, classes: int, batch: int, objects: int) -> Callable[[], float]:
    """A training step in Keras on random images: matching, forward, loss, backward, update. It gives its loss."""
    from ssdlite_caffe.imports import import_keras

    keras, tf = import_keras()
    from ssdlite_caffe.gen_model.build import build, default_arch
    from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
    from ssdlite_caffe.keras.losses import LossOptions, kernel_decay, ssd_sums, suited
    from ssdlite_caffe.keras.model import build_model
    from ssdlite_caffe.keras.targets import assign

    arch = default_arch(family, classes)
    options = suited(LossOptions("hard-negatives"), arch)
    model = build_model(arch)
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    optimizer.build(model.trainable_variables)
    defaults = tf_default_boxes(build(arch))

    @tf.function  # type: ignore[untyped-decorator]
    def step(pixels: object, boxes: object, labels: object) -> object:
        def targets(item: Any) -> object:
            return tuple(assign(item[0], item[1], tf.zeros_like(item[1], tf.bool), defaults, arch.variances))

        types = (tf.float32, tf.int32, tf.float32)
        wanted = tf.map_fn(targets, (boxes, labels), fn_output_signature=types)
        with tf.GradientTape() as tape:
            encodings, logits = model(pixels, training=True).values()
            sums = ssd_sums(encodings, logits, wanted, options, "softmax")
            loss = tf.reduce_sum(sums.localisation + sums.classification) / tf.maximum(sums.matches, 1.0)
            loss += kernel_decay(model, 4e-5)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    corner = tf.random.uniform((batch, objects, 2), 0.0, 0.7)
    data = (
        tf.random.uniform((batch, *arch.input_size, 3), -1.0, 1.0),
        tf.concat([corner, corner + 0.2], -1),
        tf.random.uniform((batch, objects), 1, classes, tf.int32),
    )
    return lambda: float(step(*data))


def ours(batch: int, steps: int) -> float:
    return shortest(training_step("v3-large", CLASSES, batch, OBJECTS), steps)


def torchvisions(batch: int, steps: int) -> float:
    import torch
    import torchvision

    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES
    ).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=4e-5)
    images = [torch.rand(3, SIDE, SIDE) for _ in range(batch)]
    corners = torch.rand(batch, OBJECTS, 2) * 0.7 * SIDE
    targets = [
        {"boxes": torch.cat([c, c + 0.2 * SIDE], 1), "labels": torch.randint(1, CLASSES, (OBJECTS,))} for c in corners
    ]

    def step() -> float:
        optimizer.zero_grad()
        loss = sum(model(images, targets).values())
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return shortest(step, steps)


def runtime(side: str, folder: Path) -> Callable[[Any], Any]:
    """A detector for one form of the model; `folder` is filled by `prepare`."""
    if side == TENSORFLOW:
        from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector

        detector = TensorFlowDetector(folder / "model.pb")
        return lambda image: detector.detect_image(image[..., ::-1])
    if side == OPENCV:
        import cv2

        from ssdlite_caffe.runtimes.detector import Detector
        from ssdlite_caffe.runtimes.model_folder import ModelFolder

        cv2.setNumThreads(int(os.environ["OMP_NUM_THREADS"]))
        return Detector(ModelFolder.open(folder / "caffe"))
    from ssdlite_caffe.keras.detectors import ExportedTfliteDetector, KerasDetector

    if side == TFLITE:
        return ExportedTfliteDetector(folder / "model.tflite", threads=int(os.environ["OMP_NUM_THREADS"]))
    from ssdlite_caffe.keras.store import load

    return KerasDetector(load(folder / "model.keras"))


def inference(side: str, folder: Path, steps: int) -> float:
    from ssdlite_caffe.runtimes.images import read_image

    image = read_image(folder / "image.png")
    run = runtime(side, folder)
    return shortest(lambda: run(image), steps)


def prepare(graph: Path, folder: Path) -> None:
    """Write all forms of a frozen graph, and an image, into `folder`."""
    from ssdlite_caffe.imports import import_opencv
    from ssdlite_caffe.runtimes.images import read_image

    cv2 = import_opencv()
    folder.mkdir()
    (folder / "model.pb").write_bytes(graph.read_bytes())
    image = cv2.resize(read_image(common.ROOT / "examples" / "shapes.png"), (640, 480))
    cv2.imwrite(str(folder / "image.png"), image)
    for command in (
        ("convert", "model.pb", "-o", "caffe"),
        ("keras", "import", "model.pb", "-o", "model.keras"),
        ("keras", "export", "tflite", "model.keras", "-o", "model.tflite"),
    ):
        process = [sys.executable, "-m", "ssdlite_caffe.cli", *command]
        search = {**os.environ, "PYTHONPATH": str(common.ROOT)}
        subprocess.run(process, cwd=folder, env=search, check=True, stdout=subprocess.DEVNULL)


def shortest(step: Callable[[], Any], steps: int) -> float:
    """Seconds of the shortest of `steps` runs, after three untimed ones."""
    for _ in range(3):
        step()
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return min(times)


def in_turn(sides: dict[str, list[str]], turns: int, threads: int) -> dict[str, float]:
    """Each side's shortest step in seconds; the value of a side is the command that times it."""
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    # TensorFlow's default, the faster oneDNN kernels; our commands switch them off to have the same numbers everywhere.
    settings = {**dict.fromkeys(names, str(threads)), "TF_ENABLE_ONEDNN_OPTS": "1", "PYTHONPATH": str(common.ROOT)}
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(turns):
        for side, command in sides.items():
            done = subprocess.run(command, env={**os.environ, **settings}, check=True, stdout=subprocess.PIPE)
            found[side].append(float(done.stdout.splitlines()[-1]))
    return {side: min(times) for side, times in found.items()}


def has_torchvision(python: str) -> bool:
    return subprocess.run([python, "-c", "import torchvision"], capture_output=True, check=False).returncode == 0


def text(result: dict[str, Any]) -> Iterator[str]:
    speeds = result["training"]
    if speeds:
        rows = [[side, f"{speed:.2f}"] for side, speed in speeds.items()]
        yield common.table(["training step, V3-large", "images/s"], rows)
    if len(speeds) == 2:
        yield f"ours / torchvision: {speeds[OURS] / speeds[TORCHVISION]:.2f}\n"
    elif speeds:
        yield "torchvision was not found: pip install torch torchvision, or give a Python that has it\n"
    if result["inference"]:
        sides = [TENSORFLOW, KERAS, TFLITE, OPENCV]
        rows = [[name, *(f"{1e3 * times[side]:.1f}" for side in sides)] for name, times in result["inference"].items()]
        yield common.table(["image to detections, ms", *sides], rows)


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0] if __doc__ else None, repetitions=2)
    parser.add_argument("--batch-size", type=int, default=8, help="images in a training step")
    parser.add_argument("--iterations", type=int, default=10, help="timed steps in each turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--torch-python", default=sys.executable, help="Python with torch and torchvision")
    parser.add_argument("--part", choices=["training", "inference"], help="run only this part")
    parser.add_argument("--only", nargs="+", help="time one side in this process; the benchmark calls itself with it")
    options = parser.parse_args()
    if options.only:
        side, *folder = options.only
        if folder:
            seconds = inference(side, Path(folder[0]), options.iterations)
        else:
            seconds = (ours if side == OURS else torchvisions)(options.batch_size, options.iterations)
        print(seconds)
        return
    rest = [f"--batch-size={options.batch_size}", f"--iterations={options.iterations}", "--only"]
    pythons = {OURS: sys.executable}
    if has_torchvision(options.torch_python):
        pythons[TORCHVISION] = options.torch_python
    result: dict[str, Any] = {"machine": {}, "training": {}, "inference": {}}
    turns = options.repetitions, options.threads
    if options.part != "inference":
        sides = {side: [python, __file__, *rest, side] for side, python in pythons.items()}
        seconds_of = in_turn(sides, *turns)
        result["training"] = {side: options.batch_size / seconds for side, seconds in seconds_of.items()}
    if options.part != "training":
        with tempfile.TemporaryDirectory() as temporary:
            for name, graph in common.graphs(options.models).items():
                folder = Path(temporary) / name
                prepare(graph, folder)
                sides = {
                    side: [sys.executable, __file__, *rest, side, str(folder)]
                    for side in (TENSORFLOW, KERAS, TFLITE, OPENCV)
                }
                result["inference"][name] = in_turn(sides, *turns)
    result["machine"] = common.machine("tensorflow", "keras", "opencv", "numpy")
    common.report(result, text(result), as_json=options.json)


if __name__ == "__main__":
    main()
