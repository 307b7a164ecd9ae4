"""With PyTorch: files that it writes itself, and its own net beside the converted one."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump.read import read_model
from ssdlite_caffe.dump.torch.state_dict import read_state_dict
from ssdlite_caffe.dump.torch.torchvision import default_boxes, layers
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.load.identify import identify
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.torch_detector import RAW, TorchDetector
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.verify import verify
from tests.torch_files import random_weights, write_state_dict

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytestmark = [pytest.mark.torch, pytest.mark.xdist_group("torch")]

SIZE = 320


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    """Tensors of several types and layouts."""
    made = torch.arange(24, dtype=torch.float32)
    return {
        "plain": made.reshape(2, 3, 4),
        "turned": made.reshape(4, 6).t(),
        "part": made[5:9],
        "channels_last": made.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "half": made.half(),
        "bfloat16": made.bfloat16(),
        "double": made.double(),
        "parameter": torch.nn.Parameter(made),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
        "steps": torch.tensor(7),
    }


@pytest.mark.parametrize(
    "write",
    [
        lambda state, path: torch.save(state, path),
        lambda state, path: torch.save(OrderedDict(state), path),
        lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
        lambda state, path: torch.save(state, path, pickle_protocol=4),
        lambda state, path: torch.save({"model": state, "args": argparse.Namespace(lr=0.1), "epoch": 3}, path),
        lambda state, path: torch.save({"state_dict": state, "numbers": np.float64(3), "array": np.ones(3)}, path),
    ],
)
def test_what_torch_saves_is_what_is_read(
    write: Callable[[Any, Path], None], tensors: dict[str, Any], tmp_path: Path
) -> None:
    write(tensors, tmp_path / "a.pth")
    found = read_state_dict(tmp_path / "a.pth").tensors
    assert found.keys() == tensors.keys()
    for name, one in tensors.items():
        values = found[name].as_float32() if found[name].is_float else found[name].values()
        assert np.array_equal(values, one.detach().float().numpy()), name


def test_checkpoint_with_an_optimizer(tmp_path: Path) -> None:
    module = torch.nn.Conv2d(3, 4, 3)
    for optimizer in (torch.optim.AdamW(module.parameters()), torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)):
        module(torch.ones(1, 3, 5, 5)).sum().backward()
        optimizer.step()
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
        saved = {
            "model": module.state_dict(), "optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(),
        }  # fmt: skip
        torch.save(saved, tmp_path / "a.pth")
        assert read_state_dict(tmp_path / "a.pth").tensors.keys() == {"weight", "bias"}


def test_whole_modules_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=r"holds a whole pickled module, torch\.nn\.modules\.conv\.Conv2d"):
        read_state_dict(tmp_path / "a.pth")


@pytest.fixture(scope="module", params=[False, True], ids=["halved", "full"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TorchDetector:
    path = tmp_path_factory.mktemp("torch") / "weights.pth"
    write_state_dict(path, random_weights(4, full_tail=request.param))
    return TorchDetector(path, read_model(path))


def test_the_net_takes_the_weights(running: TorchDetector) -> None:
    """torchvision's own net has these tensors and no others, of these shapes; counts of steps aside."""
    names = {name for name in running._module.state_dict() if not name.endswith("num_batches_tracked")}
    assert names == {name for layer in layers() for name in layer.parts.values()}


def test_default_boxes_are_torchvisions(running: TorchDetector) -> None:
    _, made = running._forward(np.zeros((1, SIZE, SIZE, 3), np.float32))
    corners = made[0].detach().numpy()[:, [1, 0, 3, 2]] / SIZE
    assert np.abs(corners - default_boxes()).max() < 1.3e-7  # measured 1.2e-7


def test_raw_outputs_are_those_of_the_layers(running: TorchDetector) -> None:
    fed = np.random.default_rng(0).uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)
    names = [f"head.regression_head.module_list.{i}.1" for i in range(6)]
    found = running.run(fed, [*names, *RAW.all])
    rows = np.concatenate([found[name].reshape(-1, 4) for name in names])
    assert np.array_equal(rows, found[RAW.encodings])


@pytest.mark.opencv
@pytest.mark.slow
@pytest.mark.parametrize("priors", ["layer", "constant"])
def test_verify(priors: Any, shared_models: Path, bccd_images: list[tuple[str, np.ndarray]], tmp_path: Path) -> None:
    """Equal in float64 too, for a model with a box whose size is cut."""
    path = shared_models / "torchvision_ssdlite320_full_12" / "weights.pth"
    convert(path, tmp_path / "out", ConvertOptions(dialect=Dialect(priors=priors)))
    report = verify(path, ModelFolder.open(tmp_path / "out"), bccd_images[:1])
    assert report.first_failure is None
    assert report.reference == "PyTorch"
    assert not report.unproved
    whole = {row.stage: row for row in report.rows if row.stage.endswith("in float64")}
    assert whole["boxes in float64"].absolute < 1e-7
    assert whole["scores in float64"].absolute < 1e-12


@pytest.mark.slow
def test_detections_are_the_models_own(shared_models: Path) -> None:
    folder = shared_models / "torchvision_ssdlite320_3"
    expected = np.load(folder / "expected.npz")
    model, _ = identify(read_model(folder))
    with TorchDetector(folder / "weights.pth", model) as detector:
        found = detector.detect_image(expected["images"][0])
    count = int(expected["count"][0])
    assert len(found) == count
    np.testing.assert_allclose(found.scores, expected["scores"][0][:count], atol=1e-5)
    assert np.array_equal(found.classes, expected["labels"][0][:count])
