"""The folder of weights: round trip, and every way in which it can be damaged."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.dump.model import AnchorGenerator, ConvUnit, DumpedModel, PyramidAnchors, Settings, TfliteNms
from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.dump.store import manifest_of, read_folder, tensor_file, tensor_name, write_folder
from ssdlite_caffe.errors import ModelError, OutputError, TensorError
from ssdlite_caffe.resizer import Resizer

NAME = "FeatureExtractor/MobilenetV2/Conv/weights"


def model(**changes: Any) -> DumpedModel:
    unit = ConvUnit("FeatureExtractor/MobilenetV2/Conv", "conv", {"weights": NAME, "biases": "b"}, 1e-3, (1, 2), (1, 1),
                    (0, 1, 2, 3), "hard_sigmoid", 0.16667, "out")  # fmt: skip
    settings = Settings(
        input_size=(3, 5),
        resizer=Resizer("keep_aspect_ratio", "area", min_dimension=3, max_dimension=5, pad_value=(0.5, 1.0, 2.0)),
        pixel_scale=2 / 255,
        num_classes=4,
        default_boxes=np.arange(8, dtype=np.float32).reshape(2, 4),
        box_coder_scales=(10.0, 9.0, 5.0, 4.0),
        score_converter="softmax",
        anchors=AnchorGenerator(aspect_ratios=(1.0, 2.0), height_stride=(16, 32)),
        pyramid_anchors=PyramidAnchors(max_level=6, aspect_ratios=(1.0, 0.5)),
        tflite_nms=TfliteNms(0.6, 1e-8, 10, 1, 100, False),
        explicit_padding=True,
        unsupported=("soft NMS",),
    )
    base = DumpedModel(
        "somewhere.pb", "frozen graph", "ab" * 32,
        {NAME: np.arange(36, dtype=np.float32).reshape(3, 2, 3, 2), "b": np.array([0.5, -0.0], np.float32)},
        (unit, ConvUnit("other", "depthwise", {"weights": "b"}, padding="SAME")),
        settings, {"global_step": "not part"}, {"family": "v2", "boxes": [{"sizes": [[0.1, 0.2]]}]},
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    written = model()
    write_folder(written, tmp_path / "w")
    assert (tmp_path / "w" / "tensors" / f"{NAME}.npy").is_file()
    for read in (read_folder(tmp_path / "w"), read_model(tmp_path / "w"), read_model(tmp_path / "w/manifest.json")):
        assert read.form == "weights folder"
        assert (read.units, read.skipped, read.arch, read.sha256) == (
            written.units, written.skipped, written.arch, written.sha256,
        )  # fmt: skip
        assert list(read.tensors) == list(written.tensors)
        for name, value in written.tensors.items():
            assert read.tensors[name].tobytes() == value.tobytes()
            assert read.tensors[name].shape == value.shape
        plain = {f.name for f in dataclasses.fields(Settings)} - {"default_boxes"}
        assert all(getattr(read.settings, name) == getattr(written.settings, name) for name in plain)
        assert read.settings.default_boxes is not None
        np.testing.assert_array_equal(read.settings.default_boxes, written.settings.default_boxes)


def test_same_model_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_folder(model(), tmp_path / name)
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.*")) for n in ("a", "b")]
    assert files[0] == files[1]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files[0])


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_file_names_are_reversible_and_stay_inside(name: str) -> None:
    file = tensor_file(name)
    parts = file.split("/")
    assert not any(part in ("", ".", "..") or part.startswith(".") for part in parts)
    assert "\\" not in file
    assert ":" not in file
    back = tensor_name(file)
    assert back == "/".join(part or "\0" for part in name.split("/"))


def test_names_that_climb_stay_inside(tmp_path: Path) -> None:
    climbing = model(
        tensors={
            "../../evil": np.ones(1, np.float32),
            "b": np.ones(2, np.float32),
            NAME: np.ones((1, 1, 1, 2), np.float32),
        }
    )
    write_folder(climbing, tmp_path / "deep" / "w")
    assert not list(tmp_path.glob("*evil*"))
    assert "../../evil" in read_folder(tmp_path / "deep" / "w").tensors


def test_existing_folder_needs_force_and_a_manifest(tmp_path: Path) -> None:
    write_folder(model(), tmp_path / "w")
    with pytest.raises(OutputError, match="exists already"):
        write_folder(model(), tmp_path / "w")
    write_folder(model(sha256="cd" * 32), tmp_path / "w", force=True)
    assert read_folder(tmp_path / "w").sha256 == "cd" * 32


def damaged(tmp_path: Path, name: str = NAME) -> Path:
    write_folder(model(), tmp_path / "w")
    return tmp_path / "w" / "tensors" / f"{name}.npy"


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = damaged(tmp_path)
    np.save(path, np.ones((2, 2), np.float32))
    path.with_name("stray.npy").write_bytes(b"")
    (tmp_path / "w/tensors/b.npy").unlink()
    np.save(tmp_path / "w/default_boxes.npy", np.ones((2, 4)))
    with pytest.raises(TensorError) as raised:
        read_folder(tmp_path / "w")
    text = str(raised.value)
    assert f"{NAME}: has the shape (2, 2), the manifest says (3, 2, 3, 2)" in text
    assert "FeatureExtractor/MobilenetV2/Conv/stray is not in the manifest" in text
    assert "b is missing" in text
    assert "default_boxes: has dtype float64, must be float32" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.ones((3, 2, 3, 2), np.float64), "type float64"),
        (np.ones((3, 2, 3, 2), ">f4"), "type >f4"),
        (np.full((3, 2, 3, 2), np.nan, np.float32), "36 values that are NaN or Inf"),
        (np.full((3, 2, 3, 2), np.inf, np.float32), "36 values that are NaN or Inf"),
        (np.full((3, 2, 3, 2), object()), "pickled objects"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, value: np.ndarray[Any, Any], text: str) -> None:
    path = damaged(tmp_path)
    if value.dtype == object:
        value = np.full((3, 2, 3, 2), "x", object)
    np.save(path, value, allow_pickle=True)
    with pytest.raises(TensorError, match=f"{NAME}.*{text}"):
        read_folder(tmp_path / "w")


def test_fortran_order_is_read_right(tmp_path: Path) -> None:
    path = damaged(tmp_path)
    np.save(path, np.asfortranarray(model().tensors[NAME]))
    np.testing.assert_array_equal(read_folder(tmp_path / "w").tensors[NAME], model().tensors[NAME])


@given(data=st.binary(max_size=300), cut=st.integers(0, 200))
def test_random_bytes_in_a_tensor(tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int) -> None:
    path = damaged(tmp_path_factory.mktemp("w"))
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + data)
    if path.read_bytes() == whole:
        return
    with contextlib.suppress(TensorError):
        read_folder(path.parents[4])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: "not json", "is not JSON"),
        (lambda m: "[" * 100_000, "is not JSON"),
        (lambda m: "[]", "not the manifest"),
        (lambda m: {**m, "format": "x"}, "not the manifest"),
        (lambda m: {**m, "version": 2}, "version 2"),
        (lambda m: {**m, "units": 3}, "damaged"),
        (lambda m: {**m, "units": [{**m["units"][0], "stride": ["a", 1]}]}, "stride has the wrong type or value"),
        (lambda m: {**m, "units": [{**m["units"][0], "tensors": {"weights": "gone"}}]}, "gone"),
        (lambda m: {**m, "units": [{"scope": "a"}]}, "damaged"),
        (lambda m: {**m, "settings": {**m["settings"], "input_size": [3]}}, "input_size has the wrong type or value"),
        (
            lambda m: {**m, "settings": {**m["settings"], "score_converter": "tanh"}},
            "score_converter has the wrong type or value",
        ),
        (
            lambda m: {**m, "settings": {**m["settings"], "num_classes": True}},
            "num_classes has the wrong type or value",
        ),
        (lambda m: {**m, "settings": {**m["settings"], "new": 1}}, "unknown fields new"),
        (lambda m: {**m, "settings": {**m["settings"], "resizer": {"kind": "round"}}}, "resizer has the wrong type"),
        (lambda m: {**m, "tensors": {"a": {"shape": ["x"]}}}, "damaged"),
        (lambda m: {**m, "arch": 3}, "arch is not an object"),
        (lambda m: {**m, "settings": {**m["settings"], "pixel_scale": 10**400}}, "too large to convert to float"),
        (lambda m: {k: v for k, v in m.items() if k != "sha256"}, "sha256"),
    ],
)
def test_damaged_manifests(tmp_path: Path, change: Any, text: str) -> None:
    write_folder(model(), tmp_path / "w")
    changed = change(json.loads(json.dumps(manifest_of(model()))))
    (tmp_path / "w/manifest.json").write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(ModelError, match=text):
        read_folder(tmp_path / "w")
