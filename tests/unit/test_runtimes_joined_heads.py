"""Headless nets whose outputs are those of each feature map, read as if they were joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.prototxt.text import parse_net, read_net
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.joined_heads import joined, outputs_per_map
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import open_net
from ssdlite_caffe.runtimes.resize import caffe_blob, network_input
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from tests.filling import arch_of, net_of
from tests.scenes import draw_scene

HEADS = ["mbox_loc", "mbox_conf", "mbox_priorbox"]


@pytest.fixture(scope="module")
def per_map(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("per-map") / "out"
    convert(example_model, out, ConvertOptions(dialect=Dialect(outputs="per-map", names="tops")))
    return out


class TestOutputs:
    def test_they_are_in_the_order_of_the_default_boxes(self) -> None:
        net = net_of(arch_of("v3-small"), Dialect(outputs="per-map"))
        found = outputs_per_map(net)
        assert found.keys() == {"mbox_loc", "mbox_conf"}
        joined_net = net_of(arch_of("v3-small"))
        for head, names in found.items():
            (concat,) = [layer for layer in joined_net.layer if layer.name == head]
            assert names == tuple(concat.bottom)

    def test_without_default_boxes_in_the_order_of_the_layers(self) -> None:
        net = net_of(arch_of("v3-small"), Dialect(outputs="per-map"))
        expected = outputs_per_map(net)
        for layer in [layer for layer in net.layer if "priorbox" in layer.name]:
            net.layer.remove(layer)
        assert outputs_per_map(net) == expected
        assert len(expected["mbox_loc"]) == 6

    @pytest.mark.parametrize("stage", ["deploy", "headless", "train", "test"])
    def test_a_net_that_joins_them_has_none(self, stage: str) -> None:
        dialect = Dialect(outputs="per-map" if stage != "headless" else "joined")
        assert outputs_per_map(net_of(arch_of("v3-small"), dialect, stage)) == {}  # type: ignore[arg-type]

    @pytest.mark.parametrize("text", ["", 'layer { name: "a" type: "ReLU" bottom: "d" top: "a" }'])
    def test_another_net_has_none(self, text: str) -> None:
        assert outputs_per_map(parse_net(f'input: "d" input_shape {{ dim: 1 }}\n{text}')) == {}

    def test_what_is_missing_is_not_joined(self) -> None:
        values = {"a": np.arange(6.0).reshape(2, 3), "b": np.arange(4.0).reshape(2, 1, 2), "c": np.zeros((2, 1))}
        found = joined(values, {"x": ("a", "b"), "y": ("c", "d")})
        assert found.keys() == {"x"}
        np.testing.assert_array_equal(found["x"], [[0, 1, 2, 0, 1], [3, 4, 5, 2, 3]])


@pytest.mark.opencv
class TestNets:
    @pytest.mark.parametrize("runtime", ["opencv", "reference"])
    def test_the_values_are_those_of_a_joined_net(self, runtime: str, per_map: Path, example_folder: Path) -> None:
        blob = caffe_blob(network_input(draw_scene(3)[0], (320, 320), mean=127.5, scale=1 / 127.5))
        found = []
        for folder in map(ModelFolder.open, (per_map, example_folder)):
            net = open_net(runtime, folder.headless_prototxt, folder.deploy_caffemodel)  # type: ignore[arg-type]
            found.append(net.forward(blob, [*HEADS, "Conv_1_mbox_loc_flat"]))
        assert "mbox_loc" not in {top for layer in read_net(per_map / "headless.prototxt").layer for top in layer.top}
        for name, values in found[0].items():
            np.testing.assert_array_equal(values, found[1][name].reshape(values.shape))

    def test_the_numpy_decoder_finds_the_same(self, per_map: Path, example_folder: Path) -> None:
        image = draw_scene(5)[0][..., ::-1].copy()
        ours, theirs = (Detector(folder, decoder="numpy")(image) for folder in (per_map, example_folder))
        assert len(ours.above(0.3)) > 0
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
