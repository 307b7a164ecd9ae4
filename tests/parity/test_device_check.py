"""Outputs of devices against TensorFlow: exact ones, rounded ones, quantised ones, and one spoiled layer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.errors import DeviceError, ImageError, ModelError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.images import read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import open_net
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.runtimes.resize import preprocess
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.device_check import DumpReport, compare_dump, match_detections
from ssdlite_caffe.tools.output_format import parse_format
from tests.commands import Command

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.slow, pytest.mark.xdist_group("verify")]

HEADS = ["mbox_loc", "mbox_conf", "mbox_priorbox"]


@pytest.fixture(scope="module")
def folder(example_folder: Path) -> ModelFolder:
    return ModelFolder.open(example_folder)


@pytest.fixture(scope="module")
def image(example_model: Path) -> Path:
    return example_model.parent / "shapes.png"


@pytest.fixture(scope="module")
def blob(folder: ModelFolder, image: Path) -> np.ndarray:
    arch = folder.arch
    pixels = read_image(image)[:, :, ::-1]
    return preprocess(pixels, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale)


@pytest.fixture(scope="module")
def values(folder: ModelFolder, blob: np.ndarray) -> dict[str, np.ndarray]:
    return open_net("opencv", folder.headless_prototxt, folder.deploy_caffemodel).forward(blob, HEADS)


def test_a_float32_device(
    example_model: Path, folder: ModelFolder, image: Path, values: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", **values)
    report = compare_dump(example_model, folder, tmp_path / "x.npz", images=[image])
    assert [row.name for row in report.outputs] == HEADS
    assert min(row.snr for row in report.outputs) > 110
    assert min(row.correlation for row in report.outputs) > 1 - 1e-9
    assert max(row.largest for row in report.outputs) < 5e-5
    found = report.detections
    assert found is not None
    assert (found.matched, found.more) == (found.reference, 0)
    assert found.reference > 3
    assert (found.least_iou > 0.9999, found.score < 1e-5) == (True, True)
    assert (report.notes, report.layers) == ((), ())


def test_outputs_of_each_feature_map(
    example_model: Path, image: Path, blob: np.ndarray, values: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """They are joined for the detections; files without names are taken in the order of the net's outputs."""
    convert(example_model, tmp_path / "out", ConvertOptions(dialect=Dialect(outputs="per-map")))
    folder = ModelFolder.open(tmp_path / "out")
    names = [one.name for one in infer(read_net(folder.headless_prototxt)).outputs]
    assert (len(names), names[-1]) == (13, "mbox_priorbox")
    found = open_net("opencv", folder.headless_prototxt, folder.deploy_caffemodel).forward(blob, names)
    np.savez(tmp_path / "named.npz", **found)
    np.savez(tmp_path / "ordered.npz", **{f"out{number:02}": found[name] for number, name in enumerate(names)})
    for name in ("named.npz", "ordered.npz"):
        report = compare_dump(example_model, folder, tmp_path / name, images=[image])
        assert [row.name for row in report.outputs] == names
        assert min(row.snr for row in report.outputs) > 100
        assert report.detections is not None
        assert report.detections.matched == report.detections.reference > 3


def test_a_quantised_device(
    example_model: Path, folder: ModelFolder, image: Path, values: dict[str, np.ndarray], tmp_path: Path
) -> None:
    formats = []
    for name in HEADS[:2]:
        scale = float(np.abs(values[name]).max()) / 127
        np.round(values[name] / scale).astype(np.int8).tofile(tmp_path / f"{name}.bin")
        formats.append(parse_format(f"{name}:dtype=int8,scale={scale!r}"))
        # Rounding to whole steps leaves an error that is even within half a step.
        wanted = 10 * math.log10(float((values[name].astype(float) ** 2).mean()) / (scale**2 / 12))
        report = compare_dump(example_model, folder, tmp_path, images=[image], formats=formats)
        row = next(row for row in report.outputs if row.name == name)
        assert abs(row.snr - wanted) < 1
        assert row.largest <= scale * 0.501
    assert report.detections is not None
    assert report.detections.least_iou < 0.999


