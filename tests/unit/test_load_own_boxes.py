"""Default boxes that a net holds as numbers: the model's own, which PriorBox need not be able to make."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.dump.model import AnchorGenerator, DumpedModel
from ssdlite_caffe.errors import ArchError, PrototxtError
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import anchor_boxes, ssd_boxes, tf_default_boxes
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.layers import BOXES_LAYER
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.gen_model.torchvision import torchvision_arch
from ssdlite_caffe.load.own_boxes import caffe_order, code_limits, layer_priors, own_priors
from ssdlite_caffe.load.recognise import recognise
from ssdlite_caffe.runtimes.loose_priors import read_priors
from tests.filling import arch_of, filled, model, net_of, problems
from tests.models import with_settings

CONSTANT = Dialect(priors="constant")
MAPS = [(10, 12), (5, 6), (3, 3), (2, 2), (1, 1), (1, 1)]
RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)


def irregular(change: float = 0.03) -> DumpedModel:
    """The model with every box moved by up to `change` of the input, each in its own way."""
    boxes = model().settings.default_boxes
    assert boxes is not None
    moved = boxes + np.random.default_rng(2).uniform(-change, change, (len(boxes), 1)).astype(np.float32)
    return with_settings(model(), default_boxes=moved)


@pytest.mark.parametrize("stage", ["headless", "deploy", "train", "test"])
@pytest.mark.parametrize("given", [model(), irregular()], ids=["regular", "irregular"])
def test_the_layer_holds_the_model_s_own_boxes(given: DumpedModel, stage: str) -> None:
    arch = recognise(given)
    net, own = build(arch), given.settings.default_boxes
    assert own is not None
    weights, bias = filled(net_of(arch, CONSTANT, stage), given, arch=arch).blobs[BOXES_LAYER]  # type: ignore[arg-type]
    assert weights.shape == (len(own) * 8, 3)
    assert not weights.any()
    corners, variances = bias.reshape(2, -1, 4)
    np.testing.assert_array_equal(corners[:, [1, 0, 3, 2]], own[caffe_order(net)])
    np.testing.assert_array_equal(variances, np.broadcast_to(np.float32([0.1, 0.1, 0.2, 0.2]), corners.shape))


def test_box_predictors_are_only_moved() -> None:
    """Row by row the bits of TensorFlow's kernels; with PriorBox layers some rows are scaled."""
    arch = recognise(model())
    tensors = model().tensors
    for dialect, same in ((CONSTANT, True), (Dialect(), False)):
        blobs = filled(net_of(arch, dialect), arch=arch).blobs
        moved = []
        for feature_map in build(arch).feature_maps:
            kernel, bias = blobs[feature_map.loc[-1].name]
            theirs = np.moveaxis(tensors[f"{feature_map.loc[-1].tf_scope}/weights"], 3, 0)
            theirs = theirs.reshape(len(theirs), -1)
            ours = {row.tobytes() for row in kernel.reshape(len(kernel), -1)}
            moved.append(ours == {row.tobytes() for row in theirs})
            biases = tensors[f"{feature_map.loc[-1].tf_scope}/biases"]
            moved.append(sorted(bias.tolist()) == sorted(biases.tolist()))
        assert all(moved) == same


def test_irregular_boxes_need_constants() -> None:
    given = irregular()
    arch = recognise(given)
    assert "off the centres of their cells" in arch.irregular_boxes
    for stage in ("deploy", "train", "headless"):
        with pytest.raises(ArchError, match=r"^default boxes of \S+ are up to .*; give --priors constant"):
            render(build(arch), Dialect(), stage)  # type: ignore[arg-type]
    lines = problems(net_of(arch_of()), given, arch=arch)
    assert any("write the net with --priors constant" in line for line in lines)
    assert not [line for line in lines if "mbox_priorbox" not in line]


def test_a_headless_net_without_boxes() -> None:
    """A regular model's predictors are for PriorBox's boxes, since such nets are also made by hand; else its own."""
    none = Dialect(priors="none")
    for given, other in ((model(), Dialect()), (irregular(), CONSTANT)):
        arch = recognise(given)
        net = net_of(arch, none)
        assert not [layer.name for layer in net.layer if "priorbox" in layer.name]
        found, expected = (filled(net_of(arch, dialect), given, arch=arch).blobs for dialect in (none, other))
        for name, blobs in found.items():
            for blob, theirs in zip(blobs, expected[name], strict=True):
                # The prototxt of PriorBox layers has the variances in float32.
                np.testing.assert_allclose(blob, theirs, rtol=2e-7, atol=1e-7, err_msg=name)
    with pytest.raises(ArchError, match="--priors none leaves out; take the headless net"):
        render(build(arch_of()), none, "deploy")
    assert net_of(arch_of(), none, "train") == net_of(arch_of(), Dialect(), "train")


def test_what_prior_box_layers_make() -> None:
    net = build(arch_of())
    priors = layer_priors(net)
    assert priors.shape == (net.num_default_boxes, 8)
    own = own_priors(tf_default_boxes(net).astype(np.float32), net)
    np.testing.assert_allclose(priors[:, :2] + priors[:, 2:4], own[:, :2] + own[:, 2:4], atol=3e-6)  # the centres
    np.testing.assert_array_equal(priors[:, 4:], own[:, 4:])
    assert np.abs(priors - own).max() > 0.01


