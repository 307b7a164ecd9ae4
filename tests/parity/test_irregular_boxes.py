"""Models with default boxes that PriorBox cannot make, converted and compared with TensorFlow."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from tests.commands import Command

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.slow]


def with_other_anchors(source: Path, out: Path, change: str) -> Path:
    """An export for TensorFlow Lite whose constant `anchors` (y, x of the centre, height, width) are changed."""
    out.mkdir()
    graph = pb.GraphDef.FromString((source / "frozen_inference_graph.pb").read_bytes())
    tensor = next(node for node in graph.node if node.name == "anchors").attr["value"].tensor
    anchors = np.frombuffer(tensor.tensor_content, np.float32).reshape(-1, 4).astype(np.float64)
    low, high = anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2
    if change == "clipped":
        low, high = low.clip(0, 1), high.clip(0, 1)
    else:
        moved = np.random.default_rng(1).uniform(-0.03, 0.03, low.shape)
        low, high = low + moved, high + moved / 2
    changed = np.concatenate([(low + high) / 2, high - low], axis=1).astype(np.float32)
    assert np.abs(changed - anchors).max() > 0.01
    tensor.tensor_content = changed.tobytes()
    (out / "frozen_inference_graph.pb").write_bytes(graph.SerializeToString())
    shutil.copy(source / "pipeline.config", out)
    return out


@pytest.mark.parametrize(("change", "priors"), [("clipped", "constant"), ("moved", "constant"), ("moved", "none")])
def test_they_are_the_model_s(command: Command, shared_models: Path, tmp_path: Path, change: str, priors: str) -> None:
    model = with_other_anchors(shared_models / "zoo_like_v3_small_3", tmp_path / "model", change)
    out = tmp_path / "out"
    refused = command("convert", model, "-o", out)
    assert refused.status == 1
    assert refused.err.startswith("ssdlite-caffe: default boxes of conv_8/expand are up to 0.0")
    assert "give --priors constant" in refused.err
    assert not out.exists()
    assert command("convert", model, "--priors", priors, "-o", out).status == 0
    proved = command("verify", model, out, "--limit", 1)
    assert proved.status == 0, proved.err
    assert proved.out.startswith("equal")  # how exact a runtime's sums are depends on the processor
    assert command("merge-bn", out, "-o", tmp_path / "merged").status == 0
    folder = ModelFolder.open(tmp_path / "merged")
    assert folder.arch.irregular_boxes
    names = {path.name for path in folder.path.iterdir()}
    assert ("priors.npy" in names, "deploy.prototxt" in names) == (priors == "none", priors != "none")


def test_keras_has_no_such_boxes(command: Command, shared_models: Path, tmp_path: Path) -> None:
    model = with_other_anchors(shared_models / "zoo_like_v3_small_3", tmp_path / "model", "moved")
    refused = command("keras", "import", model, "-o", tmp_path / "out.keras")
    assert refused.status == 1
    assert "the Keras model has the same boxes on the centre of each cell" in refused.err