def _device(net: ReferenceNet, blob: np.ndarray, spoiled: str, tops: list[str]) -> dict[str, np.ndarray]:
    """A device in float64 with noise in one layer."""
    blobs = {net.input: blob.astype(np.float64)}
    random = np.random.default_rng(0)
    for layer in net.layers:
        if layer.type == "DetectionOutput":
            continue
        net.compute(layer, blobs)
        if layer.name == spoiled:
            noise = random.normal(0, 0.02, blobs[layer.top[0]].shape)
            blobs[layer.top[0]] = blobs[layer.top[0]] + noise * np.abs(blobs[layer.top[0]]).max()
    return {top: blobs[top] for top in tops}


def test_the_layer_that_costs_most_is_on_top(
    example_model: Path, folder: ModelFolder, image: Path, blob: np.ndarray, tmp_path: Path
) -> None:
    net = ReferenceNet(folder.deploy_prototxt, folder.deploy_caffemodel, double=True)
    tops = [f"conv_{number}/project" for number in range(2, 9)]
    np.savez(tmp_path / "x.npz", **_device(net, blob, "conv_5/project", [*tops, *HEADS]))
    report = compare_dump(example_model, folder, tmp_path / "x.npz", images=[image])
    first, second, *_ = report.layers
    assert first.name == "conv_5/project"
    assert first.own is not None
    assert second.own is not None
    assert first.own < 50 < 100 < second.own
    later = next(row for row in report.layers if row.name == "conv_8/project")
    assert later.snr < 50, "it was given noise"


