"""With rounding out of the way, the converted net is TensorFlow's to the last digits."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssdlite_caffe.gen_model.dialect import ActivationDialect, Dialect
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.resize import network_input
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from tests.in_double import box_order, decoded_by_caffe, decoded_by_tensorflow
from tests.real_models import real_models
from tests.scenes import draw_scene

pytestmark = pytest.mark.tensorflow

MODELS = ("bccd_v2_ssdlite_3", "zoo2018_v2_ssdlite_90", "shapes_v3_small_3", "random_v3_large_90")

BOXES = 2e-7
"""Corners as fractions; variances and default boxes stay float32. Measured: 6.0e-8."""

SCORES = 1e-9
"""Where BatchNorm is kept, so that weights are only moved.

Measured: trained 1.3e-15; random 1.1e-11, where TensorFlow's own float32 is off by 7e-3.
"""

SCORES_FOLDED = 2e-5
"""Where it is folded into weights that are rounded to float32. Measured: trained 1.9e-7, random 7.8e-6."""


def compare(frozen: Path, out: Path, dialect: Dialect) -> tuple[float, float]:
    """Largest difference of boxes and of scores."""
    convert(frozen, out, ConvertOptions(dialect=dialect))
    folder = ModelFolder.open(out)
    arch = folder.arch
    fed = network_input(draw_scene(3)[0], arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)
    with TensorFlowDetector(frozen) as detector:
        (theirs,) = decoded_by_tensorflow(detector, [fed])
    (ours,), order = decoded_by_caffe(folder, [fed]), box_order(folder)
    boxes, scores = (float(abs(a - b[order]).max()) for a, b in zip(ours, theirs, strict=True))
    return boxes, scores


@pytest.mark.parametrize("activation", ["relu6", "stock"])
def test_the_example_is_the_same_net(activation: ActivationDialect, example_model: Path, tmp_path: Path) -> None:
    dialect = Dialect(batch_norm="keep", activation=activation)
    boxes, scores = compare(example_model, tmp_path / "out", dialect)
    assert boxes < BOXES
    assert scores < SCORES


def test_folding_rounds_each_weight_once(example_model: Path, tmp_path: Path) -> None:
    boxes, scores = compare(example_model, tmp_path / "out", Dialect())
    assert boxes < BOXES
    assert SCORES < scores < SCORES_FOLDED


@pytest.mark.slow
@pytest.mark.parametrize("name", real_models(MODELS))
def test_real_models_are_the_same_nets(name: str, shared_models: Path, tmp_path: Path) -> None:
    frozen = shared_models / name / "frozen_inference_graph.pb"
    boxes, scores = compare(frozen, tmp_path / "out", Dialect(batch_norm="keep"))
    assert boxes < BOXES
    assert scores < SCORES
