"""Writing the folder of a target: nets, weights, default boxes, configuration, decoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.files import file_sha256, write_text
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.render import environment, render
from ssdlite_caffe.load.fill import fill
from ssdlite_caffe.load.own_boxes import headless_priors
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import write_filled
from ssdlite_caffe.prototxt.text import parse, parse_net
from ssdlite_caffe.targets.calibration import Calibration, write_calibration
from ssdlite_caffe.targets.decoder import decoder_files
from ssdlite_caffe.targets.expected import write_expected
from ssdlite_caffe.targets.facts import Facts, NetFacts, facts_of, net_facts, python_text
from ssdlite_caffe.targets.priors import FILES, priors_blob, write_priors
from ssdlite_caffe.targets.target import Target, TargetNet

LABELS = "labels.txt"
_INEXACT = {
    "activation relu": "ReLU in place of ReLU6, which has no bound",
    "padding symmetric": "padding is the same on both sides, TensorFlow's is not",
    "clip late": "boxes are not clipped to the image before suppression, as the model does",
}
"""What the inexact choices of a dialect do, for a README."""


def refuse_targets(net: NetDesc, targets: Sequence[Target]) -> None:
    """Check that every target can take a model, before anything is written.

    Raises:
        ArchError: one cannot; the text has its reason.
    """
    for target in targets:
        reason = target.refuses(net)
        if not reason and not target.nets_of(net):
            reason = f"{net.arch.irregular_boxes}, which its PriorBox layer cannot make"
        if reason:
            raise ArchError(f"target {target.name}: {reason}")


def write_target(
    folder: Path,
    target: Target,
    net: NetDesc,
    model: DumpedModel,
    names: LabelMap,
    calibration: Calibration | None = None,
    expected: Path | None = None,
) -> dict[str, Any]:
    """Fill the folder of a target.

    Args:
        folder: empty.
        target: the program.
        net: the detector.
        model: its weights.
        names: its classes.
        calibration: images for its quantiser; None: none.
        expected: `expected` of the converted folder; None: there is none.

    Returns:
        The entry of report.json: dialects, files with their hashes, what is not exact.

    Raises:
        SsdliteError: the net cannot be written so, or a file cannot be written.
    """
    written: list[NetFacts] = []
    raw: list[caffe_pb2.NetParameter] = []
    inexact: list[str] = []
    filled: dict[str, dict[str, tuple[FloatArray, ...]]] = {}
    nets = target.nets_of(net)
    for target_net in nets:
        dialect = target_net.dialect
        clips = target_net.stage == "deploy" and net.arch.nms.clip_first
        inexact += (f"{target_net.file}: {_INEXACT[choice]}" for choice in dialect.inexact(clip_first=clips))
        text = render(_with_threshold(net, target_net), dialect, target_net.stage)
        parsed = usual = parse_net(text, name=target_net.file)
        if target_net.edit:
            text = target_net.edit.text(text)
            parsed = parse(text, caffe_pb2.NetParameter, target_net.file, allow_unknown=True)
        write_text(folder / target_net.file, text)
        if target_net.weights not in filled:  # the nets that share weights have the same layers with weights
            filled[target_net.weights] = fill(usual, net, model).blobs
            write_filled(folder / target_net.weights, parsed, filled[target_net.weights])
        written.append(net_facts(target_net, parsed, net, filled[target_net.weights]))
        if target_net.stage == "headless":
            raw.append(parsed)
    priors = headless_priors(model, net)
    for form in target.priors:
        write_priors(folder, priors, form, net.arch.input_size)
    if target.decoder:
        for file, text in decoder_files(net, names.display_names, priors_blob(priors)).items():
            write_text(folder / file, text)
    write_text(folder / LABELS, "".join(f"{name}\n" for name in names.display_names))
    listed = ("", 0)
    if target.calibration and calibration is not None:
        write_calibration(folder, calibration, target.calibration, net.arch, target.calibration_list)
        listed = (target.calibration_list, len(calibration.images))
    shown = 0 if expected is None else write_expected(folder, expected, raw)
    facts = facts_of(target, net, names, tuple(written), tuple(dict.fromkeys(inexact)), listed, shown)
    for file in (*target.files, *(target.calibrated_files if listed[1] else ())):
        write_text(folder / file, rendered(target, file, facts))
    return {
        "title": target.title,
        "checked": facts.checked,
        "exact": not facts.inexact,
        "inexact": list(facts.inexact),
        "nets": {one.file: {"weights": one.weights, "stage": one.stage, "dialect": target_net.options()}
                 for one, target_net in zip(written, nets, strict=True)},
        "priors": [FILES[form] for form in target.priors],
        "files": {
            path.relative_to(folder).as_posix(): file_sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }  # fmt: skip


def rendered(target: Target, file: str, facts: Facts) -> str:
    """The text of one of a target's files."""
    made = environment().overlay()
    made.filters = {**made.filters, "literal": python_text}
    places = [f"targets/{folder}/{file}.j2" for folder in (target.name, "shared")]
    return made.select_template(places).render(target=facts)


def _with_threshold(net: NetDesc, target_net: TargetNet) -> NetDesc:
    """A detector with the score threshold of a target's net."""
    if target_net.score_threshold is None:
        return net
    nms = dataclasses.replace(net.arch.nms, score_threshold=target_net.score_threshold)
    return dataclasses.replace(net, arch=dataclasses.replace(net.arch, nms=nms))
