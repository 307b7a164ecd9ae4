"""`evaluate --score-threshold` in TensorFlow and in the converted net: the same detections, with any threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.evaluation.detectors import RUNTIMES
from ssdlite_caffe.evaluation.forms import ModelForms
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.compare import compare_detections
from ssdlite_caffe.tools.convert import ConvertOptions, convert

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv]
LABELS = LabelMap.of_names(["circle", "square", "triangle"])
OWN = 0.3


@pytest.fixture(scope="module")
def folder(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """Of the example's graph, with a score threshold as the zoo's graphs have it."""
    root = tmp_path_factory.mktemp("threshold")
    graph = pb.GraphDef.FromString(example_model.read_bytes())
    changed = 0
    for node in graph.node:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        if tensor is not None and len(tensor.float_val) == 1 and np.float32(tensor.float_val[0]) == np.float32(1e-8):
            tensor.float_val[0] = OWN
            changed += 1
    assert changed
    (root / "graph.pb").write_bytes(graph.SerializeToString())
    report = convert(root / "graph.pb", root / "out", ConvertOptions())
    assert report["arch"]["nms"]["score_threshold"] == pytest.approx(OWN)
    assert len([note for note in report["notes"] if "makes an average precision too low" in note]) == 1
    return ModelFolder.open(root / "out")


@pytest.mark.parametrize("wanted", [None, 1e-8, 0.05, 0.6])
def test_both_sides_give_the_same(
    folder: ModelFolder, scene_images: list[tuple[str, np.ndarray]], wanted: float | None
) -> None:
    assert folder.source is not None
    forms = ModelForms(LABELS, folder, folder.source.path, score_threshold=wanted)
    least = OWN if wanted is None else wanted
    found: dict[str, list[Detections]] = {}
    for runtime in ("tensorflow", "opencv"):
        with RUNTIMES[runtime](forms) as detect:
            assert detect.score_threshold == pytest.approx(least)
            found[runtime] = [detect(np.ascontiguousarray(image[..., ::-1])) for _, image in scene_images[:3]]
    for ours, theirs in zip(found["opencv"], found["tensorflow"], strict=True):
        assert len(theirs) > 0
        assert theirs.scores.min() >= np.float32(least)
        assert ours.scores.min() >= np.float32(least)
        difference = compare_detections(
            ours, theirs, box_tolerance=1e-5, score_tolerance=1e-5, max_total=100, score_threshold=least
        )
        assert difference.unpaired == ()
    counts = [len(one) for one in found["opencv"]]
    assert (max(counts) == 100) == (least < 0.01), "with a low one as many as the graph gives at most"
