"""Detectors exported for TensorFlow Lite, as graphs and as files, against the ordinary export of the same weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump.detector.raw_outputs import TFLITE_OP
from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.tensors import to_array
from ssdlite_caffe.dump.locate import FROZEN
from ssdlite_caffe.dump.model import DumpedModel, TfliteNms
from ssdlite_caffe.dump.pipeline.config import CONFIG
from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.arch import ArchSpec, FamilyName, HeadKind, Residuals
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.load.fill import fill
from ssdlite_caffe.load.identify import identify
from ssdlite_caffe.prototxt.text import parse_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.verify import verify
from tests.tflite_exports import FAST, Numbers, exported_graph, tflite_of

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv]
ONE_PROCESS = pytest.mark.xdist_group("tflite export")
"""For what takes `exports`, so that they are made once."""

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / FROZEN
SIZE = (320, 320)


@dataclasses.dataclass(frozen=True)
class Case:
    family: FamilyName
    head: HeadKind
    classes: int
    size: tuple[int, int]
    width: float
    extra_depthwise: bool | None = None
    residuals: Residuals = "tf1"
    story: bool = False

    @property
    def name(self) -> str:
        return f"{self.family}-{self.head}-{self.classes}-{self.residuals}"

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        return [pytest.mark.xdist_group(self.name), *([pytest.mark.story] if self.story else [])]


CASES = (
    Case("v1", "ssd", 4, (96, 128), 0.25),
    Case("v2", "ssdlite", 6, (128, 96), 0.35),
    Case("v2", "ssd", 4, (96, 96), 0.35, extra_depthwise=True),
    Case("v2", "ssd", 3, (96, 128), 0.5, residuals="tf2", story=True),
    Case("v3-small", "ssdlite", 4, (96, 96), 0.5),
    Case("v3-large", "ssdlite", 3, (96, 96), 0.35, story=True),
    Case("v3-large-minimalistic", "ssdlite", 4, (96, 96), 0.35, story=True),
)
"""With 4 classes (background included) box and class predictors have the same shapes."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, id=case.name, marks=case.marks) for case in CASES],
)
def frozen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary frozen graph of a small detector with random weights."""
    from ssdlite_caffe.keras.export_pb import frozen_graph
    from tests.keras_models import lively_detector

    case: Case = request.param
    arch = default_arch(case.family, case.classes, input_size=case.size, head=case.head, width_multiplier=case.width)
    detector = lively_detector(
        dataclasses.replace(arch, extra_depthwise=case.extra_depthwise, residuals=case.residuals)
    )
    path = tmp_path_factory.mktemp("frozen") / "plain.pb"
    path.write_bytes(frozen_graph(detector).SerializeToString(deterministic=True))
    return path


def blobs(model: DumpedModel, arch: ArchSpec) -> dict[str, tuple[np.ndarray, ...]]:
    """What the deploy net is filled with."""
    net = build(arch)
    return dict(fill(parse_net(render(net, Dialect(), "deploy"), name="deploy"), net, model).blobs)


def without_nms(arch: ArchSpec) -> ArchSpec:
    return dataclasses.replace(arch, nms=type(arch.nms)())


def near(one: ArchSpec, other: ArchSpec) -> None:
    """The same architecture, but for default boxes that went through centres and sizes in float32, and the epsilon.

    A file has no BatchNorm left to take an epsilon from; the usual one is written into train nets.
    """
    for a, b in zip(one.boxes, other.boxes, strict=True):
        np.testing.assert_allclose(a.sizes, b.sizes, rtol=2e-6, atol=0)
    assert one.batch_norm_epsilon == pytest.approx(1e-3, rel=1e-6)
    sides = (dataclasses.replace(without_nms(arch), boxes=(), batch_norm_epsilon=1e-3) for arch in (one, other))
    assert next(sides) == next(sides)


class TestEveryFamily:
    @pytest.mark.parametrize("operation", [True, False])
    def test_a_graph_has_the_same_tensors(self, frozen: Path, tmp_path: Path, operation: bool) -> None:
        path = tmp_path / "tflite_graph.pb"
        path.write_bytes(exported_graph(frozen, FAST if operation else None))
        plain, other = read_model(frozen), read_model(path)
        assert other.tensors.keys() == plain.tensors.keys()
        for name, value in plain.tensors.items():
            np.testing.assert_array_equal(other.tensors[name], value)
        assert other.settings.box_order == plain.settings.box_order
        assert other.settings.class_order == plain.settings.class_order
        assert other.settings.tflite_nms == (FAST_READ if operation else None)
        if operation:
            near(identify(other)[1], identify(plain)[1])
        else:
            with pytest.raises(ModelError, match=r"does not say its (default boxes|box coder's scales)"):
                identify(other)

    @pytest.mark.parametrize(("numbers", "bound"), [("float32", 2.4e-7), ("float16", 5e-4), ("dynamic", 4e-3)], ids=str)
    def test_a_file_makes_the_same_net(self, frozen: Path, tmp_path: Path, numbers: Numbers, bound: float) -> None:
        """Blobs, relative to the largest number in each. Measured: 2.1e-7 (2^-22 is 2.4e-7), and the formats' rounding.

        That is 2^-11 of float16 (4.9e-4; 4.81e-4 measured) and half a step of 127 of int8 (3.94e-3; 3.94e-3 measured).
        """
        plain, plain_arch = identify(read_model(frozen))
        path = tmp_path / "model.tflite"
        path.write_bytes(tflite_of(exported_graph(frozen), plain_arch.input_size, numbers))
        model, arch = identify(read_model(path))
        assert {unit.scope for unit in model.units} == {unit.scope for unit in plain.units}
        if numbers != "float16":
            near(arch, plain_arch)
        wanted = blobs(plain, plain_arch)
        # float16 default boxes are of other sizes, which fold into the box predictors.
        found = blobs(model, dataclasses.replace(arch, boxes=plain_arch.boxes))
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            for one, other in zip(found[name], values, strict=True):
                assert np.abs(one.astype(np.float64) - other).max() <= bound * np.abs(other).max(), name


FAST_READ = TfliteNms(float(np.float32(0.6)), float(np.float32(1e-8)), 10, 1, 100, regular=False)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The trained example in every form that it is exported in for TensorFlow Lite, each in a folder of its own."""
    graph, raw = exported_graph(EXAMPLE), exported_graph(EXAMPLE, None)
    made = {
        "graph": graph,
        "raw_graph": raw,
        "float32": tflite_of(graph, SIZE),
        "float16": tflite_of(graph, SIZE, "float16"),
        "dynamic": tflite_of(graph, SIZE, "dynamic"),
        "int8": tflite_of(graph, SIZE, "int8"),
        "pixels": tflite_of(graph, SIZE, pixels=(127.5, 127.5)),
        "raw": tflite_of(raw, SIZE, operation=False),
        "regular": tflite_of(exported_graph(EXAMPLE, dataclasses.replace(FAST, regular=True)), SIZE),
    }
    folder = tmp_path_factory.mktemp("exports")
    paths = {}
    for name, data in made.items():
        (folder / name).mkdir()
        paths[name] = folder / name / ("tflite_graph.pb" if "graph" in name else "model.tflite")
        paths[name].write_bytes(data)
    return paths


