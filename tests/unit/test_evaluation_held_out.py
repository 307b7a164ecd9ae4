"""Images to test on during a training: what is skipped is said, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.runtimes.detections import Detections
from tests.datasets import NAMES, some_voc

held_out = pytest.importorskip("ssdlite_caffe.evaluation.held_out")
pytest.importorskip("pycocotools")


def test_what_is_skipped_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = some_voc(tmp_path)
    path = root / "Annotations" / "p0.xml"
    path.write_text(path.read_text().replace("<name>circle", "<name>cirkle").replace("<name>square", "<name>cirkle"))
    nothing = Detections(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4), np.float32))
    monkeypatch.setattr(held_out, "KerasDetector", lambda model: lambda pixels: nothing)
    told: list[str] = []
    model: Any = None
    measure = held_out.open_held_out(
        root, LabelMap.of_names(NAMES), split="trainval", images=None, limit=100, problem=told.append
    )
    assert told == []
    for _ in range(2):
        assert measure(model)["ap"] == 0
        assert len(told) == 1
    assert "'cirkle' is not in the label map" in told[0]
    with (root / "ImageSets" / "Main" / "trainval.txt").open("a") as names:
        names.write("".join(f"gone{number}\n" for number in range(12)))
    told.clear()
    measure = held_out.open_held_out(
        root, LabelMap.of_names(NAMES), split="trainval", images=None, limit=100, problem=told.append
    )
    measure(model)
    assert len(told) == 11
    assert told[-1] == "... and 3 more: 12 images skipped, 1 object skipped in all"
