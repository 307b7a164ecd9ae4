"""One case of the table: a program loads a net, runs it, and its outputs are compared with OpenCV's."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.decode import decode, detections_of, parse_detection_out
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.resize import WHOLE
from ssdlite_caffe.tools.compare import compare_detections, difference
from tests.targets import process
from tests.targets.cases import Case
from tests.targets.workshop import IMAGES, RAW, Workshop

TOLERANCES = {"fp32": (1e-4, 1e-4, 0.0), "fp16": (0.01, 0.02, 0.3), "int8": (0.1, 0.2, 0.3)}
"""Of a pair of detections: corners, scores; and the least score of detections that are compared."""
NO_OUTPUT = "it runs, and gives no output"


@dataclass(frozen=True)
class Measured:
    """What was seen of a case.

    Attributes:
        loads: the program took the files.
        runs: it computed the net's outputs.
        message: of a program that failed.
        relative: for each raw output, the largest difference divided by the largest value of OpenCV's; of all images.
        paired: detections that the program and OpenCV agree about, in all images.
        expected: detections that OpenCV has, without those near the least score that the program may have below it.
        extra: detections that OpenCV has not.
        versions: of the program's packages.
        date: of the run.
        log: what the program printed.
    """

    loads: bool
    runs: bool
    message: str
    relative: dict[str, float]
    paired: int
    expected: int
    extra: int
    versions: dict[str, str]
    date: str
    log: str

    def to_dict(self) -> dict[str, Any]:
        """For results.json: without the log."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "log"}


def measure(case: Case, python: Path, workshop: Workshop) -> Measured:
    """Run a case.

    Args:
        case: of the table.
        python: of the environment of the case's program.
        workshop: where the models are.
    """
    model = workshop.converted(case.model, case.options)
    folder = Path(tempfile.mkdtemp(dir=workshop.folder, prefix=f"{case.program}."))
    prototxt = model.deploy_prototxt if case.net == "deploy" else model.headless_prototxt
    outputs = outputs_of(read_net(prototxt))
    shutil.copy(prototxt, folder / "net.prototxt")
    shutil.copy(model.deploy_caffemodel, folder / "net.caffemodel")
    _save(folder / "inputs.npz", workshop.inputs(case.model, model.arch)[: IMAGES[case.precision]])
    if case.precision == "int8":
        _save(folder / "calibration.npz", workshop.calibration(case.model, model.arch))
    mean, scale = model.arch.pixel_mean, model.arch.pixel_scale
    job = {"mean": mean, "scale": scale, "precision": case.precision, "outputs": outputs}
    (folder / "job.json").write_text(json.dumps(job), "utf-8")
    outcome = process.run(python, case.program, folder)
    found = [named(one, outputs) for one in outcome.outputs] if outcome.runs else []
    given = bool(found) and all(one[name].size for one in found for name in outputs if name != "mbox_priorbox")
    measured = Measured(
        loads=outcome.loads,
        runs=given,
        message=outcome.error if not outcome.runs else "" if given else NO_OUTPUT,
        relative={},
        paired=0,
        expected=0,
        extra=0,
        versions=dict(outcome.versions),
        date=datetime.date.today().isoformat(),
        log=outcome.log,
    )
    if not given:
        return measured
    return dataclasses.replace(
        measured, **_compared(case, model.arch, workshop.reference(case.model, case.options), found)
    )  # fmt: skip


def _save(path: Path, blobs: Sequence[FloatArray]) -> None:
    arrays: dict[str, Any] = {str(number): blob for number, blob in enumerate(blobs)}
    np.savez(path, **arrays)


def outputs_of(net: caffe_pb2.NetParameter) -> list[str]:
    """Blobs that no layer reads, in the order in which they are computed."""
    read = {bottom for layer in net.layer for bottom in layer.bottom}
    return list(dict.fromkeys(top for layer in net.layer for top in layer.top if top not in read))


def named(found: Mapping[str, FloatArray], outputs: Sequence[str]) -> dict[str, FloatArray]:
    """A program's arrays under the names of the net's outputs, empty where it has none.

    Programs may write another character for what is no letter or digit; without names (`#0`) it is the order that
    counts.
    """
    if all(name.startswith("#") for name in found):
        in_order = dict(zip(outputs, found.values(), strict=False))  # PriorBox layers come last, and may be dropped
        return {name: in_order.get(name, np.zeros(0, np.float32)) for name in outputs}
    plain = {re.sub(r"\W", "_", name): array for name, array in found.items()}
    return {name: plain.get(re.sub(r"\W", "_", name), np.zeros(0, np.float32)) for name in outputs}


def _compared(
    case: Case, arch: ArchSpec, reference: Sequence[Mapping[str, FloatArray]], found: Sequence[Mapping[str, FloatArray]]
) -> dict[str, Any]:
    """The numbers of a Measured."""
    box, score, least = TOLERANCES[case.precision]
    least = max(least, case.least)
    late = not arch.nms.clip_first or "late" in case.options
    relative: dict[str, float] = {}
    paired = expected = extra = 0
    for opencv, program in zip(reference, found, strict=False):  # fewer inputs where a chip is simulated
        for name in RAW if case.net == "headless" else ():
            one = difference(program[name].reshape(-1), opencv[name].reshape(-1)).relative
            relative[name] = max(relative.get(name, 0.0), one)
        theirs = detections_of(arch, parse_detection_out(opencv["detection_out"]), WHOLE).above(least)
        ours = _detections(program, arch, opencv["mbox_priorbox"], clip=not late)
        pairs = compare_detections(
            detections_of(arch, ours, WHOLE).above(least),
            theirs,
            box_tolerance=box,
            score_tolerance=score,
            max_total=arch.nms.max_total,
            score_threshold=max(least, arch.nms.score_threshold),
        )
        more = sum(text.startswith("not in the reference") for text in pairs.unpaired)
        paired += pairs.paired
        expected += pairs.paired + len(pairs.unpaired) - more  # without those that are excused: at the least score
        extra += more
    return {"relative": relative, "paired": paired, "expected": expected, "extra": extra}


def _detections(outputs: Mapping[str, FloatArray], arch: ArchSpec, priors: FloatArray, *, clip: bool) -> Detections:
    """What the program detects or, of a headless net, what our decoder makes of it.

    Args:
        outputs: of the program.
        arch: of the model.
        priors: the default boxes.
        clip: boxes are clipped before NMS.
    """
    if "detection_out" in outputs:
        return parse_detection_out(outputs["detection_out"])
    loc, conf = (outputs[name].reshape(-1) for name in RAW)
    return decode(loc, conf, priors, arch.nms, converter=arch.score_converter, clip=clip)
