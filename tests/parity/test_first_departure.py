"""The first layer that departs, with OpenCV behind a program that spoils one layer."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from ssdlite_caffe.errors import DeviceError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.first_departure import Departure, DepartureReport, find_departure
from tests.commands import Command

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.slow, pytest.mark.xdist_group("verify")]

PROGRAM = """
import sys
import cv2, numpy
from ssdlite_caffe.prototxt.binary import blob_from_array, blob_to_array, read_caffemodel
from ssdlite_caffe.prototxt.text import format_message, read_net
from pathlib import Path
net, weights, given, output, spoiled = sys.argv[1:]
text, content = read_net(Path(net)), read_caffemodel(Path(weights))
for layer in text.layer:
    if layer.name == spoiled and layer.type == "ReLU6":
        layer.type = "Sigmoid"
    if layer.name == spoiled and layer.type == "Power":
        layer.power_param.shift += 0.05
    if layer.name == spoiled and layer.type == "PriorBox":
        layer.prior_box_param.offset = 0.4
    if layer.name == spoiled and layer.type == "Eltwise":
        layer.eltwise_param.operation = 2
for layer in content.layer:
    if layer.name == spoiled and layer.blobs:
        layer.blobs[0].CopyFrom(blob_from_array(blob_to_array(layer.blobs[0]) * numpy.float32(1.05)))
loaded = cv2.dnn.readNetFromCaffe(
    numpy.frombuffer(format_message(text).encode(), numpy.uint8),
    numpy.frombuffer(content.SerializeToString(), numpy.uint8),
)
loaded.setInput(numpy.load(given))
values = loaded.forward()
if spoiled == "nan":
    values.flat[3] = numpy.nan
if spoiled == "fail":
    print("cannot do that\\n")
    sys.exit(3)
if spoiled == "nothing":
    sys.exit()
if spoiled == "flat":
    values.tofile(output)
elif spoiled == "short":
    numpy.save(output, values.reshape(-1)[:-1])
else:
    numpy.save(output, values)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("program with blanks") / "run.py"
    file.write_text(PROGRAM)
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(file))} {{net}} {{weights}} {{input}} {{output}} "


@pytest.fixture(scope="module")
def search(example_model: Path, example_folder: Path, program: str):
    image = example_model.parent / "shapes.png"

    def run(spoiled: str) -> DepartureReport:
        return find_departure(example_model, ModelFolder.open(example_folder), program + spoiled, images=[image])

    return run


@pytest.fixture(scope="module")
def layers(example_folder: Path) -> list[caffe_pb2.LayerParameter]:
    return list(read_net(example_folder / "deploy.prototxt").layer)


def found(report: DepartureReport) -> Departure:
    assert report.departure is not None
    assert len(report.probes) < 20, "it halves"
    assert all(share < 1e-4 for share in report.departure.inputs.values())
    return report.departure


@pytest.mark.parametrize("name", [pytest.param("Conv", marks=pytest.mark.story), "conv_4/project"])
def test_a_layer_with_other_weights(search, name: str) -> None:
    departure = found(search(name))
    assert (departure.layer, departure.type) == (name, "Convolution")
    assert 0.01 < departure.probe.share < 0.2
    assert departure.probe.device is not None
    assert abs(departure.probe.device - departure.probe.reference) == pytest.approx(departure.probe.largest)


@pytest.mark.story
def test_a_layer_of_one_branch(search, layers: list[caffe_pb2.LayerParameter]) -> None:
    """Of the predictors of one feature map, which the other feature maps do not read."""
    name = [layer.name for layer in layers if layer.name.endswith("_mbox_conf")][2]
    assert found(search(name)).layer == name


@pytest.mark.parametrize("last", [pytest.param(False, marks=pytest.mark.story), True])
def test_of_layers_in_place_the_right_one(search, layers: list[caffe_pb2.LayerParameter], last: bool) -> None:
    relu = next(one for one in layers if one.type == "ReLU6" and one.bottom[0] == one.top[0])
    first = next(one for one in layers if relu.top[0] in one.top)
    assert first.type == "Power"
    wanted = relu if last else first
    departure = found(search(wanted.name))
    assert (departure.layer, departure.type) == (wanted.name, wanted.type)
    assert departure.probe.layer == ("" if last else first.name)


@pytest.mark.story
def test_default_boxes(search, layers: list[caffe_pb2.LayerParameter]) -> None:
    name = [layer.name for layer in layers if layer.type == "PriorBox"][1]
    assert found(search(name)).layer == name


@pytest.mark.story
def test_a_program_that_is_right(search) -> None:
    for form in ("nix", "flat"):
        report = search(form)
        assert report.departure is None
        assert [probe.blob for probe in report.probes] == [
            "mbox_loc",
            "mbox_conf",
            "mbox_conf_flatten",
            "mbox_priorbox",
        ]
        assert max(probe.share for probe in report.probes) < 1e-5


def test_nan_departs(search) -> None:
    departure = search("nan").departure
    assert departure is not None
    assert departure.probe.device is None
    assert departure.inputs in ({}, {"data": 0.0})


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        ("fail", r"ends with status 3 on the net cut at mbox_loc: cannot do that$"),
        ("nothing", r"wrote nothing to \{output\} for the net cut at mbox_loc$"),
        ("short", r"has the shape 8135; mbox_loc has 1x8136$"),
    ],
)
def test_programs_that_fail(search, spoiled: str, said: str) -> None:
    with pytest.raises(DeviceError, match=said):
        search(spoiled)


@pytest.mark.story
def test_the_command(
    example_model: Path,
    example_folder: Path,
    program: str,
    command: Command,
) -> None:
    image = example_model.parent / "shapes.png"
    arguments = ("verify", example_model, example_folder, "--images", image, "--first-departure")
    done = command(*arguments, program + "conv_4/project")
    assert (done.status, done.err) == (1, "")
    assert done.out.startswith("the first layer that departs is conv_4/project (Convolution), blob conv_4/project\n")
    wide = command(*arguments, program + "conv_4/project", "--tolerance", "0.9", "--json")
    assert wide.status == 0
    assert json.loads(wide.out)["departure"] is None
    assert json.loads(command(*arguments, program + "nan", "--json").out)["departure"]["probe"]["share"] is None
    missing = command(*arguments, "/no/such/program {net} {output}")
    assert (missing.status, missing.err.count("\n")) == (1, 1)
    assert "cannot start /no/such/program: No such file or directory" in missing.err
    assert command(*arguments, program, "--dump", image).status == 2
