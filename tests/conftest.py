"""Fixtures and flags that tests of several packages share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from tests.commands import Command, Result
from tests.scenes import draw_scene

ROOT = Path(__file__).resolve().parent.parent

# A busy machine may take any time for an example, and that is no failure. New examples are looked for wherever people
# run the tests; continuous integration takes the same ones each time, so that what fails there is due to the change.
hypothesis.settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from what is generated now")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process."""

    from ssdlite_caffe import cli

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["ssdlite-caffe", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return Result(end.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """A folder `shared/models` of real models beside the repository or above it."""
    for parent in ROOT.parents:
        if (parent / "shared" / "models").is_dir():
            return parent / "shared" / "models"
    pytest.skip("no shared/models beside the repository")


@pytest.fixture(scope="session")
def example_model() -> Path:
    """The small trained model that comes with the repository: circles, squares and triangles, 320x320."""
    return ROOT / "examples" / "frozen_inference_graph.pb"


@pytest.fixture(scope="session")
def bccd_images(shared_models: Path) -> list[tuple[str, np.ndarray]]:
    """Eight images of blood cells, uint8 RGB, from the folder `shared/data/bccd`."""
    from ssdlite_caffe.runtimes.images import read_image

    paths = sorted((shared_models.parent / "data" / "bccd" / "JPEGImages").glob("*.jpg"))[:8]
    if not paths:
        pytest.skip("no shared/data/bccd beside the repository")
    return [(path.name, np.ascontiguousarray(read_image(path)[:, :, ::-1])) for path in paths]


@pytest.fixture(scope="session")
def scene_images() -> list[tuple[str, np.ndarray]]:
    """Eight drawn scenes, uint8 RGB."""
    return [(f"scene {seed}", draw_scene(seed)[0]) for seed in range(8)]


@pytest.fixture(scope="session")
def example_folder(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `convert` makes of the example model."""
    from ssdlite_caffe.tools.convert import ConvertOptions, convert

    folder = tmp_path_factory.mktemp("example") / "out"
    convert(example_model, folder, ConvertOptions())
    return folder


@pytest.fixture(scope="session")
def targets_folder(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `convert` makes of the example model for all targets that take it, with two calibration images."""
    import cv2

    from ssdlite_caffe import convert
    from ssdlite_caffe.gen_model.build import build, default_arch
    from ssdlite_caffe.targets.table import TARGETS
    from tests.scenes import draw_scene

    images = tmp_path_factory.mktemp("images")
    for seed in range(2):
        cv2.imwrite(str(images / f"{seed}.png"), draw_scene(seed)[0])
    folder = tmp_path_factory.mktemp("targets") / "out"
    net = build(default_arch("v3-small", 4))
    names = [name for name, target in TARGETS.items() if not target.refuses(net)]
    labels = example_model.parent / "labelmap.pbtxt"
    convert(example_model, folder, label_map=labels, targets=names, calibrate=[images], calibration_count=2)
    return folder


@pytest.fixture(scope="session")
def caffe_prefix() -> Path:
    """The built Caffe: the folder named by SSDLITE_CAFFE_PREFIX, or the one that `ssdlite-caffe caffe build` writes."""
    from ssdlite_caffe.caffe.prefix import find_prefix

    prefix = find_prefix()
    if prefix is None:
        pytest.skip("no Caffe is built: run `make caffe`")
    return prefix