def test_order_and_exchanged_outputs(
    example_model: Path, folder: ModelFolder, image: Path, values: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", values["mbox_conf"], values["mbox_loc"])
    report = compare_dump(example_model, folder, tmp_path / "x.npz", images=[image])
    assert "arr_0 is mbox_loc, arr_1 is mbox_conf" in report.notes[0]
    assert abs(report.outputs[0].correlation) < 0.9


def test_several_images(
    example_model: Path, folder: ModelFolder, image: Path, values: dict[str, np.ndarray], tmp_path: Path
) -> None:
    images = []
    for name in "ab":
        images.append(tmp_path / f"{name}.png")
        images[-1].write_bytes(image.read_bytes())
        (tmp_path / "dump" / name).mkdir(parents=True)
        np.save(tmp_path / "dump" / name / "mbox_loc.npy", values["mbox_loc"])
    report = compare_dump(example_model, folder, tmp_path / "dump", images=images)
    assert report.images == ("a", "b")
    assert report.detections is None
    (tmp_path / "dump" / "b" / "mbox_loc.npy").unlink()
    (tmp_path / "dump" / "b").rmdir()
    with pytest.raises(DeviceError, match=r"must have a folder of outputs for each.*; b missing"):
        compare_dump(example_model, folder, tmp_path / "dump", images=images)


def test_refused(
    example_model: Path, folder: ModelFolder, image: Path, values: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", **values)
    with pytest.raises(DeviceError, match="which image was the device given"):
        compare_dump(example_model, folder, tmp_path / "x.npz")
    with pytest.raises(ImageError, match="is not an image"):
        compare_dump(example_model, folder, tmp_path / "x.npz", images=[tmp_path / "x.npz"])
    with pytest.raises(DeviceError, match="does not exist"):
        compare_dump(example_model, folder, tmp_path / "nix", images=[image])


def test_the_command(
    example_model: Path,
    example_folder: Path,
    image: Path,
    values: dict[str, np.ndarray],
    tmp_path: Path,
    command: Command,
) -> None:
    np.savez(tmp_path / "x.npz", **values)
    arguments = ("verify", example_model, example_folder, "--images", image, "--dump", tmp_path / "x.npz")
    done = command(*arguments)
    assert done.status == 0, done.err
    assert "matched, 0 more" in done.out.splitlines()[0]
    assert max(map(len, done.out.splitlines()[1:])) <= 80
    spoiled = values["mbox_loc"].copy()
    spoiled[0, :3] = np.nan
    np.savez(tmp_path / "x.npz", **{**values, "mbox_loc": spoiled})
    done = command(*arguments, "--json")
    assert done.status == 1
    content = json.loads(done.out)
    assert [row["bad"] for row in content["outputs"]] == [3, 0, 0]
    assert content["detections"] is None
    assert command(*arguments, "--html", tmp_path / "x.html").status == 1
    assert "3 values NaN or Inf" in (tmp_path / "x.html").read_text()
    assert command(*arguments, "--tolerance", "0.1").status == 2
    assert command("verify", example_model, example_folder, "--output", "a:dtype=int8").status == 2


def test_matching() -> None:
    def make(*rows: tuple[int, float, float]) -> Detections:
        return Detections(
            np.array([row[0] for row in rows]),
            np.array([row[1] for row in rows], np.float32),
            np.array([(row[2], 0.0, row[2] + 0.5, 0.5) for row in rows], np.float32).reshape(-1, 4),
        )

    reference = make((1, 0.9, 0.0), (1, 0.8, 0.3), (2, 0.5, 0.0), (2, 0.2, 0.4))
    got = make((1, 0.85, 0.3), (1, 0.7, 0.1), (2, 0.31, 0.4), (3, 0.6, 0.0), (3, 0.1, 0.0))
    found = match_detections(got, reference)
    assert (found.reference, found.matched, found.more) == (3, 2, 1)
    assert found.least_iou == pytest.approx(0.4 / 0.6, abs=1e-6)
    assert found.score == pytest.approx(0.2, abs=1e-6)
    nothing = match_detections(make(), make())
    assert (nothing.reference, nothing.matched, nothing.more, nothing.mean_iou) == (0, 0, 0, 1)


def test_json_of_equal_outputs() -> None:
    report = DumpReport("x", ("a",), (), (), None, ())
    assert json.loads(json.dumps(report.to_dict())) == {
        "dump": "x", "images": ["a"], "outputs": [], "layers": [], "detections": None, "notes": [],
        "accuracy": None,
    }  # fmt: skip


@pytest.fixture(scope="module")
def with_expected(example_model: Path, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expected") / "out"
    convert(example_model, out, ConvertOptions(expected=(image,)))
    return out


def test_expected_outputs_are_what_a_runtime_gives(example_model: Path, with_expected: Path) -> None:
    folder = ModelFolder.open(with_expected)
    place = with_expected / "expected" / "shapes"
    height, width = folder.arch.input_size
    given = np.load(place / "input.npy")
    pixels = np.frombuffer((place / "image.bin").read_bytes(), np.uint8).reshape(height, width, 3)
    np.testing.assert_array_equal(pixels, read_image(place / "image.png"))
    wanted = (pixels.transpose(2, 0, 1)[None].astype(np.float32) - np.float32(127.5)) * np.float32(1 / 127.5)
    np.testing.assert_array_equal(given, wanted)
    assert (place / "input.bin").read_bytes() == given.tobytes()
    for prototxt, names in ((folder.headless_prototxt, HEADS), (folder.deploy_prototxt, ["mbox_conf_flatten"])):
        found = open_net("opencv", prototxt, folder.deploy_caffemodel).forward(given, names)
        for name in names:
            stored = np.load(place / f"{name}.npy")
            assert stored.dtype == np.float32
            np.testing.assert_allclose(found[name].reshape(stored.shape), stored, atol=5e-5)
    said = json.loads((place / "detections.json").read_text())
    detected = Detector(folder)(pixels)
    for row, number, score, box in zip(said[:4], detected.classes, detected.scores, detected.boxes, strict=False):
        assert row["class"] == number
        np.testing.assert_allclose([row["score"], *row["box"]], [score, *box], atol=2e-5)
    readme = (with_expected / "expected" / "README.md").read_text()
    assert f"float32 1 x {np.load(place / 'mbox_conf.npy').size}" in readme
    assert "(value - 127.5) * 0.00784313725" in readme
    report = compare_dump(example_model, folder, place)
    assert min(row.snr for row in report.outputs) > 140


def test_images_of_expected_are_read_first(
    example_model: Path,
    image: Path,
    tmp_path: Path,
    command: Command,
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "shapes.png").write_bytes(image.read_bytes())
    (tmp_path / "bad.png").write_bytes(b"x")
    for wrong, said in (
        ([tmp_path / "nix.png"], "does not exist"),
        ([tmp_path / "bad.png"], "is not an image"),
        ([image, tmp_path / "other"], "two images are named shapes"),
    ):
        given = [word for one in wrong for word in ("--expected", one)]
        done = command("convert", tmp_path / "no model", "-o", tmp_path / "out", *given)
        assert (done.status, done.err.count("\n")) == (1, 1)
        assert said in done.err
    assert not (tmp_path / "out").exists()


def test_another_model(folder: ModelFolder, shared_models: Path, image: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "mbox_loc.npy", np.zeros(4))
    with pytest.raises(ModelError, match="was converted from another model"):
        compare_dump(shared_models / "bccd_v2_ssdlite_3", folder, tmp_path, images=[image])