class TestAnchors:
    """Of a pipeline.config with strides and offsets."""

    def test_the_usual_grid(self) -> None:
        size = (160, 192)
        anchors = AnchorGenerator(aspect_ratios=RATIOS, height_stride=(16, 32, 54, 80, 160, 160),
                                  width_stride=(16, 32, 64, 96, 192, 192))  # fmt: skip
        plain = AnchorGenerator(aspect_ratios=RATIOS)
        found, usual = (anchor_boxes(one, MAPS, size) for one in (anchors, plain))
        np.testing.assert_allclose(found[: 10 * 12 * 3], usual[: 10 * 12 * 3], atol=1e-12)
        assert np.abs(found - usual).max() > 1e-3  # 54 pixels are not a third of 160

    def test_strides_and_offsets(self) -> None:
        size = (160, 192)
        anchors = AnchorGenerator(
            aspect_ratios=RATIOS, height_stride=(8,) * 6, width_stride=(10,) * 6, height_offset=(3,) * 6,
            width_offset=(5,) * 6,
        )  # fmt: skip
        found = anchor_boxes(anchors, MAPS, size)
        cells = ssd_boxes(size, aspect_ratios=RATIOS)
        expected = [
            ((3 + 8 * row) / 160, (5 + 10 * column) / 192, *one)
            for cell, (rows, columns) in zip(cells, MAPS, strict=True)
            for row in range(rows)
            for column in range(columns)
            for one in cell.sizes
        ]
        y, x, height, width = np.array(expected).T
        np.testing.assert_allclose(
            found, np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], axis=1), atol=1e-12
        )

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"height_stride": (8,) * 5, "width_stride": (8,) * 5}, "height_stride must be one for each of 6 .* got 5"),
            ({"height_stride": (8,) * 6}, "must be given for both height and width"),
            ({"width_offset": (8,) * 6}, "must be given for both height and width"),
        ],
    )
    def test_what_makes_no_grid(self, fields: dict[str, tuple[int, ...]], message: str) -> None:
        with pytest.raises(ArchError, match=message):
            anchor_boxes(dataclasses.replace(AnchorGenerator(), **fields), MAPS, (160, 192))  # type: ignore[arg-type]

    def test_a_checkpoint_with_offsets(self) -> None:
        """Its boxes are in no graph; they are made of the config's anchors."""
        own = model().settings.default_boxes
        assert own is not None
        anchors = AnchorGenerator(
            aspect_ratios=RATIOS, height_offset=(2, 4, 8, 16, 32, 64), width_offset=(2, 4, 8, 16, 32, 64)
        )
        given = with_settings(model(), default_boxes=None, anchors=anchors)
        arch = recognise(given)
        assert "off the centres" in arch.irregular_boxes
        net = build(arch)
        _, bias = filled(net_of(arch, CONSTANT), given, arch=arch).blobs[BOXES_LAYER]
        expected = anchor_boxes(anchors, [m.size for m in net.feature_maps], arch.input_size).astype(np.float32)
        np.testing.assert_array_equal(bias.reshape(2, -1, 4)[0][:, [1, 0, 3, 2]], expected[caffe_order(net)])


class TestReadPriors:
    def test_what_was_written(self, tmp_path: Path) -> None:
        priors = layer_priors(build(arch_of()))
        np.save(tmp_path / "priors.npy", priors)
        np.testing.assert_array_equal(read_priors(tmp_path / "priors.npy", len(priors)), priors)

    @pytest.mark.parametrize("array", [np.zeros((7, 8)), np.zeros((8, 4)), np.zeros((8, 8), int)])
    def test_other_arrays(self, tmp_path: Path, array: np.ndarray) -> None:
        np.save(tmp_path / "priors.npy", array)
        with pytest.raises(PrototxtError, match=r"must hold float32 \(8, 8\), got"):
            read_priors(tmp_path / "priors.npy", 8)

    def test_no_array(self, tmp_path: Path) -> None:
        (tmp_path / "priors.npy").write_bytes(b"none")
        with pytest.raises(PrototxtError, match="cannot read"):
            read_priors(tmp_path / "priors.npy", 8)


def test_limits_are_those_of_the_models_own_boxes() -> None:
    """A limit of the model's box, as a multiple of its size, is the same number of pixels in the net."""
    net = build(torchvision_arch(3))
    corners = layer_priors(net)[:, :4]
    limits = code_limits(net, corners)
    assert limits is not None
    own = tf_default_boxes(net)[caffe_order(net)][:, [1, 0, 3, 2]]
    sizes, given = (one[:, 2:] - one[:, :2] for one in (own, corners.astype(np.float64)))
    np.testing.assert_allclose(np.exp(limits) * given, 62.5 * sizes, rtol=1e-5)
    assert (limits < np.log(62.5) - 0.01).any()
    assert code_limits(build(arch_of()), corners) is None
