"""The folders of `convert --target`: their READMEs' commands run in the real programs and detect what TensorFlow does.

The raw outputs of each program go through the folder's decode.py and decode.c, too. `make test-targets` runs these.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import numpy as np
import pytest

from ssdlite_caffe.runtimes.decode import overlap
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.tools.compare import compare_detections
from tests.targets import folders
from tests.targets.cases import PAIRED, RANDOM_PAIRED, TRAINED, marks
from tests.targets.environments import UnavailableError, environment
from tests.targets.measure import TOLERANCES
from tests.targets.workshop import Workshop, find_shared

pytestmark = [pytest.mark.target, pytest.mark.tensorflow, pytest.mark.opencv]

SHOWN = 0.3
"""Least score of a detection that a script prints."""
PRINTED_SCORE, PRINTED_BOX = 6e-5, 0.06
"""Half of the last digit that a script prints, and a little more; pixels for boxes."""
LEAST_IOU = {"fp32": 0.9999, "fp16": 0.999}
"""Of TensorFlow's detections with scores of at least 0.3 and the program's; of trained nets. Measured: 1.0 and 0.99933.

int8 has no bound: of 8 calibration images, boxes of RKNN have 0.95, of tpu-mlir 0.55 at worst. See int8.py."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("folders"), find_shared())


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=marks(c.program, c.model, f"folder {c.model}")) for c in folders.cases()]
)
def test_readme_s_commands(case: folders.FolderCase, workshop: Workshop) -> None:
    source = workshop.source(case.model)
    if source is None or not source.exists():
        pytest.skip(f"no shared/models/{case.model} beside the repository")
    try:
        python = environment(case.program)
    except UnavailableError as error:
        pytest.skip(str(error))
    folder = folders.converted(case.model, workshop) / case.target
    used, left = folders.use(case.target, folder, python)
    assert used
    assert all("int8" in command for command in left)
    trained = case.model in TRAINED
    wanted = {name: folders.tensorflows(folder, name) for name in used[0].printed}
    assert sum(len(one.above(SHOWN)) for one in wanted.values()) or not trained
    for one in used:
        if not trained and one.precision != "fp32":  # what random weights make of coarse numbers says nothing
            continue
        box, score, least = TOLERANCES[one.precision]
        size = min(np.load(folder / "expected" / next(iter(wanted)) / "input.npy").shape[2:])
        _same(one, one.printed, wanted, box + PRINTED_BOX / size, score + PRINTED_SCORE, SHOWN, trained)
        in_python = {name: folders.decoded_in_python(folder, raw) for name, raw in one.dumped.items()}
        _same(one, in_python, wanted, box, score, least, trained)
        if shutil.which("cc"):
            in_c = {name: folders.decoded_in_c(folder, raw) for name, raw in one.dumped.items()}
            _same(one, in_c, wanted, box, score, least, trained)
            _alike(in_python, in_c)
        if trained:
            found = min(_least_iou(in_python[name].above(SHOWN), wanted[name].above(SHOWN)) for name in wanted)
            print(f"{case.name}, {one.precision}: least IoU {found:.5f}")
            assert found >= LEAST_IOU.get(one.precision, 0), (one.command, found)


def _same(
    used: folders.Used, found: Mapping[str, Detections], wanted: Mapping[str, Detections],
    box: float, score: float, least: float, trained: bool,
) -> None:  # fmt: skip
    """The detections with a score of at least `least` are TensorFlow's; of a random net, nearly all."""
    paired = expected = extra = 0
    for name, theirs in wanted.items():
        pairs = compare_detections(
            found[name].above(least), theirs.above(least), box_tolerance=box, score_tolerance=score,
            max_total=len(theirs), score_threshold=least,
        )  # fmt: skip
        lost = [text for text in pairs.unpaired if text.startswith("only")]
        assert not (trained and pairs.unpaired), (used.command, name, pairs.unpaired[:3])
        paired, expected = paired + pairs.paired, expected + pairs.paired + len(lost)
        extra += len(pairs.unpaired) - len(lost)
    share = PAIRED[used.precision] if trained else RANDOM_PAIRED
    assert paired >= share * expected, used.command
    assert extra <= (1 - share) * expected, used.command


def _alike(in_python: Mapping[str, Detections], in_c: Mapping[str, Detections]) -> None:
    """decode.c prints six digits."""
    for name, one in in_python.items():
        assert in_c[name].classes.tolist() == one.classes.tolist()
        np.testing.assert_allclose(in_c[name].scores, one.scores, rtol=0, atol=2e-6)
        np.testing.assert_allclose(in_c[name].boxes, one.boxes, rtol=0, atol=2e-6)


def _least_iou(found: Detections, wanted: Detections) -> float:
    """The least of TensorFlow's detections' best IoU with one of the program's of the same class; 1 for none."""
    best = [
        max((float(overlap(box, other)) for other in found.boxes[found.classes == number]), default=0.0)
        for number, box in zip(wanted.classes, wanted.boxes, strict=True)
    ]
    return min(best, default=1.0)


def test_every_precision_is_known() -> None:
    assert folders.precision_of("rknn", "python convert.py --float --detect a.png") == "fp16"
    assert folders.precision_of("rknn", "python convert.py --detect a.png") == "int8"
    assert folders.precision_of("sophgo", "MODEL=headless_f16.bmodel python detect.py a.png") == "fp16"
    assert folders.precision_of("mnn", "python detect.py a.png") == "fp32"
