"""The Python API: what `from ssdlite_caffe import ...` gives does what the commands do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ssdlite_caffe
from ssdlite_caffe import Detector, convert, evaluate, remap
from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
from ssdlite_caffe.errors import ModelError, OutputError
from tests.commands import Command
from tests.scenes import draw_scene


def test_names() -> None:
    assert sorted(ssdlite_caffe.__all__) == ["Detector", "check_proof", "convert", "evaluate", "remap", "verify"]
    assert all(callable(getattr(ssdlite_caffe, name)) for name in ssdlite_caffe.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssdlite_caffe.nothing


def test_importing_the_package_loads_nothing() -> None:
    program = "import sys, ssdlite_caffe; print(any(m in sys.modules for m in ('numpy', 'typer', 'cv2')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_convert_is_the_command(command: Command, example_model: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    report = convert(str(example_model), str(tmp_path / "api"), score_threshold=0.25, progress=steps.append)
    assert steps
    assert command("convert", example_model, "-o", tmp_path / "cli", "--score-threshold", 0.25).status == 0
    for file in sorted(path.name for path in (tmp_path / "cli").iterdir()):
        assert (tmp_path / "api" / file).read_bytes() == (tmp_path / "cli" / file).read_bytes(), file
    assert json.loads((tmp_path / "api" / "report.json").read_text()) == json.loads(json.dumps(report))
    with pytest.raises(OutputError, match="exists already"):
        convert(example_model, tmp_path / "api")


@pytest.mark.opencv
def test_a_detector_takes_a_path(example_folder: Path) -> None:
    detector = Detector(str(example_folder))
    found = detector(np.ascontiguousarray(draw_scene(0)[0][..., ::-1])).above(0.5)
    assert len(found)
    names = {detector.labels.display_names[number] for number in found.classes}
    assert names <= set(detector.labels.display_names[1:])


@pytest.mark.opencv
def test_evaluate_and_remap(example_model: Path, tmp_path: Path) -> None:
    make_shapes(tmp_path / "scenes", ShapesOptions(4, 3, split="test"))
    labels = example_model.parent / "labelmap.pbtxt"
    convert(example_model, tmp_path / "model", label_map=labels)
    result = evaluate(tmp_path / "model", tmp_path / "scenes")
    assert [score.runtime for score in result.scores] == ["opencv"]
    assert result.scores[0].ap50 > 0.8
    (tmp_path / "map.yaml").write_text("ring: circle\n")
    assert remap(tmp_path / "model", tmp_path / "map.yaml", tmp_path / "one")["arch"]["num_classes"] == 2
    with pytest.raises(ModelError, match="no runtime 'gpu'; choose from"):
        evaluate(tmp_path / "model", tmp_path / "scenes", runtimes=["gpu"])
