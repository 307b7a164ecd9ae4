"""TensorFlow Lite files in their interpreter against the Keras models they were made of."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.data.labelled_images import open_images
from ssdlite_caffe.dump.detector.raw_outputs import TFLITE_OP
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.errors import ModelError, SsdliteError
from ssdlite_caffe.evaluation.evaluate import evaluate
from ssdlite_caffe.evaluation.forms import ModelForms
from ssdlite_caffe.gen_model.arch import ArchSpec, Nms
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.keras.detectors import ExportedTfliteDetector, KerasDetector
from ssdlite_caffe.keras.export_tflite import tflite_model
from ssdlite_caffe.keras.import_model import import_detector
from ssdlite_caffe.keras.model import KerasModel
from ssdlite_caffe.keras.tflite_file import DESCRIPTION
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.tools.compare import compare_detections
from tests.keras_models import bytes_of, images, lively_detector
from tests.real_models import real_models

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.xdist_group("keras tflite")]

FLOAT = 1e-4
"""Of boxes and scores against Keras; measured 3e-6 on these nets, 9e-7 on the trained ones."""
MODELS = ("shapes_v3_small_3", "bccd_v2_ssdlite_3", "random_v3_large_90", "zoo2018_v2_ssdlite_90")
SMALL: dict[str, ArchSpec] = {
    "v3-small": dataclasses.replace(
        default_arch("v3-small", 3, input_size=(96, 80), width_multiplier=0.35),
        nms=Nms(0.5, 0.05, 6, 9),
        variances=(0.1, 0.15, 0.2, 0.25),
    ),
    "v2": dataclasses.replace(
        default_arch("v2", 4, input_size=(64, 96), width_multiplier=0.35, score_converter="softmax"),
        nms=Nms(0.6, 1e-8, 100, 100, clip_first=True),
    ),
}


@cache
def made(name: str) -> KerasModel:
    return lively_detector(SMALL[name])


def shown(arch: ArchSpec, count: int = 2) -> list[np.ndarray]:
    """Images, BGR, of the network's size, so that int8 models round nothing on the way in."""
    return [np.ascontiguousarray(image[..., ::-1]) for image in bytes_of(images(arch, count, seed=7))]


@cache
def exported(name: str) -> bytes:
    """The file of a small detector, converted with no options."""
    return tflite_model(made(name))


def written(folder: Path, data: bytes) -> ExportedTfliteDetector:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return ExportedTfliteDetector(path, threads=1)


def assert_same(got: Detections, wanted: Detections, arch: ArchSpec, bound: float) -> None:
    found = compare_detections(
        got, wanted, box_tolerance=bound, score_tolerance=bound, max_total=arch.nms.max_total,
        score_threshold=arch.nms.score_threshold,
    )  # fmt: skip
    assert not found.unpaired
    assert found.paired >= min(5, arch.nms.max_total)


def operations(runtime: ExportedTfliteDetector) -> set[str]:
    return {str(operation["op_name"]) for operation in runtime._interpreter._get_ops_details()}


def is_built_in(names: Iterable[str]) -> bool:
    from tensorflow.lite.python import schema_py_generated as schema

    known = {name for name in vars(schema.BuiltinOperator) if not name.startswith("_")}
    return all(name in known | {TFLITE_OP, "DELEGATE"} for name in names)


@pytest.mark.parametrize("name", SMALL)
def test_detections(name: str, tmp_path: Path) -> None:
    detector = made(name)
    runtime, keras = written(tmp_path, exported(name)), KerasDetector(detector)
    for image in shown(detector.arch):
        assert_same(runtime(image), keras(image), detector.arch, FLOAT)
        values = runtime.run(runtime.prepared(image))
        assert values["detection_boxes"].shape == (1, detector.arch.nms.max_total, 4)
        assert 0 <= values["detection_boxes"].min() <= values["detection_boxes"].max() <= 1
    assert operations(runtime) >= {TFLITE_OP, "CONV_2D"}
    assert is_built_in(operations(runtime))
    assert not is_built_in(["FlexConv2D"])
    names = [output["name"] for output in runtime._interpreter.get_output_details()]
    assert names == ["detection_boxes", "detection_classes", "detection_scores", "num_detections"]
    assert (runtime.arch, runtime.labels) == (detector.arch, detector.labels)
    data = (tmp_path / "model.tflite").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()
    assert lines == list(detector.labels.display_names[1:])


def test_raw_outputs(tmp_path: Path) -> None:
    detector = made("v2")
    data = tflite_model(detector, inputs="network", outputs="raw")
    runtime, keras = written(tmp_path, data), KerasDetector(detector)
    image = shown(detector.arch)[0]
    fed = runtime.prepared(image)
    wanted = detector.rebuilt(outputs="raw").model(fed)
    for name, value in runtime.run(fed).items():
        np.testing.assert_allclose(value, wanted[name], atol=FLOAT)
    assert TFLITE_OP not in operations(runtime)
    assert_same(runtime(image), keras(image), detector.arch, FLOAT)


