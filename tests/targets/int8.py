"""What int8 costs on annotated images, with joined outputs and with those of each feature map.

`python -m tests.targets.int8 [--images N] [--only TEXT]` converts a V2 of shared/models that detects blood cells, runs
the simulators of RKNN and tpu-mlir on test images, and writes int8.json and the table in docs/targets.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssdlite_caffe.evaluation.evaluate import score_of
from ssdlite_caffe.evaluation.named_truth import read_truth
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from tests.targets import folders
from tests.targets.environments import ENVIRONMENTS, UnavailableError, environment
from tests.targets.workshop import ROOT, find_shared

RESULTS = Path(__file__).resolve().parent / "int8.json"
PAGE = ROOT / "docs" / "targets.md"
BEGIN, END = "<!-- made by tests/targets/int8.py of tests/targets/int8.json -->", "<!-- end of what is made -->"
MODEL, DATA, CLASSES = "bccd_v2_ssdlite_3", "bccd", ("RBC", "WBC", "Platelets")
CALIBRATION = 32
MOST_LOST = 0.02
"""Of the AP50, with outputs of each feature map."""
_DETECT = "python detect.py --dump DUMP expected/*/input.npy"


@dataclass(frozen=True)
class Form:
    """One net of a target, in one precision.

    Attributes:
        target: its name.
        outputs: joined or per-map.
        precision: int8 or fp16.
        commands: in the target's folder; DUMP is a folder.
    """

    target: str
    outputs: str
    precision: str
    commands: tuple[str, ...]

    @property
    def name(self) -> str:
        """The key of a result."""
        return f"{self.target}-{self.precision}-{self.outputs}"


FORMS = (
    Form("rknn", "joined", "int8", ("python convert.py --dump DUMP --detect expected/*/input.npy",)),
    Form("rknn", "per-map", "int8", ("python convert.py --int8-maps --dump DUMP --detect expected/*/input.npy",)),
    Form("sophgo", "per-map", "int8", ("sh convert.sh", f"MODEL=headless_maps_int8.bmodel {_DETECT}")),
    Form("sophgo", "joined", "int8", ("NET=headless sh convert.sh", f"MODEL=headless_int8.bmodel {_DETECT}")),
)  # fmt: skip


def read() -> dict[str, dict[str, Any]]:
    """What was measured, by the forms' names."""
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    return found


def convert(out: Path, shared: Path, images: Sequence[Path]) -> None:
    """Convert the model for all targets of FORMS, with calibration images of its training data."""
    labels = out.with_name("labels.txt")
    labels.write_text("".join(f"{name}\n" for name in CLASSES), "utf-8")
    command = [sys.executable, "-m", "ssdlite_caffe", "convert", shared / "models" / MODEL, "-o", out, "-q"]
    command += ["--label-map", labels, "--calibrate", shared / "data" / DATA, "--count", CALIBRATION]
    for target in dict.fromkeys(form.target for form in FORMS):
        command += ["--target", target]
    for image in images:
        command += ["--expected", image]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT)


def test_images(shared: Path, count: int) -> list[Path]:
    """`count` images of the data's test split, evenly over the list."""
    place = shared / "data" / DATA
    names = (place / "ImageSets" / "Main" / "test.txt").read_text("utf-8").split()
    chosen = [names[number * len(names) // count] for number in range(min(count, len(names)))]
    return [place / "JPEGImages" / f"{name}.jpg" for name in chosen]


def average_precision(model: ModelFolder, data: Path, found: Mapping[str, Detections]) -> tuple[float, float]:
    """AP and AP50 of the detections of images, by name."""
    truth = read_truth(data, model.labels, list(found))
    score = score_of("device", truth.boxes, truth.sizes, list(found.values()))
    return score.ap, score.ap50


def measure(form: Form, out: Path, shared: Path) -> dict[str, Any]:
    """Run a form on all images of `expected/`.

    Raises:
        UnavailableError: the program cannot be had.
        AssertionError: one of the commands failed.
    """
    folder, model = out / form.target, ModelFolder.open(out)
    python = environment(folders.PROGRAMS[form.target])
    dump = f"dump-{form.outputs}-{form.precision}"
    for command in form.commands:
        folders.shell(command.replace("DUMP", dump), folder, python)
    names = sorted(path.name for path in (folder / "expected").iterdir())
    theirs = {name: folders.tensorflows(folder, name) for name in names}
    ours = {name: folders.decoded_in_python(folder, folder / dump / name) for name in names}
    data = shared / "data" / DATA
    (ap, ap50), (own_ap, own_ap50) = (average_precision(model, data, one) for one in (theirs, ours))
    return {
        "images": len(names), "calibration": CALIBRATION, "tensorflow": {"ap": ap, "ap50": ap50},
        "device": {"ap": own_ap, "ap50": own_ap50}, "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def render(results: Mapping[str, Mapping[str, Any]], forms: Iterable[Form] = FORMS) -> str:
    """The table, and how it was made."""
    head = ("program", "outputs", "AP", "AP50", "AP50 lost")
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    shown = [(form, results[form.name]) for form in forms if form.name in results]
    if shown:
        first = shown[0][1]
        lines.append(f"| TensorFlow |  | {first['tensorflow']['ap']:.4f} | {first['tensorflow']['ap50']:.4f} |  |")
    for form, one in shown:
        title = ENVIRONMENTS[folders.PROGRAMS[form.target]].title
        lost = one["tensorflow"]["ap50"] - one["device"]["ap50"]
        values = f"{one['device']['ap']:.4f} | {one['device']['ap50']:.4f} | {lost:.4f}"
        lines.append(f"| {title}, {form.precision} | {form.outputs} | {values} |")
    counts = sorted({(one["images"], one["calibration"]) for _, one in shown})
    said = "; ".join(f"{images} test images, calibrated with {count} others" for images, count in counts)
    return "\n".join(lines) + f"\n\nMeasured on {said}.\n"


def with_table(page: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with the table between its two marks.

    Raises:
        ValueError: the page has not both marks, once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{PAGE} must have {BEGIN} and {END} once each")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{render(results)}\n{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str]) -> int:
    """Measure, and write int8.json and the page anew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--images", type=int, default=72, metavar="N", help="test images, evenly over the split")
    parser.add_argument("--only", default="", metavar="TEXT", help="forms with this in their names")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page alone")
    options = parser.parse_args(arguments)
    shared, results = find_shared(), read()
    if options.page:
        PAGE.write_text(with_table(PAGE.read_text("utf-8"), results), "utf-8")
        return 0
    if shared is None:
        print("no folder shared/ with models and data beside the repository", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        convert(out, shared, test_images(shared, options.images))
        for form in FORMS:
            if options.only not in form.name:
                continue
            try:
                results[form.name] = measure(form, out, shared)
            except UnavailableError as error:
                print(f"not measured: {form.name}: {error}", flush=True)
                continue
            print(f"{form.name}: {json.dumps(results[form.name])}", flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), results), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
