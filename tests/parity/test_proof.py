"""The converted net is the model in float64, and every seeded mistake is found and named at its layer."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.netdesc import ConvDesc, NetDesc
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_from_array, blob_to_array, read_caffemodel, write_caffemodel
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import open_net
from ssdlite_caffe.runtimes.source_detector import DoubleSource
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.proof import Image, Proof, ratios
from ssdlite_caffe.tools.reference_side import ReferenceSide
from ssdlite_caffe.tools.source import open_model
from tests.real_models import real_models
from tests.scenes import draw_scene

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.slow]

RATIO = 4.0
"""Largest rounding error of OpenCV as a multiple of TensorFlow's. Measured: trained 1.7, random 3.2."""


@dataclass
class Bench:
    """A source model in TensorFlow, in both precisions, and the folder converted from it."""

    model: DumpedModel
    net: NetDesc
    folder: Path
    prove: Callable[[Path], Image]

    def conv(self, **wanted: Any) -> ConvDesc:
        """The first convolution with these attributes, not the stem."""
        return next(
            c for c in self.net.convolutions[1:] if all(getattr(c, name) == value for name, value in wanted.items())
        )

    def changed(
        self,
        out: Path,
        *,
        text: Callable[[str], str] | None = None,
        weights: dict[str, Callable[..., Any]] | None = None,
    ) -> Image:
        """The proof of a copy of the folder with a mistake in deploy.prototxt, or in a layer's blobs."""
        shutil.copytree(self.folder, out)
        if text is not None:
            before = (out / "deploy.prototxt").read_text()
            after = text(before)
            assert after != before
            (out / "deploy.prototxt").write_text(after)
        if weights is not None:
            content = read_caffemodel(out / "deploy.caffemodel")
            for layer in content.layer:
                if layer.name in weights:
                    _change(layer, weights[layer.name])
            write_caffemodel(out / "deploy.caffemodel", content, force=True)
        return self.prove(out)


def _change(layer: caffe_pb2.LayerParameter, change: Callable[..., Any]) -> None:
    arrays = change(*(blob_to_array(blob).copy() for blob in layer.blobs))
    for blob, array in zip(layer.blobs, arrays, strict=True):
        blob.CopyFrom(blob_from_array(np.ascontiguousarray(array, np.float32)))


MODELS = [
    "example",
    *real_models(("bccd_v2_ssdlite_3", "random_v3_large_90"), pytest.mark.story, large=pytest.mark.rare),
]


