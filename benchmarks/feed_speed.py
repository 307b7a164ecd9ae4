"""How soon does `keras train` start, and does its feed keep up?

20,000 JPEGs of 300x300 pixels with their annotations in VOC's layout, made for the run. Start: from nothing to the data
being ready, for the first start, which decodes every image, for a second one, and for one with a tenth of the images
changed; each in a process of its own. Feed: images/s of our reading alone, of the same with augmentation and
matching of default boxes, of the training step alone on one batch in memory, and of training with all of it.

The peer is a plain tf.data pipeline over the same files: read, decode and resize with TensorFlow's operations, in as
many threads as it likes, without augmentation and boxes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np

FIRST, SECOND, CHANGED = "first start", "second start", "a tenth changed"
READING, FEED, PEER, STEP, BOTH = "reading", "feed", "tf.data, plain", "step", "training"
SIDE, SEED = 300, 5


def make(folder: Path, count: int) -> None:
    """Make images in VOC's layout: 100 drawn scenes again and again, each time with other noise."""
    from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
    from ssdlite_caffe.imports import import_opencv

    cv2 = import_opencv()
    scenes = min(count, 100)
    make_shapes(folder, ShapesOptions(scenes, SEED, side=SIDE))
    images = [cv2.imread(str(path)) for path in sorted((folder / "JPEGImages").iterdir())]
    notes = [path.read_text() for path in sorted((folder / "Annotations").iterdir())]
    random = np.random.default_rng(SEED)
    for number in range(scenes, count):
        noise = random.integers(-20, 21, (SIDE, SIDE, 3), np.int16)
        image = np.clip(images[number % scenes] + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / "JPEGImages" / f"{number:06d}.jpg"), image)
        (folder / "Annotations" / f"{number:06d}.xml").write_text(notes[number % scenes])
    names = "".join(f"{number:06d}\n" for number in range(count))
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text(names)


def change(folder: Path) -> None:
    """Give every tenth image another time, as a change of its content does."""
    for path in sorted((folder / "JPEGImages").iterdir())[::10]:
        known = path.stat()
        os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns + 10**9))


def start(data: Path) -> dict[str, float]:
    """Seconds until the data are ready, those of the processor, images that were decoded, and peak memory in MiB."""
    from ssdlite_caffe.keras.feed import open_training_data

    began, used = time.perf_counter(), time.process_time()
    ready = open_training_data(data, kept=data / "scan.npz")
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    return {"seconds": seconds, "processor": processor, "decoded": ready.decoded, "mib": peak()}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def speed(side: str, data: Path, images: int, batch: int) -> dict[str, float]:
    """Images/s over whole batches, milliseconds of the processor an image, and peak memory in MiB."""
    steps = max(1, images // batch)
    step = {READING: reading, PEER: peer}.get(side, training)(data, batch, side)
    for _ in range(2):
        step()
    began, used = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    return {"speed": steps * batch / seconds, "processor": 1e3 * processor / (steps * batch), "mib": peak()}


def reading(data: Path, batch: int, _: str) -> Callable[[], object]:
    from ssdlite_caffe.keras.feed import Feed, open_training_data, order

    ready = open_training_data(data, kept=data / "scan.npz")
    items = Feed(ready, order(SEED, len(ready), 0))()
    return lambda: list(itertools.islice(items, batch))


def peer(data: Path, batch: int, _: str) -> Callable[[], object]:
    from ssdlite_caffe.imports import import_keras

    _, tf = import_keras()
    files = sorted(str(path) for path in (data / "JPEGImages").iterdir())

    def read(path: Any) -> Any:
        return tf.image.resize(tf.io.decode_jpeg(tf.io.read_file(path), 3), (320, 320))

    shuffled = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), SEED).repeat()
    batches = iter(shuffled.map(read, tf.data.AUTOTUNE).batch(batch).prefetch(2))
    return lambda: next(batches)