def test_images_of_any_size(tmp_path: Path) -> None:
    detector = made("v3-small")
    runtime, keras = written(tmp_path, tflite_model(detector, inputs="image")), KerasDetector(detector)
    for height, width in ((50, 70), (120, 33), (96, 80)):
        coarse = np.random.default_rng(height).integers(0, 256, (8, 8, 3), np.uint8)
        image = coarse[np.arange(height) * 8 // height][:, np.arange(width) * 8 // width]
        assert_same(runtime(image), keras(image), detector.arch, FLOAT)


def test_float16_and_int8_are_smaller_and_near(tmp_path: Path) -> None:
    detector = made("v3-small")
    arch, keras = detector.arch, KerasDetector(detector)
    exact = 4 * detector.model.count_params()
    calibration = [image[None].astype(np.float32) for image in bytes_of(images(arch, 12, seed=3))]
    for dtype, share, bound in (("float16", 0.7, 0.03), ("int8", 0.65, 0.15)):
        runtime = written(tmp_path, tflite_model(detector, dtype=dtype, calibration=calibration))
        assert (tmp_path / "model.tflite").stat().st_size < share * exact
        assert is_built_in(operations(runtime))
        for image in shown(arch):
            values = runtime.run(runtime.prepared(image))
            best, wanted = values["detection_scores"][0], keras(image).scores
            count = min(len(wanted), 5)
            np.testing.assert_allclose(best[:count], wanted[:count], atol=bound)
        assert runtime._input["dtype"] == (np.uint8 if dtype == "int8" else np.float32)
    kinds = {str(tensor["dtype"]) for tensor in runtime._interpreter.get_tensor_details()}
    assert "<class 'numpy.int8'>" in kinds


def test_files_repeat_and_bad_ones_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="must be `pixels` or `network`, got `image`"):
        tflite_model(made("v2"), inputs="image", dtype="int8")
    data = exported("v2")
    assert data == tflite_model(made("v2"))
    bare, cut = tmp_path / "bare.tflite", tmp_path / "cut.tflite"
    bare.write_bytes(data[: data.index(b"PK\x03\x04")])
    cut.write_bytes(data[2000:])
    for path, message in (
        (tmp_path / "none.tflite", "does not exist"),
        (bare, "was not written by `ssdlite-caffe keras export tflite`"),
        (cut, "cannot run|does not say"),
    ):
        with pytest.raises(ModelError, match=message) as error:
            ExportedTfliteDetector(path)
        assert "\n" not in str(error.value)


def described(data: bytes, text: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The model with another description behind it."""
    stream = io.BytesIO(data[: data.index(b"PK\x03\x04")])
    with zipfile.ZipFile(stream, "a", compression) as archive:
        archive.writestr(DESCRIPTION, text)
    return stream.getvalue()


def test_files_that_say_what_they_are_not(tmp_path: Path) -> None:
    data = exported("v2")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        known = json.loads(archive.read(DESCRIPTION))
    path = tmp_path / "a.tflite"
    for change, message in (
        ({"outputs": "raw"}, "has 1 inputs and 4 outputs, the description says 1 and 2"),
        ({"outputs": "boxes"}, "has 1 inputs and 4 outputs, the description says 1 and 0"),
        ({"arch": {**known["arch"], "num_classes": 3}}, "classes but the model has 3"),
        ({"labels": {"a": 1}}, "was not written by `ssdlite-caffe keras export tflite`"),
    ):
        path.write_bytes(described(data, json.dumps({**known, **change}).encode()))
        with pytest.raises(SsdliteError, match=message):
            ExportedTfliteDetector(path)
    fewer = {**known, "arch": {**known["arch"], "num_classes": 2}, "labels": known["labels"][:2]}
    path.write_bytes(described(data, json.dumps(fewer).encode()))
    with pytest.raises(ModelError, match="gives class ids without a name"):
        ExportedTfliteDetector(path)(shown(made("v2").arch, 1)[0])
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        whole = described(data, json.dumps(known).encode(), compression)
        path.write_bytes(whole)
        assert ExportedTfliteDetector(path).arch == made("v2").arch
        start = whole.index(b"PK\x03\x04") + 30 + len(DESCRIPTION)
        for place in range(start, start + 40, 5):
            path.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
            with pytest.raises(ModelError, match="was not written by `ssdlite-caffe keras export tflite`"):
                ExportedTfliteDetector(path)


@pytest.mark.story
@pytest.mark.parametrize("name", real_models(MODELS, large=pytest.mark.rare))
def test_real_models(
    name: str, shared_models: Path, bccd_images: list[Any], scene_images: list[Any], tmp_path: Path
) -> None:
    detector = import_detector(read_model(shared_models / name / "frozen_inference_graph.pb"))
    runtime, keras = written(tmp_path, tflite_model(detector)), KerasDetector(detector)
    for _, image in (scene_images if name.startswith("shapes") else bccd_images)[:3]:
        assert_same(runtime(image[..., ::-1]), keras(image[..., ::-1]), detector.arch, FLOAT)


@pytest.mark.story
def test_average_precision_on_bccd(shared_models: Path, tmp_path: Path) -> None:
    """TensorFlow's, Keras' and TensorFlow Lite's are one; measured difference 0."""
    from ssdlite_caffe.coco.label_map import LabelMap
    from ssdlite_caffe.keras.store import save

    data = shared_models.parent / "data" / "bccd"
    if not data.is_dir():
        pytest.skip("no shared/data/bccd beside the repository")
    source = shared_models / "bccd_v2_ssdlite_3" / "frozen_inference_graph.pb"
    labels = LabelMap.of_names(["RBC", "WBC", "Platelets"])
    detector = dataclasses.replace(import_detector(read_model(source)), labels=labels).rebuilt()
    save(detector, tmp_path / "a.keras")
    (tmp_path / "a.tflite").write_bytes(tflite_model(detector))
    model = ModelForms(labels, tensorflow=source, keras=tmp_path / "a.keras", tflite=tmp_path / "a.tflite")
    result = evaluate(model, open_images(data, labels), ["tensorflow", "keras", "tflite"])
    reference = result.scores[0]
    assert reference.ap50 == pytest.approx(0.833, abs=0.001)
    for score in result.scores[1:]:
        assert score.ap == pytest.approx(reference.ap, abs=0.001)
        assert score.ap50 == pytest.approx(reference.ap50, abs=0.001)