CONFIG_TEXT = """model { ssd { num_classes: 3
  image_resizer { fixed_shape_resizer { height: 320 width: 320 } }
  feature_extractor { type: "ssd_mobilenet_v3_small" }
  box_coder { faster_rcnn_box_coder { y_scale: 10 x_scale: 10 height_scale: 5 width_scale: 5 } }
  anchor_generator { ssd_anchor_generator { num_layers: 6 min_scale: 0.2 max_scale: 0.95
    aspect_ratios: 1.0 aspect_ratios: 2.0 aspect_ratios: 0.5 aspect_ratios: 3.0 aspect_ratios: 0.3333 } }
  post_processing { batch_non_max_suppression { score_threshold: 0.01 iou_threshold: 0.55
    max_detections_per_class: 90 max_total_detections: 70 } score_converter: SIGMOID }
} }
"""


@ONE_PROCESS
class TestTheTrainedExample:
    """Largest differences measured: boxes 2.4e-7, scores 9.2e-7; the table's bounds are for random weights, too."""

    @pytest.mark.parametrize(
        "form", ["graph", "float32", "float16", "dynamic", "raw", "raw_graph", "regular", "pixels"]
    )
    def test_verify(
        self, exports: dict[str, Path], tmp_path: Path, scene_images: list[tuple[str, np.ndarray]], form: str
    ) -> None:
        source = exports[form]
        config = tmp_path / "given.config"
        config.write_text(CONFIG_TEXT)
        reading = ReadOptions(config if form.startswith("raw") else None)
        convert(source, tmp_path / "out", ConvertOptions(reading=reading))
        report = verify(source, ModelFolder.open(tmp_path / "out"), scene_images[:2])
        rows = {row.stage: row for row in report.rows}
        assert report.first_failure is None, report.first_failure
        assert rows["boxes"].absolute <= 5e-7
        assert rows["scores"].absolute <= 2e-6
        assert rows["detections"].absolute <= 2e-6
        assert ("TensorFlow Lite" in rows) == (form in ("float32", "float16", "dynamic", "regular", "pixels"))
        if "TensorFlow Lite" in rows:
            # The default boxes of the float16 file are off by its own rounding.
            assert rows["TensorFlow Lite"].absolute <= (2.5e-4 if form == "float16" else 2e-6)
            assert rows["TensorFlow Lite"].shape == (10, 6)
        arch = ModelFolder.open(tmp_path / "out").arch
        # The converter rounds the zero point of such a file to a whole number.
        assert arch.pixel_mean == (128 if form == "pixels" else 127.5)
        assert arch.pixel_scale == pytest.approx(1 / 127.5, rel=1e-7)

    def test_fully_quantised(self, exports: dict[str, Path], tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"is fully quantised: \d+ operators .*, 88 convolutions"):
            convert(exports["int8"], tmp_path / "out", ConvertOptions())
        assert not (tmp_path / "out").exists()
        report = convert(exports["int8"], tmp_path / "out", ConvertOptions(reading=ReadOptions(dequantize=True)))
        assert report["exact"] is False
        assert "the model is quantised" in report["notes"][-1]
        wanted, found = (blobs(*identify(read_model(path, ReadOptions(dequantize=True)))) for path in
                         (exports["float32"], exports["int8"]))  # fmt: skip
        for name, values in wanted.items():
            assert np.abs(found[name][0].astype(np.float64) - values[0]).max() <= 5e-3 * np.abs(values[0]).max(), name

    def test_a_kernel_and_a_bias_that_are_wrong_are_seen(
        self, exports: dict[str, Path], tmp_path: Path, scene_images: list[tuple[str, np.ndarray]]
    ) -> None:
        """The comparison is one that can fail: a file with one bias changed is not the folder's model."""
        convert(exports["float32"], tmp_path / "out", ConvertOptions())
        other = tmp_path / "other.tflite"
        data = bytearray(exports["float32"].read_bytes())
        model = read_model(exports["float32"])
        bias = next(value for name, value in model.tensors.items() if name.endswith("/biases") and value.size > 40)
        place = bytes(data).index(bias.tobytes())
        data[place : place + 4] = (bias[:1] + np.float32(0.01)).tobytes()
        other.write_bytes(bytes(data))
        with pytest.raises(ModelError, match="was converted from another model"):
            verify(other, ModelFolder.open(tmp_path / "out"), scene_images[:1])


