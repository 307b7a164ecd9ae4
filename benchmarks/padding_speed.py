"""What does exact padding cost in OpenCV DNN?

The same net in four dialects of TensorFlow's SAME padding: exact (kernels enlarged by one where TensorFlow pads
unevenly), slice (one more output row and column, which are cut off), shift (the same on moved maps), and symmetric,
which is not exact and costs nothing. All run on the same input, in turn, with Winograd convolutions on (OpenCV's
default) and off, with all threads and with one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common

from ssdlite_caffe.gen_model.dialect import Dialect, PaddingDialect
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import preprocess
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.verify_report import drawn_images

DIALECTS: tuple[PaddingDialect, ...] = ("exact", "slice", "shift", "symmetric")
PEER: PaddingDialect = "symmetric"


def measure(graph: Path, repetitions: int, threads: list[int]) -> list[dict[str, Any]]:
    """Milliseconds of a forward pass to the detections, for each number of threads, with and without Winograd."""
    cv2 = import_opencv()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = {}
        for padding in DIALECTS:
            convert(graph, Path(scratch) / padding, ConvertOptions(dialect=Dialect(padding=padding)))
            folders[padding] = ModelFolder.open(Path(scratch) / padding)
        arch = folders[PEER].arch
        _, image = next(drawn_images(arch.input_size, 1))
        blob = preprocess(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
        for winograd in (True, False):
            for count in threads:
                cv2.setNumThreads(count)
                nets = {
                    name: OpenCvNet(folder.deploy_prototxt, folder.deploy_caffemodel, winograd=winograd)
                    for name, folder in folders.items()
                }
                times = common.alternate({name: _timed(net, blob) for name, net in nets.items()}, repetitions)
                rows.append({"threads": count, "winograd": winograd, "milliseconds": times})
    return rows


def _timed(net: OpenCvNet, blob: Any) -> Callable[[], float]:
    def once() -> float:
        start = time.perf_counter()
        net.forward(blob, ["detection_out"])
        return (time.perf_counter() - start) * 1e3

    return once


def main() -> None:
    options = common.parser(__doc__, repetitions=60).parse_args()
    about = common.machine("opencv", "numpy")
    threads = list(dict.fromkeys([import_opencv().getNumThreads(), 1]))
    result: dict[str, Any] = {
        "machine": about,
        "repetitions": options.repetitions,
        "models": {
            name: measure(graph, options.repetitions, threads) for name, graph in common.graphs(options.models).items()
        },
    }
    for rows in result["models"].values():
        for row in rows:
            times = row["milliseconds"]
            row["over_symmetric"] = {name: common.ratios(times[name], times[PEER]) for name in DIALECTS if name != PEER}
    common.report(result, _text(result), as_json=options.json)


def _text(result: dict[str, Any]) -> Iterator[str]:
    yield f"forward pass in ms, and its ratio to {PEER} run by run; least / median / most of {result['repetitions']}\n"
    rows = []
    for name, measured in result["models"].items():
        for row in measured:
            setting = f"{row['threads']}, {'on' if row['winograd'] else 'off'}"
            for dialect, times in row["milliseconds"].items():
                ratio = row["over_symmetric"].get(dialect)
                rows.append(
                    [
                        name,
                        setting,
                        dialect,
                        common.Spread.of(times).text("{:.1f}"),
                        ratio.text("{:.2f}") if ratio else "",
                    ]
                )
    yield common.table(["model", "threads, Winograd", "padding", "ms", f"ratio to {PEER}"], rows)


if __name__ == "__main__":
    main()