@pytest.fixture(scope="module", params=MODELS)
def bench(
    request: pytest.FixtureRequest, example_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    source = example_model
    if request.param != "example":
        source = request.getfixturevalue("shared_models") / request.param / "frozen_inference_graph.pb"
    folder = tmp_path_factory.mktemp("proof") / "out"
    convert(source, folder, ConvertOptions())
    arch = ModelFolder.open(folder).arch
    with open_model(source) as opened, opened.run() as running:
        net = build(arch)
        single = ReferenceSide(opened.model, opened.arch.nms, net, running)
        with DoubleSource(running, list(single.layer_outputs().values())) as double:
            fed = single.network_input(draw_scene(3)[0])

            def prove(path: Path) -> Image:
                opened_folder = ModelFolder.open(path)
                files = opened_folder.deploy_prototxt, opened_folder.deploy_caffemodel
                return Proof(single, double, opened_folder, open_net("opencv", *files)).image(fed)

            yield Bench(opened.model, net, folder, prove)


def found(image: Image, *, ends: bool = True) -> tuple[str, str]:
    """The first stage that differs (the layer within it, where it is known), and the cause.

    With `ends`, boxes or scores of the whole net in float64 must differ, too.
    """
    wrong = [stage for stage in image.stages if not stage.local.ok]
    assert wrong, "no mistake was found"
    assert not ends or any(not whole.difference.ok for whole in image.whole)
    return wrong[0].part or wrong[0].name, wrong[0].cause


def test_the_net_is_the_model(bench: Bench) -> None:
    image = bench.prove(bench.folder)
    assert [stage.name for stage in image.stages if not stage.local.ok] == []
    assert max(stage.local.share for stage in image.stages) > 0.5, "the bound is not far above what rounding does"
    assert max(ratio.judged for ratio in ratios(image.stages).values()) < RATIO
    assert image.stages[-1].local.absolute < 1e-11, "scores of the model's own logits"
    boxes, scores = image.whole
    assert (boxes.name, scores.name) == ("boxes in float64", "scores in float64")
    assert boxes.difference.absolute < 1e-7
    assert scores.difference.absolute < 1e-10
    assert (boxes.remark, scores.remark) == ("", "")
    assert scores.written > 1000 * scores.difference.absolute, "the rest is the rounding of the weights"


def test_swapped_channels(bench: Bench, tmp_path: Path) -> None:
    conv = bench.conv(role="expand", stride=(1, 1))

    def swap(kernel: Any, bias: Any) -> Any:
        order = [*range(3), 7, *range(4, 7), 3, *range(8, len(bias))]
        return kernel[order], bias[order]

    layer, cause = found(bench.changed(tmp_path / "x", weights={conv.name: swap}))
    assert layer == conv.name
    assert cause == "the order of channels: 3, 7 are exchanged"


def test_colours(bench: Bench, tmp_path: Path) -> None:
    layer, cause = found(bench.changed(tmp_path / "x", weights={"Conv": lambda k, b: (k[:, ::-1], b)}))
    assert (layer, cause) == ("Conv", "the order of colours: RGB for BGR")


@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
def test_epsilon(bench: Bench, tmp_path: Path, epsilon: float) -> None:
    conv = bench.conv(role="expand")
    unit = next(unit for unit in bench.model.units if unit.scope == conv.tf_scope)
    variance, beta = (
        bench.model.tensors[unit.tensors[part]].astype(np.float64) for part in ("moving_variance", "beta")
    )
    factor = np.sqrt((variance + unit.epsilon) / (variance + epsilon))

    def scale(kernel: Any, bias: Any) -> Any:
        return kernel * factor[:, None, None, None], beta + factor * (bias - beta)

    layer, cause = found(bench.changed(tmp_path / "x", weights={conv.name: scale}))
    assert layer == conv.name
    assert cause == f"the BatchNorm's epsilon: the model has 0.001, the net {epsilon:.6g}"


def test_one_padding_side(bench: Bench, tmp_path: Path) -> None:
    """The zero row and column of the larger kernel on the other side."""
    conv = bench.conv(role="depthwise", stride=(2, 2))
    weights = {conv.name: lambda k, b: (np.roll(k, (-1, -1), (2, 3)), b)}
    layer, cause = found(bench.changed(tmp_path / "x", weights=weights))
    assert layer == conv.name
    assert cause == f"the padding of {conv.name}: the model's zeros are on another side"


def test_relu_for_relu6(bench: Bench, tmp_path: Path) -> None:
    conv = next(
        c for c in bench.net.convolutions if c.activation == "relu6" and c.role in ("depthwise", "head_depthwise")
    )

    def edit(text: str) -> str:
        return re.sub(rf'(name: "{conv.name}/relu"\s+type: ")ReLU6', r"\1ReLU", text)

    # No value of this layer may reach 6: then the two are the same, and nothing is to be found.
    image = bench.changed(tmp_path / "x", text=edit)
    theirs = next(stage for stage in image.stages if stage.name == conv.name)
    if theirs.rounding.largest < 6:
        assert theirs.local.ok
        return
    assert found(image) == (conv.name, "the activation: the model has ReLU6 here")


def test_a_sixth(bench: Bench, tmp_path: Path) -> None:
    if not any(conv.activation == "hard_swish" for conv in bench.net.convolutions):
        pytest.skip("the net has no hard swish")
    image = bench.changed(tmp_path / "x", text=lambda text: re.sub(r"0\.16666\d+", "0.16667", text, count=1))
    layer, cause = found(image)
    assert layer == "Conv"
    assert cause.startswith("a constant: the model's values are 0.99998 times these")


def test_one_default_box(bench: Bench, tmp_path: Path) -> None:
    def edit(text: str) -> str:
        size = re.search(r"min_size: ([\d.]+)", text)
        assert size is not None
        return text.replace(size[0], f"min_size: {float(size[1]) + 1e-4 * bench.net.arch.input_size[0]}", 1)

    layer, cause = found(bench.changed(tmp_path / "x", text=edit))
    assert layer == f"{bench.net.feature_maps[0].blob}_mbox_priorbox"
    assert cause.startswith("the default boxes: they are off by up to ")


def test_a_variance(bench: Bench, tmp_path: Path) -> None:
    layer, cause = found(
        bench.changed(tmp_path / "x", text=lambda t: t.replace("variance: 0.1\n", "variance: 0.2\n", 1))
    )
    assert layer == f"{bench.net.feature_maps[0].blob}_mbox_priorbox"
    assert cause == "the variances: 0.2, 0.1, 0.2, 0.2, must be 0.1, 0.1, 0.2, 0.2"


def test_rows_of_a_box_predictor(bench: Bench, tmp_path: Path) -> None:
    name = bench.net.feature_maps[1].loc[-1].name
    layer, cause = found(bench.changed(tmp_path / "x", weights={name: lambda k, b: (k[[1, 0, *range(2, len(k))]], b)}))
    assert (layer, cause) == (name, "the weights of the box predictor, or the order of its channels")


def test_a_weight_that_is_off_by_little_more_than_rounding(bench: Bench, tmp_path: Path) -> None:
    """A whole channel moved by three units in the last place of each weight."""
    conv = bench.conv(role="expand")

    def move(kernel: Any, bias: Any) -> Any:
        kernel[2] *= np.float32(1 + 4e-7)
        return kernel, bias

    image = bench.changed(tmp_path / "x", weights={conv.name: move})
    assert found(image, ends=False)[0] == conv.name
    count = image.whole[0].remark.partition(" ")[0]
    assert image.whole[0].remark == f"{count} weights of {conv.name} are not what the conversion makes of the model's"
    assert 0 < int(count) <= conv.in_channels


def test_boxes_alone(bench: Bench, tmp_path: Path) -> None:
    name = bench.net.feature_maps[0].loc[-1].name
    boxes, scores = bench.changed(tmp_path / "x", weights={name: lambda k, b: (k, b + np.float32(1e-4))}).whole
    assert (boxes.difference.ok, scores.difference.ok) == (False, True)


def test_scores_alone(bench: Bench, tmp_path: Path) -> None:
    name = bench.net.feature_maps[0].conf[-1].name
    boxes, scores = bench.changed(tmp_path / "x", weights={name: lambda k, b: (k, b + np.float32(1e-4))}).whole
    assert (boxes.difference.ok, scores.difference.ok) == (True, False)