@ONE_PROCESS
class TestSuppression:
    def read(self, folder: Path, **options: Any) -> DumpedModel:
        return read_model(folder, ReadOptions(**options))

    @pytest.fixture
    def folder(self, exports: dict[str, Path], tmp_path: Path) -> Path:
        """Laid out as the zoo's V3 archives are."""
        shutil.copy(exports["graph"], tmp_path / FROZEN)
        shutil.copy(exports["float32"], tmp_path / "model.tflite")
        (tmp_path / CONFIG).write_text(CONFIG_TEXT)
        return tmp_path

    @pytest.mark.parametrize("file", ["", FROZEN, "model.tflite"])
    def test_the_config_beside_it_comes_before_fast_nms(self, folder: Path, file: str) -> None:
        model = self.read(folder / file)
        nms = identify(model)[1].nms
        assert (nms.iou_threshold, nms.score_threshold) == (float(np.float32(0.55)), float(np.float32(0.01)))
        assert (nms.max_per_class, nms.max_total) == (90, 70)
        assert model.origins["suppression"] == str(folder / CONFIG)
        assert model.origins["weights"] == str(folder / (file or FROZEN))
        assert "normalised float input" in model.origins["preprocessing"]
        (note,) = model.notes
        assert "TensorFlow Lite's fast NMS" in note

    def test_without_a_config_the_operations_numbers(self, folder: Path) -> None:
        (folder / CONFIG).unlink()
        model = self.read(folder)
        nms = identify(model)[1].nms
        assert (nms.max_per_class, nms.max_total) == (100, 10)
        assert nms.iou_threshold == FAST_READ.iou_threshold
        assert "at most 10 detections per image" in model.notes[0]

    def test_regular_is_the_graphs_own(self, exports: dict[str, Path], folder: Path) -> None:
        shutil.copy(exports["regular"], folder / "regular.tflite")
        model = self.read(folder / "regular.tflite")
        assert (model.settings.max_total, model.settings.max_per_class) == (10, 100)
        assert any("differ, the former is used: IoU threshold 0.6, not 0.55" in note for note in model.notes)

    def test_choices(self, folder: Path) -> None:
        assert self.read(folder, nms="regular").settings.max_total == 10
        assert self.read(folder, nms="config").settings.max_total == 70
        with pytest.raises(ModelError, match="which a Caffe net cannot do; give --nms regular"):
            self.read(folder, nms="graph")
        assert self.read(EXAMPLE, nms="graph").settings.max_total == 100
        shutil.copy(EXAMPLE, folder.parent / "alone.pb")
        with pytest.raises(ModelError, match=r"--nms config needs a pipeline\.config, and there is none beside"):
            self.read(folder.parent / "alone.pb", nms="config")

    def test_a_config_of_another_model_is_refused(self, folder: Path) -> None:
        (folder / CONFIG).write_text(CONFIG_TEXT.replace("num_classes: 3", "num_classes: 4"))
        with pytest.raises(ModelError, match="classes with background 4 in the model, 5 in the"):
            self.read(folder)
        assert self.read(folder, nms="regular").settings.num_classes == 4

    def test_a_config_with_soft_nms_is_refused(self, folder: Path) -> None:
        (folder / CONFIG).write_text(
            CONFIG_TEXT.replace("iou_threshold: 0.55", "iou_threshold: 0.55 soft_nms_sigma: 0.5")
        )
        with pytest.raises(ModelError, match="soft NMS"):
            identify(self.read(folder))

    def test_a_broken_config_beside_it_is_named(self, folder: Path) -> None:
        (folder / CONFIG).write_text("model {")
        assert any("is skipped" in note for note in self.read(folder).notes)

    def test_boxes_come_from_another_file_of_the_folder(self, exports: dict[str, Path], tmp_path: Path) -> None:
        shutil.copy(exports["raw_graph"], tmp_path / "tflite_graph.pb")
        shutil.copy(exports["float32"], tmp_path / "model.tflite")
        model = self.read(tmp_path)
        assert model.origins["default boxes"] == str(tmp_path / "model.tflite")
        near(identify(model)[1], identify(read_model(EXAMPLE))[1])