def training(data: Path, batch: int, side: str) -> Callable[[], object]:
    from ssdlite_caffe.imports import import_keras

    _, tf = import_keras()
    tf.config.experimental.enable_op_determinism()
    from ssdlite_caffe.gen_model.build import default_arch
    from ssdlite_caffe.keras.feed import open_training_data
    from ssdlite_caffe.keras.trainer import StepOptions, Trainer

    ready = open_training_data(data, kept=data / "scan.npz")
    arch = default_arch("v3-small", len(ready.labels))
    trainer = Trainer(arch, ready.labels, StepOptions(batch=batch), ready, SEED, tf.distribute.get_strategy())
    batches = trainer.batches(0)
    if side == FEED:
        return lambda: next(batches)
    if side == STEP:
        batches = itertools.repeat(next(batches))
    numbers = itertools.count()
    return lambda: trainer.step(batches, next(numbers), 1e-4)


def alone(options: argparse.Namespace, *what: object) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, f"--batch-size={options.batch_size}", f"--timed={options.timed}", "--only"]
    # The faster oneDNN kernels, as in a training; see keras/train.py.
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "PYTHONPATH": str(common.ROOT)}
    done = subprocess.run([*command, *map(str, what)], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    pairs = (part.split("=") for part in done.stdout.splitlines()[-1].split())
    return {name: float(value) for name, value in pairs}


def text(result: dict[str, Any]) -> Iterator[str]:
    rows = [
        [name, *(one[n].text("{:.2f}") for n in ("seconds", "processor")), f"{one['decoded']:.0f}", f"{one['mib']:.0f}"]
        for name, one in result["starts"].items()
    ]
    yield common.table(
        [f"{result['images']} images", "seconds", "of the processor", "images decoded", "peak MiB"], rows
    )
    rows = [
        [name, one["speed"].text("{:.1f}"), one["processor"].text("{:.2f}"), f"{one['mib']:.0f}"]
        for name, one in result["speeds"].items()
    ]
    yield common.table(["V3-small", "images/s", "ms of the processor an image", "peak MiB"], rows)
    yield f"feed / step: {result['feed over step'].text('{:.2f}')}"


def main() -> None:
    parser = common.parser(__doc__.splitlines()[0] if __doc__ else None, repetitions=2)
    parser.add_argument("--images", type=int, default=20000, help="images of the set that is made")
    parser.add_argument("--batch-size", type=int, default=32, help="images of a step")
    parser.add_argument("--timed", type=int, default=1024, help="images of a timed run")
    parser.add_argument("--only", nargs=2, help="measure one side in this process; the benchmark calls itself with it")
    options = parser.parse_args()
    if options.only:
        side, data = options.only[0], Path(options.only[1])
        found = start(data) if side == "start" else speed(side, data, options.timed, options.batch_size)
        print(" ".join(f"{name}={value}" for name, value in found.items()))
        return
    starts: dict[str, list[dict[str, float]]] = {FIRST: [], SECOND: [], CHANGED: []}
    speeds: dict[str, list[dict[str, float]]] = {side: [] for side in (READING, FEED, PEER, STEP, BOTH)}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "voc"
        make(data, options.images)
        for _ in range(options.repetitions):
            (data / "scan.npz").unlink(missing_ok=True)
            starts[FIRST].append(alone(options, "start", data))
            starts[SECOND].append(alone(options, "start", data))
            change(data)
            starts[CHANGED].append(alone(options, "start", data))
            for side, known in speeds.items():
                known.append(alone(options, side, data))
    result = {
        "images": options.images,
        "starts": {
            name: {
                "seconds": common.Spread.of([one["seconds"] for one in known]),
                "processor": common.Spread.of([one["processor"] for one in known]),
                "decoded": known[-1]["decoded"],
                "mib": max(one["mib"] for one in known),
            }
            for name, known in starts.items()
        },
        "speeds": {
            side: {
                "speed": common.Spread.of([one["speed"] for one in known]),
                "processor": common.Spread.of([one["processor"] for one in known]),
                "mib": max(one["mib"] for one in known),
            }
            for side, known in speeds.items()
        },
        "feed over step": common.ratios(*([one["speed"] for one in speeds[side]] for side in (FEED, STEP))),
        "machine": common.machine("tensorflow", "keras", "opencv", "numpy"),
    }
    common.report(result, text(result), as_json=options.json)


if __name__ == "__main__":
    main()
