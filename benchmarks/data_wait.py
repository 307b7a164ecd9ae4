"""Does Caffe's data layer keep ahead of the solver?

A training folder of MobileNetV2-SSDLite 300 as `kit` writes it: JPEGs from an LMDB, distorted, expanded, cropped by
seven samplers, mirrored. Measured in each step: how long the solver waits for the data layer, beside the time of the
step (forward and backward). And how long the data layer takes for a batch when nothing else runs. All in the built
Caffe, with as many threads as processors.

The images are bccd's where they are beside the repository, else drawn scenes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import caffe_speed
import common

from ssdlite_caffe.caffe.prefix import cache_folder, caffe_prefix

STEP, WAIT, SHARE, ALONE = "step, ms", "of it waiting for data, ms", "share of waiting", "a batch of data alone, ms"


def run(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "ssdlite_caffe", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def training_folder(scratch: Path, batch: int) -> tuple[Path, Path, str]:
    """The train net, one of its data layer alone, and what the images are."""
    images, what, split = common.default_images(), "bccd's training split", "train"
    if images is None:
        images, what, split = scratch / "scenes", "drawn scenes", "trainval"
        run("shapes", "-o", images, "--count", "400", "--quiet")
    lmdb = scratch / "lmdb"
    run("lmdb", "voc", images, "-o", lmdb, "--split", split, "--quiet")
    run("kit", lmdb / "labelmap.prototxt", "--train", lmdb, "--test", lmdb, "-o", scratch / "kit", "--quiet")
    text = (scratch / "kit" / "train.prototxt").read_text()
    text = re.sub(r'source: ".*"', f'source: "{lmdb}"', text)
    text = text.replace('label_map_file: "', f'label_map_file: "{scratch / "kit"}/')
    text = re.sub(r"batch_size: \d+", f"batch_size: {batch}", text, count=1)
    whole, alone = scratch / "whole.prototxt", scratch / "alone.prototxt"
    whole.write_text(text)
    data = re.search(r'^layer \{\n  name: "data"\n.*?^\}\n', text, re.MULTILINE | re.DOTALL)
    assert data
    alone.write_text(data.group() + 'layer { name: "end" type: "Silence" bottom: "data" bottom: "label" }\n')
    return whole, alone, what


def measure(program: Path, options: Any) -> dict[str, Any]:
    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        whole, alone, what = training_folder(Path(name), options.batch_size)
        net = caffe_speed.NetTime(program, alone, None, "TRAIN", threads)
        of_data = [net.milliseconds("forward") for _ in range(options.iterations + 10)][10:]
        net.close()
        net = caffe_speed.NetTime(program, whole, None, "TRAIN", threads)
        waits, steps = [], []
        for _ in range(options.iterations + 3):
            waited, step = map(float, net.ask("wait"))
            waits.append(waited)
            steps.append(step)
        net.close()
    waits, steps = waits[3:], steps[3:]  # the first batches are made while the net is
    return {
        "machine": common.machine("numpy"),
        "images": what,
        "batch": options.batch_size,
        "threads": threads,
        "iterations": options.iterations,
        STEP: steps,
        WAIT: waits,
        SHARE: [wait / step for wait, step in zip(waits, steps, strict=True)],
        ALONE: of_data,
    }


def text(result: dict[str, Any]) -> Iterator[str]:
    yield "{images}, {batch} images a batch, {threads} threads, {iterations} steps".format(**result)
    rows = [[name, common.Spread.of(result[name]).text(form)]
            for name, form in ((STEP, "{:.0f}"), (WAIT, "{:.2f}"), (SHARE, "{:.4f}"), (ALONE, "{:.0f}"))]  # fmt: skip
    yield common.table(["what", "least / median / most"], rows)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--iterations", type=int, default=40, help="training steps")
    parser.add_argument("--batch-size", type=int, default=8, help="images in a step")
    parser.add_argument("--prefix", type=Path, help="prefix of the built Caffe")
    parser.add_argument("--source", type=Path, help="sources of the fork, in place of the download")
    parser.add_argument(
        "--build", type=Path, default=cache_folder() / "caffe-speed", help="folder to build net_time in"
    )
    options = parser.parse_args()
    sides = caffe_speed.programs(options.build.absolute(), caffe_prefix(options.prefix), options.source, fork=False)
    result = measure(sides["ours"], options)
    result["machine"]["load_after"] = [round(load, 2) for load in os.getloadavg()]
    common.report(result, text(result), as_json=options.json)


if __name__ == "__main__":
    main()