@ONE_PROCESS
class TestBadFiles:
    def test_anchors(self, exports: dict[str, Path], tmp_path: Path) -> None:
        graph = pb.GraphDef.FromString(exports["graph"].read_bytes())
        operation = next(node for node in graph.node if node.op == TFLITE_OP)
        path = tmp_path / "a.pb"

        def refused(says: str) -> None:
            path.write_bytes(graph.SerializeToString())
            with pytest.raises(ModelError, match=says):
                identify(read_model(path))

        anchors = next(node for node in graph.node if node.name == "anchors").attr["value"].tensor
        kept = pb.TensorProto.FromString(anchors.SerializeToString())
        anchors.tensor_content = anchors.tensor_content[:-16]
        anchors.tensor_shape.dim[0].size -= 1
        refused("has 2033 default boxes, its predictors need 2034")
        anchors.CopyFrom(kept)
        operation.attr["num_classes"].i = 7
        refused("must have 3 classes, since the class predictors have 4 with background, got 7")
        operation.attr["num_classes"].i = 4
        refused("a class predictor without a background column")
        operation.attr["num_classes"].i = 3
        operation.attr["max_detections"].i = 0
        refused("max_detections of .* must be in 1.*, got 0")
        operation.attr["max_detections"].i = 10
        operation.attr["nms_iou_threshold"].f = float("nan")
        refused("must have an nms_iou_threshold above 0 .* got nan")
        operation.attr["nms_iou_threshold"].f = 0.5
        del operation.input[2:]
        refused("must have 3 inputs .*, got 2")
        del operation.input[1:]
        refused("must have 3 inputs .*, got 1")

    def test_fake_quantisation(self, exports: dict[str, Path], tmp_path: Path) -> None:
        graph = pb.GraphDef.FromString(exports["graph"].read_bytes())
        graph.node.add(name="q", op="FakeQuantWithMinMaxVars", input=["anchors"] * 3)
        path = tmp_path / "a.pb"
        path.write_bytes(graph.SerializeToString())
        with pytest.raises(ModelError, match="is a quantised graph: 1 FakeQuantWithMinMaxVars nodes"):
            read_model(path)


