"""How much does each converted model differ from TensorFlow?

`convert` and `verify` on every model: the largest difference of any layer, of all decoded boxes, of all scores, and of
the detections, over several images. The images are bccd's test images; drawn scenes for the example model, which
detects shapes; and other drawn images if there is no bccd.

With --float64, both nets are also computed in double precision, which separates the effect of the conversion from the
rounding of each runtime.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np

from ssdlite_caffe.errors import SsdliteError
from ssdlite_caffe.runtimes.decode import decode_boxes, split_priors
from ssdlite_caffe.runtimes.images import read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import caffe_blob, network_input
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.tolerances import LAYER_ABSOLUTE
from ssdlite_caffe.tools.verify import ImageComparison, NamedImage, Row, VerifyReport, verify
from ssdlite_caffe.tools.verify_report import drawn_images

SHAPES = ("shapes_v3_small_3", "examples")


def images(name: str, data: Path | None, size: tuple[int, int], count: int) -> Iterable[NamedImage]:
    if name in SHAPES:
        sys.path.append(str(common.ROOT))
        from tests.scenes import draw_scene

        return ((f"scene {seed}", draw_scene(seed)[0]) for seed in range(count))
    if data is None:
        return drawn_images(size, count)
    names = (data / "ImageSets" / "Main" / "test.txt").read_text("utf-8").split()[:count]
    return ((one, np.ascontiguousarray(read_image(data / "JPEGImages" / f"{one}.jpg")[..., ::-1])) for one in names)


def measure(name: str, graph: Path, data: Path | None, count: int, float64: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        convert(graph, out, ConvertOptions())
        folder = ModelFolder.open(out)
        taken = list(images(name, data, folder.arch.input_size, count))
        results: list[ImageComparison] = []
        found = _maxima(verify(graph, folder, taken, keep=results.append))
        found["detections"] = _detections(results, folder.arch.nms.max_total)
        if float64:
            found["float64"] = in_float64(graph, folder, taken)
    return found


def in_float64(graph: Path, folder: ModelFolder, taken: Iterable[NamedImage]) -> dict[str, list[float]]:
    """Largest differences of all boxes and of all scores, between pairs of four ways to compute them."""
    sys.path.append(str(common.ROOT))
    from tests.float64 import BLOBS, DECODED, CaffeNet, TensorFlowNet, box_order

    arch = folder.arch
    opencv = OpenCvNet(folder.deploy_prototxt, folder.deploy_caffemodel)
    caffe64 = CaffeNet(folder.deploy_prototxt, folder.deploy_caffemodel, BLOBS)
    worst: dict[str, list[float]] = {}
    with TensorFlowDetector(graph) as tensorflow:
        tensorflow64 = TensorFlowNet(graph, tensorflow.network_input, DECODED)
        for _, image in taken:
            fed = network_input(image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
            blob = caffe_blob(fed)
            exact, net = tensorflow64.decoded(fed), caffe64.decoded(blob)
            order = box_order(folder.report["feature_maps"], net, exact)
            exact = exact[0][order], exact[1][order]
            raw = tensorflow.raw(fed)
            loc, scores, priors = opencv.forward(blob, BLOBS).values()
            boxes = decode_boxes(loc.reshape(-1, 4), *split_priors(priors))
            compared = {
                "the nets": (net, exact),
                "TensorFlow": ((raw.boxes[order][:, [1, 0, 3, 2]], raw.scores[order]), exact),
                "OpenCV": ((boxes, scores.reshape(len(boxes), -1)), net),
            }
            for name, (some, others) in compared.items():
                largest = [float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True)]
                worst[name] = [max(pair) for pair in zip(worst.get(name, [0.0, 0.0]), largest, strict=True)]
    return worst


def _maxima(report: VerifyReport) -> dict[str, Any]:
    rows = {row.stage: row for row in report.rows}
    layer = max((row for row in report.rows if row.relative_bound), key=_share)
    return {
        "images": len(report.names),
        "layer": {"name": layer.stage, "relative": layer.relative, "absolute": layer.absolute},
        "boxes": rows["boxes"].absolute,
        "scores": rows["scores"].absolute,
        "first_failure": report.first_failure.stage if report.first_failure else None,
    }


def _detections(results: Iterable[ImageComparison], max_total: int) -> dict[str, Any]:
    """The detections of both sides, paired where class, box and score agree within 0.001."""
    pairs = [
        compare_detections(
            result.caffe, result.tensorflow, box_tolerance=1e-3, score_tolerance=1e-3, max_total=max_total
        )
        for result in results
    ]
    return {
        "paired": sum(pair.paired for pair in pairs),
        "unpaired": sum(len(pair.unpaired) for pair in pairs),
        "largest": max(max(pair.box, pair.score) for pair in pairs),
    }


def _share(row: Row) -> float:
    """A layer's relative difference; 0 for a layer whose absolute difference is below LAYER_ABSOLUTE."""
    return row.relative if row.absolute > LAYER_ABSOLUTE else 0.0


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--data", type=Path, default=common.default_images(), help="the bccd data set, VOC layout")
    parser.add_argument("-n", "--images", type=int, default=8, help="for each model")
    parser.add_argument("--float64", action="store_true", help="compute both nets in double precision too (slow)")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": common.machine("tensorflow", "opencv", "numpy"), "models": {}}
    for name, graph in common.graphs(options.models).items():
        try:
            result["models"][name] = measure(name, graph, options.data, options.images, options.float64)
        except SsdliteError as error:
            result["models"][name] = {"error": str(error)}
    common.report(result, _text(result), as_json=options.json)


def _text(result: dict[str, Any]) -> Iterator[str]:
    rows = []
    for name, found in result["models"].items():
        if "error" in found:
            rows.append([name, "", found["error"], *[""] * 5])
            continue
        layer = found["layer"]
        pairs = found["detections"]
        stages = [f"{found['boxes']:.1e}", f"{found['scores']:.1e}", f"{pairs['largest']:.1e}"]
        stages.append(f"{pairs['paired']}, {pairs['unpaired']}")
        verdict = f"beyond its bound: {found['first_failure']}" if found["first_failure"] else "within"
        rows.append([name, str(found["images"]), f"{layer['relative']:.1e} ({layer['name']})", *stages, verdict])
    yield common.table(
        ["model", "images", "worst layer, relative", "boxes", "scores", "detections", "paired, not", "verify"], rows
    )
    doubles = {name: found["float64"] for name, found in result["models"].items() if "float64" in found}
    if doubles:
        yield "\nlargest differences of boxes and of scores, with float64 as the reference\n"
        rows = [
            [name, *(" and ".join(f"{value:.1e}" for value in found[side]) for side in found)]
            for name, found in doubles.items()
        ]
        head = ["Caffe net in float64 - TensorFlow's", "TensorFlow in float32", "OpenCV in float32"]
        yield common.table(["model", *head], rows)


if __name__ == "__main__":
    main()
