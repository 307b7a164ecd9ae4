"""Average precision by Caffe itself: the test net on an LMDB, from its AnnotatedData layer to DetectionEvaluate."""

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
from ssdlite_caffe.evaluation.evaluate import ClassScore, Evaluation, Score, mean
from ssdlite_caffe.evaluation.forms import ModelForms
from ssdlite_caffe.prototxt.text import format_message, read_net
from ssdlite_caffe.runtimes.caffe_net import CaffeNet
from ssdlite_caffe.runtimes.model_folder import LABEL_MAP, TEST, TRAIN_WEIGHTS

NAME = "caffe, DetectionEvaluate"


def evaluate_test_net(
    prototxt: Path, weights: Path, lmdb: Path, label_map: Path, score_threshold: float | None = None
) -> dict[int, Curve]:
    """Run a test net once over an LMDB, and collect the results of its DetectionEvaluate layer for each class.

    Images are resized by Caffe's AnnotatedData layer. Boxes are compared as fractions of the image or, if the net has a
    name_size_file, in pixels.

    Args:
        prototxt: the test net.
        weights: its caffemodel.
        lmdb: folder of the LMDB.
        label_map: label map file that the net reads.
        score_threshold: least score of a detection; None: the net's.

    Returns:
        The curve of each class id.

    Raises:
        SsdliteError: the net does not have these layers, or Caffe stops.
    """
    net = read_net(prototxt)
    data = [layer for layer in net.layer if layer.type == "AnnotatedData"]
    judges = [layer for layer in net.layer if layer.type == "DetectionEvaluate"]
    if len(data) != 1 or len(judges) != 1:
        raise PrototxtError(
            f"{prototxt} is not a test net: it needs one AnnotatedData and one DetectionEvaluate layer, and has "
            f"{len(data)} and {len(judges)}"
        )
    data[0].data_param.source = str(lmdb)
    data[0].data_param.batch_size = 1  # divides any number of records, so that none is evaluated twice
    data[0].annotated_data_param.label_map_file = str(label_map)
    sizes = judges[0].detection_evaluate_param
    if sizes.name_size_file:
        sizes.name_size_file = str((prototxt.parent / sizes.name_size_file).resolve())
    for layer in net.layer:
        if layer.type == "DetectionOutput" and score_threshold is not None:
            layer.detection_output_param.confidence_threshold = score_threshold
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
    """Curves from rows of DetectionEvaluate (N, 5): image, label, score, true positive, false positive.

    A row with image -1 has the number of objects in place of the score. A detection of a difficult object is neither a
    true nor a false positive. Source: detection_evaluate_layer.cpp, Forward_cpu.
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
    """Add the score of Caffe's DetectionEvaluate, if `data` is an LMDB and the folder has a test net with weights."""
    folder = model.folder
    if folder is None or not is_lmdb(data):
        return evaluation
    prototxt, weights = folder.path / TEST, folder.path / TRAIN_WEIGHTS
    if not prototxt.is_file() or not weights.is_file():
        return evaluation
    own = detection_evaluate_score(
        evaluation, prototxt, weights, data, folder.path / LABEL_MAP, model.score_threshold
    )  # fmt: skip
    return dataclasses.replace(evaluation, scores=(*evaluation.scores, own))


def detection_evaluate_score(
    evaluation: Evaluation,
    prototxt: Path,
    weights: Path,
    lmdb: Path,
    label_map: Path,
    score_threshold: float | None = None,
) -> Score:
    """Score of Caffe's DetectionEvaluate for the classes of `evaluation`; other arguments as of `evaluate_test_net`."""
    curves = evaluate_test_net(prototxt, weights, lmdb, label_map, score_threshold)
    nan = float("nan")
    classes = {
        class_id: ClassScore(one.positives, nan, nan, nan, one.eleven_point, one.area)
        for class_id, one in curves.items()
        if class_id in evaluation.scores[0].classes
    }
    voc07, voc12 = (mean([getattr(one, key) for one in classes.values()]) for key in ("voc07", "voc12"))
    detections = sum(len(one.scores) for one in curves.values())
    return Score(NAME, detections, nan, nan, nan, nan, voc07, voc12, classes, curves)