@ONE_PROCESS
class TestWhatIsDoneBehindThePredictors:
    """What a graph does with codes and scores is read, or refused: left out in silence it would give other boxes."""

    @pytest.mark.parametrize(
        ("op", "which", "says"),
        [
            ("Neg", 0, "has an unsupported op on its box encodings"),
            ("Square", 0, "has an unsupported op on its box encodings"),
            ("Neg", 1, "are not the sigmoid or softmax of the class logits"),
            ("Sigmoid", 1, "are not the sigmoid or softmax of the class logits"),
            ("half", 0, "must multiply its box encodings by 1 between .*, got 0.5"),
            ("swap", 0, "are not the sigmoid or softmax of the class logits"),
            ("twice", 0, "must have one TFLite_Detection_PostProcess operation, got 2"),
        ],
    )
    def test_of_an_export(self, exports: dict[str, Path], tmp_path: Path, op: str, which: int, says: str) -> None:
        graph = pb.GraphDef.FromString(exports["graph"].read_bytes())
        operation = next(node for node in graph.node if node.op == TFLITE_OP)
        if op == "swap":
            operation.input[0], operation.input[1] = operation.input[1], operation.input[0]
        elif op == "twice":
            graph.node.add(name="again", op=TFLITE_OP, input=list(operation.input))
        elif op == "half":
            half = graph.node.add(name="half", op="Const").attr["value"].tensor
            half.dtype = pb.DT_FLOAT
            half.float_val.append(0.5)
            graph.node.add(name="odd", op="Mul", input=[operation.input[which], "half"])
            operation.input[which] = "odd"
        else:
            graph.node.add(name="odd", op=op, input=[operation.input[which]])
            operation.input[which] = "odd"
        path = tmp_path / "odd.pb"
        path.write_bytes(graph.SerializeToString())
        with pytest.raises(ModelError, match=says):
            read_model(path)

    def test_of_an_ordinary_graph(self, tmp_path: Path) -> None:
        graph = pb.GraphDef.FromString(EXAMPLE.read_bytes())
        decode = next(node for node in graph.node if node.name == "Postprocessor/Decode/transpose")
        graph.node.add(name="odd", op="Neg", input=[decode.input[0]])
        decode.input[0] = "odd"
        path = tmp_path / "odd.pb"
        path.write_bytes(graph.SerializeToString())
        with pytest.raises(
            ModelError, match="has an unsupported op on its box encodings between the predictors and odd"
        ):
            read_model(path)


def drawn(graph: bytes) -> bytes:
    """A graph whose hard swishes leave their factor 1/6 to the one convolution behind them, as TOCO writes them."""
    definition = pb.GraphDef.FromString(graph)
    nodes = {node.name: node for node in definition.node}
    changed = 0
    for node in list(definition.node):
        readers = [other for other in definition.node if node.name in other.input]
        values = [nodes[name] for name in node.input if name in nodes and nodes[name].op == "Const"]
        if node.op != "Mul" or len(values) != 1 or len(readers) != 1 or "Conv" not in readers[0].op:
            continue
        if abs(float(to_array(values[0].attr["value"].tensor, "")) - 1 / 6) > 1e-6:
            continue
        kernel = nodes[readers[0].input[1]]
        while kernel.op == "Identity":
            kernel = nodes[kernel.input[0]]
        scaled = (to_array(kernel.attr["value"].tensor, "").astype(np.float64) / 6).astype(np.float32)
        kernel.attr["value"].tensor.tensor_content = scaled.tobytes()
        readers[0].input[0] = next(name for name in node.input if nodes[name].op != "Const")
        changed += 1
    assert changed > 3
    return bytes(definition.SerializeToString())


@ONE_PROCESS
def test_a_hard_swish_without_its_factor_is_verified(
    exports: dict[str, Path], tmp_path: Path, scene_images: list[tuple[str, np.ndarray]]
) -> None:
    """Measured: 2.4e-7 (boxes), 7e-7 (scores)."""
    path = tmp_path / "toco.tflite"
    path.write_bytes(tflite_of(drawn(exports["graph"].read_bytes()), SIZE))
    model = read_model(path)
    assert {unit.output_scale for unit in model.units} == {1.0, 6.0}
    convert(path, tmp_path / "out", ConvertOptions())
    report = verify(path, ModelFolder.open(tmp_path / "out"), scene_images[:2])
    assert report.first_failure is None
    assert max(row.relative for row in report.rows if row.relative_bound) <= 1e-5


@ONE_PROCESS
def test_the_report_says_where_everything_is_from(exports: dict[str, Path], tmp_path: Path) -> None:
    convert(exports["float32"], tmp_path / "out", ConvertOptions(reading=ReadOptions(nms="regular")))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["source"]["form"] == "TensorFlow Lite"
    assert report["source"]["origins"]["suppression"] == f"{exports['float32']}, for each class"
    assert report["reading"] == {"pipeline_config": None, "nms": "regular", "dequantize": False}
    folder = ModelFolder.open(tmp_path / "out")
    assert folder.tflite_nms == FAST_READ
    assert folder.reading == ReadOptions(nms="regular")
