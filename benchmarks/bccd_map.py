"""Does the converted net have the average precision of TensorFlow's?

AP and AP50 on the test images of bccd (blood cells; 1 RBC, 2 WBC, 3 Platelets), measured with pycocotools, for the
whole graph in TensorFlow and for the converted nets in OpenCV DNN after our own resize: the deploy net with
DetectionOutput, and the headless net with the numpy decoder. All use the score threshold of the graph; the deploy net
is also measured with a threshold of 0, since the threshold in an exported graph lowers the AP.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import common
import numpy as np
import numpy.typing as npt

from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.images import read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.convert import ConvertOptions, convert

CLASSES = {"RBC": 1, "WBC": 2, "Platelets": 3}
MODELS = ("bccd_v2_ssdlite_3", "zoo2018_v2_ssdlite_90")
TENSORFLOW, DEPLOY, NUMPY = "TensorFlow", "OpenCV, deploy", "OpenCV, headless + numpy"
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """An image, uint8 BGR (H, W, 3), and its objects: label, xmin, ymin, xmax, ymax in pixels."""

    image: Image
    objects: tuple[tuple[int, float, float, float, float], ...]


def read_examples(data: Path, limit: int | None) -> list[Example]:
    names = (data / "ImageSets" / "Main" / "test.txt").read_text("utf-8").split()[:limit]
    return [
        Example(read_image(data / "JPEGImages" / f"{name}.jpg"), _objects(data / "Annotations" / f"{name}.xml"))
        for name in names
    ]


def _objects(path: Path) -> tuple[tuple[int, float, float, float, float], ...]:
    text = path.read_text("utf-8")
    if "<!" in text:  # a DOCTYPE can define entities that expand without limit
        sys.exit(f"{path}: DOCTYPE declarations are not allowed in VOC annotations")
    found = []
    for one in ElementTree.fromstring(text).iter("object"):
        box = one.find("bndbox")
        label = CLASSES.get(one.findtext("name", ""))
        if box is None or label is None:
            sys.exit(f"{path} has an object without a box, or with an unknown class: {one.findtext('name')}")
        xmin, ymin, xmax, ymax = (float(box.findtext(side, "nan")) for side in ("xmin", "ymin", "xmax", "ymax"))
        found.append((label, xmin, ymin, xmax, ymax))
    return tuple(found)


def average_precision(examples: list[Example], detections: list[Detections]) -> dict[str, float]:
    """COCO's AP (IoU 0.50 to 0.95) and AP50 over the three classes; detections of other classes are not counted."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _truth(examples)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(_results(examples, detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"AP": float(evaluation.stats[0]), "AP50": float(evaluation.stats[1])}


def _truth(examples: list[Example]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, example in enumerate(examples):
        for label, xmin, ymin, xmax, ymax in example.objects:
            width, height = xmax - xmin, ymax - ymin
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": label, "iscrowd": 0,
                 "bbox": [xmin, ymin, width, height], "area": width * height}
            )  # fmt: skip
    return {
        "info": {},
        "images": [
            {"id": number, "height": example.image.shape[0], "width": example.image.shape[1]}
            for number, example in enumerate(examples)
        ],
        "categories": [{"id": label, "name": name} for name, label in CLASSES.items()],
        "annotations": annotations,
    }


def _results(examples: list[Example], detections: list[Detections]) -> npt.NDArray[np.float64]:
    """Rows of image, x, y, width, height, score, class, in pixels."""
    rows = []
    for number, (example, found) in enumerate(zip(examples, detections, strict=True)):
        height, width = example.image.shape[:2]
        boxes = found.boxes.astype(np.float64) * [width, height, width, height]
        boxes[:, 2:] -= boxes[:, :2]
        rows.append(np.column_stack([np.full(len(found), number), boxes, found.scores, found.classes]))
    return np.concatenate(rows)


def measure(graph: Path, examples: list[Example]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """AP of each side, and the differences between the detections of the deploy net and TensorFlow."""
    with tempfile.TemporaryDirectory() as scratch, TensorFlowDetector(graph) as tensorflow:
        own, zero = Path(scratch) / "own", Path(scratch) / "zero"
        convert(graph, own, ConvertOptions())
        convert(graph, zero, ConvertOptions(score_threshold=0.0))
        folder = ModelFolder.open(own)
        threshold = folder.arch.nms.score_threshold
        sides: list[tuple[str, float, Callable[[Image], Detections]]] = [
            (TENSORFLOW, threshold, lambda image: tensorflow.detect_image(np.ascontiguousarray(image[..., ::-1]))),
            (DEPLOY, threshold, Detector(folder, "caffe")),
            (NUMPY, threshold, Detector(folder, "numpy")),
            (DEPLOY, 0.0, Detector(ModelFolder.open(zero), "caffe")),
        ]
        found = [[detect(example.image) for example in examples] for _, _, detect in sides]
    rows = [
        {"side": side, "threshold": threshold, "detections": sum(map(len, detections)),
         **average_precision(examples, detections)}
        for (side, threshold, _), detections in zip(sides, found, strict=True)
    ]  # fmt: skip
    return rows, _difference(found[1], found[0], folder.arch.nms.max_total)


def _difference(ours: list[Detections], theirs: list[Detections], max_total: int) -> dict[str, Any]:
    """Pair detections of a class whose boxes and scores differ by no more than 0.001."""
    pairs = [
        compare_detections(a, b, box_tolerance=1e-3, score_tolerance=1e-3, max_total=max_total)
        for a, b in zip(ours, theirs, strict=True)
    ]
    return {
        "paired": sum(pair.paired for pair in pairs),
        "unpaired": sum(len(pair.unpaired) for pair in pairs),
        "box": max(pair.box for pair in pairs),
        "score": max(pair.score for pair in pairs),
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--data", type=Path, default=common.default_images(), help="the bccd data set, VOC layout")
    parser.add_argument("--limit", type=int, help="take only the first images")
    options = parser.parse_args()
    if options.data is None or not (options.data / "ImageSets" / "Main" / "test.txt").is_file():
        sys.exit("the bccd data set was not found; give its folder with --data")
    graphs = {name: graph for name, graph in common.graphs(options.models).items() if name in MODELS}
    if not graphs:
        sys.exit(
            f"{options.models} has none of {', '.join(MODELS)}, which detect blood cells; give another folder with "
            "--models"
        )
    examples = read_examples(options.data, options.limit)
    result: dict[str, Any] = {"machine": common.machine("tensorflow", "opencv", "pycocotools", "numpy")}
    result |= {"images": len(examples), "models": {}}
    for name, graph in graphs.items():
        rows, difference = measure(graph, examples)
        result["models"][name] = {"sides": rows, "difference": difference}
    common.report(result, _text(result), as_json=options.json)


def _text(result: dict[str, Any]) -> Iterator[str]:
    yield f"{result['images']} images\n"
    rows = []
    for name, model in result["models"].items():
        reference = model["sides"][0]
        for row in model["sides"]:
            values = [f"{row[key]:.6f} ({row[key] - reference[key]:+.6f})" for key in ("AP", "AP50")]
            rows.append([name, row["side"], f"{row['threshold']:g}", str(row["detections"]), *values])
    yield common.table(["model", "side", "threshold", "detections", "AP", "AP50"], rows)
    for name, model in result["models"].items():
        found = model["difference"]
        bounds = f"box within {found['box']:.1e}, score within {found['score']:.1e}"
        yield (
            f"\n{name}: {found['paired']} detections of the deploy net are the same as TensorFlow's ({bounds}), "
            f"{found['unpaired']} are not"
        )


if __name__ == "__main__":
    main()
