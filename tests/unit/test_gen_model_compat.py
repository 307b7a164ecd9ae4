"""`gen --compat`: the layers of earlier projects' nets, option by option, and what else is done with such nets.

The lists in tests/earlier_nets say what the projects' files hold; tests/layer_lists.py says what is compared.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from ssdlite_caffe.commands.gen import gen
from ssdlite_caffe.errors import ArchError, TensorError
from ssdlite_caffe.gen_model.arch import ArchSpec, CompatName, HeadKind
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.compat import COMPAT, compat_arch
from ssdlite_caffe.gen_model.dialect import Stage
from ssdlite_caffe.load.fill import fill
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import write_filled
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import parse_net, read_net
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.tools.merge_bn import merge_files
from tests.layer_lists import FOLDER, digest, layer_list
from tests.models import model_of

LISTS = sorted(path.stem for path in FOLDER.glob("*.txt") if path.stem != "digests")
DIGESTS = [line.split(" | ") for line in (FOLDER / "digests.txt").read_text().splitlines()[1:]]
V2, PINTO, V1, TEMPLATE = (f"--compat {name}" for name in get_args(CompatName))


def run(options: str) -> Any:
    app = typer.Typer()
    app.command()(gen)
    return CliRunner().invoke(app, options.split())


def text_of(options: str) -> str:
    result = run(options)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def net_of(options: str) -> caffe_pb2.NetParameter:
    return parse_net(text_of(options))


class TestLayers:
    @pytest.mark.parametrize("name", LISTS)
    def test_of_a_prototxt(self, name: str) -> None:
        said, *rows = (FOLDER / f"{name}.txt").read_text().splitlines()
        assert layer_list(net_of(said.split(" = gen ")[1])) == rows

    @pytest.mark.parametrize(("expected", "options", "source"), DIGESTS, ids=[row[1] for row in DIGESTS])
    def test_of_a_prototxt_or_script_by_digest(self, expected: str, options: str, source: str) -> None:
        assert digest(layer_list(net_of(options))) == expected, f"the layers are not those of {source}"

    def test_the_lists_are_there(self) -> None:
        assert len(LISTS) == 7
        assert len(DIGESTS) > 40
        assert {options.split()[1] for _, options, _ in DIGESTS} == set(get_args(CompatName))

    def test_headless_nets_are_the_deploy_nets_without_their_ends(self) -> None:
        for options in (f"{V2} -c 21 --tfpad", f"{V1} -c 21"):
            deploy, headless = layer_list(net_of(f"{options} -s deploy")), layer_list(net_of(f"{options} -s headless"))
            assert headless == deploy[: len(headless)]
            assert [row.split(" | ")[0] for row in headless[-3:]] == ["mbox_loc", "mbox_conf", "mbox_priorbox"]

    def test_our_own_options_change_values_alone(self) -> None:
        plain = net_of(f"{V2} -c 21")
        other = net_of(f"{V2} -c 21 --input-size 320x256 --engine CAFFE --keep-top-k 7 --eps 1e-5 --min-scale 0.3")
        assert [layer.name for layer in other.layer] == [layer.name for layer in plain.layer]
        assert infer(other).param_shapes == infer(plain).param_shapes
        assert other.layer[-1].detection_output_param.keep_top_k == 7
        assert list(other.input_shape[0].dim) == [1, 3, 320, 256]

    def test_the_head_of_the_file_names_the_project(self) -> None:
        text = text_of(f"{V1} -c 21")
        assert "# Names and channel counts: of the earlier project mobilenet-ssd.\n" in text
        assert "# Network input = (pixel - 127.5) * 0.007843, channels BGR.\n" in text
        assert "of the earlier project" not in text_of("-v 1 -c 21")

    def test_train_nets_read_the_given_files(self) -> None:
        data = net_of(f"{V2} -c 21 -s train -d my_lmdb -l my.prototxt").layer[0]
        assert (data.data_param.source, data.annotated_data_param.label_map_file) == ("my_lmdb", "my.prototxt")
        assert data.transform_param.scale == np.float32(0.007843)
        assert {layer.convolution_param.weight_filler.type for layer in net_of(f"{V2} -c 21 -s train").layer} == {
            "constant",  # the default, of layers that are no convolutions
            "msra",
        }


REFUSED = {
    f"{V2} -c 21 --activation relu6": "give these in place of --activation relu6",
    f"{V2} -c 21 --gate interp --input-form layer": "leave out --gate interp, --input-form layer",
    f"{V2} -c 21 --padding slice --bn fold": "give these in place of --padding slice, --bn fold",
    f"{V2} -c 21 -v 3-small": "has --version 2 and 1, got 3-small",
    f"{PINTO} -c 21 -v 1": "has --version 2, got 1",
    f"{PINTO} -c 21 -t ssd": "has --type ssdlite, got ssd",
    f"{V1} -c 21 -v 2": "has --version 1, got 2",
    f"{TEMPLATE} -c 21 -t ssdlite": "has --type ssd, got ssdlite",
    f"{V2} -c 21 --head-kernel 5 --explicit-padding": "leave out --head-kernel, --explicit-padding",
    f"{V2} -c 21 --extra-layers full": "leave out --extra-layers",
    f"{V2} -c 21 --clip-first": "leave out --clip-first",
    f"{V2} -c 21 --batchnorm --nobn": "--batchnorm contradicts --nobn",
    f"{V2} -c 21 --classifier --type ssd": "--classifier cannot be combined with --type",
    "-c 21 --batchnorm --no_batchnorm": "--batchnorm contradicts --no_batchnorm",
    "-c 21 --batchnorm --bn fold": "--batchnorm means --bn keep and contradicts --bn fold",
    "-c 21 --no_batchnorm --bn keep": "--no_batchnorm means --bn fold and contradicts --bn keep",
    "-c 21 --compat mobilenet": "is not one of",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_is_refused_as_wrong_usage(options: str) -> None:
    result = run(options)
    assert (result.exit_code, result.stdout) == (2, "")
    said = " ".join(result.output.replace("│", " ").split())
    assert REFUSED[options] in said


class TestWidths:
    @pytest.mark.parametrize(("version", "size", "blob"), [("1", "0.75", "conv11"), ("2", "1.4", "conv_13/expand")])
    def test_that_no_caffe_sets_up(self, version: str, size: str, blob: str) -> None:
        result = run(f"{V2} -c 21 -v {version} --size {size}")
        assert isinstance(result.exception, ArchError)
        said = str(result.exception)
        assert f"channels of {blob}; use 1, 0.5 or 0.25, or --type ssd" in said
        assert ("pinto0309" in said) == (version == "2")
        assert run(f"{V2} -c 21 -v {version} --size {size} -t ssd").exit_code == 0

    @pytest.mark.parametrize("size", ["0.25", "0.5", "1"])
    def test_that_the_message_names(self, size: str) -> None:
        for version in "12":
            assert not infer(net_of(f"{V2} -c 21 -v {version} --size {size}")).errors

    def test_without_channels(self) -> None:
        result = run(f"{V2} -c 21 -t ssd --size 0.05")
        assert isinstance(result.exception, ArchError)
        assert "without channels" in str(result.exception)
        assert run(f"{V2} -c 21 -t ssd --size 0.0625").exit_code == 0


class TestArch:
    def test_the_report_keeps_it(self) -> None:
        arch = compat_arch(default_arch("v1", 5, head="ssd"), "mobilenet-ssd-template")
        assert ArchSpec.from_dict(arch.to_dict()) == arch
        with pytest.raises(ArchError, match=r"compat must be one of mobilenetv2-ssdlite, .*, got 'mobilenet'"):
            ArchSpec.from_dict({**arch.to_dict(), "compat": "mobilenet"})

    def test_a_report_from_before_has_none(self) -> None:
        said = default_arch("v2", 5).to_dict()
        assert "compat" not in said
        assert ArchSpec.from_dict(said) == default_arch("v2", 5)

    @pytest.mark.parametrize(
        ("family", "head", "compat", "message"),
        [
            ("v3-small", "ssdlite", "mobilenetv2-ssdlite", "has v2 and v1 nets, got v3-small"),
            ("v1", "ssdlite", "mobilenet-ssd", "has ssd predictors, got ssdlite"),
        ],
    )
    def test_a_project_without_such_nets(self, family: Any, head: HeadKind, compat: CompatName, message: str) -> None:
        arch = default_arch(family, 5, head=head)
        with pytest.raises(ArchError, match=message):
            compat_arch(arch, compat)
        with pytest.raises(ArchError, match=message):
            build(dataclasses.replace(arch, compat=compat))


FLAGS = [
    ("--relu6", "--activation relu6"),
    ("--relu6", ""),
    ("--tfpad", "--padding exact"),
    ("--tfpad", ""),
    ("--tfpad --padding slice", "--padding slice"),
    ("--nobn", "--bn fold"),
    ("--nobn -s train", "--bn fold -s train"),
    ("--batchnorm", "--bn keep"),
    ("--batchnorm", ""),
    ("--batchnorm --bn keep", ""),
    ("--no_batchnorm", "--bn fold"),
    ("--no-batchnorm -s headless", "--bn fold -s headless"),
    ("--no_batchnorm -s train", "-s train"),
    ("--no_batchnorm -s test --bn keep", "-s test"),
    ("--size 0.5", "--width-multiplier 0.5"),
    ("-v 2 -t ssd", "--version 2 --type ssd"),
    ("-s train -d x -l y", "--stage train --data x --label-map y"),
    ("-s train --lmdb x", "-s train -d x"),
]
"""What a flag of the earlier scripts stands for without --compat; the table in docs/generate.md says the same."""


@pytest.mark.parametrize(("old", "new"), FLAGS)
def test_flags_without_compat_print_the_same_as_our_options(old: str, new: str) -> None:
    assert text_of(f"-c 5 {old}") == text_of(f"-c 5 {new}")


def test_fold_body_keeps_the_batch_norms_of_the_predictors() -> None:
    layers = net_of("-c 5 --bn fold-body").layer
    kept = [layer.name for layer in layers if layer.type == "BatchNorm"]
    assert len(kept) == 12
    assert all("_mbox_" in name for name in kept)
    assert all(
        layer.convolution_param.bias_term == (f"{layer.name}/bn" not in kept)
        for layer in layers
        if layer.type == "Convolution"
    )


def write_random(net: caffe_pb2.NetParameter, path: Path) -> None:
    """A caffemodel with small random weights for every learned blob of the net."""
    random = np.random.default_rng(0)
    types = {layer.name: layer.type for layer in net.layer}
    blobs = {}
    for name, shapes in infer(net).param_shapes.items():
        arrays = [random.uniform(-0.3, 0.3, shape).astype(np.float32) for shape in shapes]
        if types[name] == "BatchNorm":
            arrays[1:] = [np.abs(arrays[1]) + 0.5, np.full(1, 1, np.float32)]
        if types[name] == "Scale":
            arrays[0] += 1
        blobs[name] = arrays
    write_filled(path, net, blobs)


@pytest.mark.opencv
@pytest.mark.parametrize(
    "options", [f"{V2} -c 4 --relu6 --tfpad --nobn", f"{V2} -c 4 -v 1", f"{V1} -c 4", f"{TEMPLATE} -c 4 --relu6"]
)
def test_opencv_and_merge_bn_take_the_nets(options: str, tmp_path: Path) -> None:
    prototxt, weights = tmp_path / "deploy.prototxt", tmp_path / "deploy.caffemodel"
    prototxt.write_text(text_of(f"{options} --size {'0.25' if V2 in options else '0.125'}"))
    write_random(read_net(prototxt), weights)
    report = merge_files(prototxt, weights, tmp_path / "merged")
    norms = sum(layer.type == "BatchNorm" for layer in read_net(prototxt).layer)
    assert report["layers_folded"] == norms > 0
    assert report["unused"] == []
    image = np.random.default_rng(1).uniform(-1, 1, (1, 3, 300, 300)).astype(np.float32)
    heads = ["mbox_loc", "mbox_conf", "mbox_priorbox"]
    before = OpenCvNet(prototxt, weights).forward(image, heads)
    after = OpenCvNet(tmp_path / "merged/deploy.prototxt", tmp_path / "merged/deploy.caffemodel").forward(image, heads)
    for name in heads:
        largest = np.abs(before[name]).max()  # without the bound of ReLU6, random weights give large values
        assert np.abs(after[name] - before[name]).max() / largest < 1e-5  # measured: 4.6e-6
    assert before["mbox_priorbox"].shape[-1] == 1917 * 4


class TestLoad:
    """Weights of a TensorFlow model in the nets of the projects: what their load_caffe_weights.py did."""

    @pytest.mark.parametrize("flags", ["--relu6 --tfpad --nobn", "--relu6 --tfpad", ""])
    @pytest.mark.parametrize("stage", ["deploy", "train"])
    def test_mobilenetv2_ssdlite(self, flags: str, stage: Stage) -> None:
        arch = default_arch("v2", 3)
        self.check(arch, net_of(f"{V2} -c 3 -s {stage} {flags}"))

    @pytest.mark.parametrize("options", [f"{V1} -c 3 --scores sigmoid", f"{TEMPLATE} -c 3 --scores sigmoid --nobn"])
    def test_mobilenet_ssd(self, options: str) -> None:
        arch = dataclasses.replace(default_arch("v1", 3, head="ssd"), head_kernel=1)
        self.check(arch, net_of(options))

    def test_version_1_of_the_other_project(self) -> None:
        self.check(default_arch("v1", 3, head="ssd"), net_of(f"{V2} -c 3 -v 1 -t ssd"))

    def test_other_widths_do_not_fit(self) -> None:
        arch = default_arch("v2", 3, head="ssd", width_multiplier=0.75)
        arch = dataclasses.replace(arch, extra_depthwise=True)
        net = net_of(f"{V2} -c 3 -t ssd --size 0.75")
        with pytest.raises(TensorError, match="layer 'conv/project' has 12 outputs in 1 groups, the model 16 in 1"):
            fill(net, build(arch), model_of(arch, seed=None))

    @staticmethod
    def check(arch: ArchSpec, net: caffe_pb2.NetParameter) -> None:
        found = fill(net, build(arch), model_of(arch, seed=None))
        assert {name: tuple(b.shape for b in blobs) for name, blobs in found.blobs.items()} == infer(net).param_shapes
        assert found.left == {}


class TestPage:
    """docs/generate.md says of every project and option what the tests above compare."""

    PAGE = (Path(__file__).parents[2] / "docs/generate.md").read_text()

    def test_every_project(self) -> None:
        assert all(f"`{name}`" in self.PAGE for name in COMPAT)

    def test_every_option_of_the_scripts(self) -> None:
        rows = [
            line for line in self.PAGE.split("## The earlier scripts' options")[1].splitlines() if line[:3] == "| `"
        ]
        options = [re.findall(r"`(-[^`]+)`", row.split(" | ")[0]) for row in rows]
        with_compat = " ".join([options for _, options, _ in DIGESTS]).split()
        without = " ".join(f"{old} {new} -c 5 --classifier --eps 1" for old, new in FLAGS).split()
        assert len(rows) == 14
        for names in options:
            assert set(names) & set(with_compat), f"{names} is not compared with a script"
            assert set(names) & set(without), f"{names} is not compared with our own option"

    def test_the_options_of_each_prototxt(self) -> None:
        """The table of prototxts: its options give the lists, or digests, of the deploy nets that it names."""
        table = self.PAGE.split("| prototxt | options |")[1].split("\n\n")[0].splitlines()[2:]
        assert len(table) == 8
        for row in table:
            files, options = row.strip("| ").split(" | ")
            parts = re.findall(r"`([^`]+)`", options)
            classes = [part for part in parts if part.startswith("-c")]
            others = " ".join(part for part in parts if part not in classes)
            names = [name.replace("*", "deploy.prototxt") for name in re.findall(r"`([^`]+)`", files)]
            for number, name in zip(classes or [""], names, strict=False):
                rows = layer_list(net_of(f"{others} {number}"))
                same = [text for text in SOURCES if SOURCES[text] in (rows, digest(rows))]
                assert any(f" {name} = " in text for text in same), (row, name, same)


def _sources() -> dict[str, Any]:
    """File of a project -> its list, or its list's digest."""
    found: dict[str, Any] = {f"{source} = {options}": expected for expected, options, source in DIGESTS}
    for name in LISTS:
        first, *rows = (FOLDER / f"{name}.txt").read_text().splitlines()
        found[first] = rows
    return found


SOURCES = _sources()
