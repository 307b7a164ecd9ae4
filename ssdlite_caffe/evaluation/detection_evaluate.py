"""Caffe's own judgement: the test net on an LMDB, from its AnnotatedData layer to its DetectionEvaluate."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.data.labelled_images import is_lmdb
from ssdlite_caffe.data.lmdb_store import LmdbReader
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.evaluation.average_precision import Curve, of_verdicts
from ssdlite_caffe.evaluation.detectors import ModelForms
from ssdlite_caffe.evaluation.evaluate import ClassScore, Evaluation, Score, mean
from ssdlite_caffe.prototxt.text import format_message, read_net
from ssdlite_caffe.runtimes.caffe_net import CaffeNet

NAME = "caffe, DetectionEvaluate"


def evaluate_test_net(prototxt: Path, weights: Path, lmdb: Path, label_map: Path) -> dict[int, Curve]:
    """Run a test net once over an LMDB and gather what its DetectionEvaluate says of each class.

    Images are resized by Caffe's own AnnotatedData; boxes are compared as fractions of the image, or where the net
    has a name_size_file in its pixels.

    Raises:
        SsdliteError: the net has no such layers, or Caffe stops.
    """
    net = read_net(prototxt)
    data = [layer for layer in net.layer if layer.type == "AnnotatedData"]
    judges = [layer for layer in net.layer if layer.type == "DetectionEvaluate"]
    if len(data) != 1 or len(judges) != 1:
        raise PrototxtError(f"{prototxt} is no test net: it has {len(data)} AnnotatedData layers and {len(judges)} "
                            "DetectionEvaluate layers")  # fmt: skip
    data[0].data_param.source = str(lmdb)
    data[0].data_param.batch_size = 1  # divides any number of records, so that none is judged twice
    data[0].annotated_data_param.label_map_file = str(label_map)
    sizes = judges[0].detection_evaluate_param
    if sizes.name_size_file:
        sizes.name_size_file = str((prototxt.parent / sizes.name_size_file).resolve())
    top = judges[0].top[0]
    with LmdbReader(lmdb) as reader:
        count = len(reader)
    with tempfile.TemporaryDirectory(prefix="ssdlite-caffe.") as folder:
        path = Path(folder) / "test.prototxt"
        path.write_text(format_message(net), "utf-8")
        with CaffeNet(path, weights) as caffe:
            rows = [caffe.forward({}, [top])[top].reshape(-1, 5) for _ in range(count)]
    return _curves(np.concatenate(rows))


def _curves(rows: npt.NDArray[np.float32]) -> dict[int, Curve]:
    """Rows of DetectionEvaluate: image (-1: a count of objects), label, score or count, true, false positive.

    Source: detection_evaluate_layer.cpp, Forward_cpu; a detection on a difficult object is neither true nor false.
    """
    counts = rows[rows[:, 0] == -1]
    verdicts = rows[(rows[:, 0] != -1) & (rows[:, 3] + rows[:, 4] > 0)]
    curves = {}
    for label in np.unique(counts[:, 1]).astype(int).tolist():
        own = verdicts[verdicts[:, 1] == label]
        objects = int(counts[counts[:, 1] == label, 2].sum())
        curves[label] = of_verdicts(own[:, 2].astype(np.float64), own[:, 3] == 1, objects)
    return curves


def with_detection_evaluate(evaluation: Evaluation, model: ModelForms, data: Path) -> Evaluation:
    """Put Caffe's own judgement beside the others, where there is a test net and `data` is an LMDB."""
    folder = model.folder
    if folder is None or not is_lmdb(data):
        return evaluation
    prototxt, weights = folder.path / "test.prototxt", folder.path / "train.caffemodel"
    if not prototxt.is_file() or not weights.is_file():
        return evaluation
    own = detection_evaluate_score(evaluation, prototxt, weights, data, folder.path / "labelmap.prototxt")
    return dataclasses.replace(evaluation, scores=(*evaluation.scores, own))


def detection_evaluate_score(
    evaluation: Evaluation, prototxt: Path, weights: Path, lmdb: Path, label_map: Path
) -> Score:
    """Caffe's own judgement of the classes that `evaluation` has; arguments as of `evaluate_test_net`."""
    curves = evaluate_test_net(prototxt, weights, lmdb, label_map)
    nan = float("nan")
    classes = {
        row: ClassScore(one.positives, nan, nan, nan, one.eleven_point, one.area)
        for row, one in curves.items()
        if row in evaluation.scores[0].classes
    }
    voc07, voc12 = (mean([getattr(one, key) for one in classes.values()]) for key in ("voc07", "voc12"))
    detections = sum(len(one.scores) for one in curves.values())
    return Score(NAME, detections, nan, nan, nan, nan, voc07, voc12, classes, curves)
