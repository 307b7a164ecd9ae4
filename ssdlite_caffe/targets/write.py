"""Writing the folder of a target: nets, weights, default boxes, configuration, decoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.files import file_sha256, write_text
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.render import environment, render
from ssdlite_caffe.load.fill import fill
from ssdlite_caffe.prototxt.binary import write_filled
from ssdlite_caffe.prototxt.text import parse_net
from ssdlite_caffe.targets.calibration import LIST, Calibration, write_calibration
from ssdlite_caffe.targets.facts import Facts, NetFacts, facts_of, net_facts, python_text
from ssdlite_caffe.targets.priors import FILES, write_priors
from ssdlite_caffe.targets.target import Target

LABELS = "labels.txt"


def refuse_targets(net: NetDesc, targets: Sequence[Target]) -> None:
    """Check that every target can take a model, before anything is written.

    Raises:
        ArchError: one cannot; the text has its reason.
    """
    for target in targets:
        reason = target.refuses(net)
        if reason:
            raise ArchError(f"target {target.name}: {reason}")


def write_target(
    folder: Path,
    target: Target,
    net: NetDesc,
    model: DumpedModel,
    names: LabelMap,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Fill the folder of a target.

    Args:
        folder: empty.
        target: the program.
        net: the detector.
        model: its weights.
        names: its classes.
        calibration: images for its quantiser; None: none.

    Returns:
        The entry of report.json: dialects, files with their hashes, what is not exact.

    Raises:
        SsdliteError: the net cannot be written so, or a file cannot be written.
    """
    written: list[NetFacts] = []
    inexact: list[str] = []
    filled: set[str] = set()
    for target_net in target.nets:
        dialect = target_net.dialect
        inexact += dialect.inexact(clip_first=net.arch.nms.clip_first)
        text = render(net, dialect, target_net.stage)
        write_text(folder / target_net.file, text)
        parsed = parse_net(text, name=target_net.file)
        if target_net.weights not in filled:  # the nets that share weights have the same layers with weights
            write_filled(folder / target_net.weights, parsed, fill(parsed, net, model).blobs)
            filled.add(target_net.weights)
        written.append(net_facts(target_net, parsed))
    for form in target.priors:
        write_priors(folder, net, form)
    write_text(folder / LABELS, "".join(f"{name}\n" for name in names.display_names))
    listed = ("", 0)
    if target.calibration and calibration is not None:
        write_calibration(folder, calibration, target.calibration, net.arch)
        listed = (LIST, len(calibration.images))
    facts = facts_of(target, net, names, tuple(written), tuple(dict.fromkeys(inexact)), listed)
    for file in target.files:
        write_text(folder / file, rendered(target, file, facts))
    return {
        "title": target.title,
        "checked": facts.checked,
        "exact": not facts.inexact,
        "inexact": list(facts.inexact),
        "nets": {one.file: {"weights": one.weights, "stage": one.stage, "dialect": target_net.options()}
                 for one, target_net in zip(written, target.nets, strict=True)},
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
    return made.get_template(f"targets/{target.name}/{file}.j2").render(target=facts)
