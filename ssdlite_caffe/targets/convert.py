"""The targets of a conversion: each gets a folder of its name in the converted folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.targets.target import Target
from ssdlite_caffe.targets.write import refuse_targets, write_target
from ssdlite_caffe.tools.convert import Addition, Progress


def targets_addition(targets: Sequence[Target]) -> Addition:
    """What `convert` adds to its folder for targets: OUT/<name>/ for each, and `targets` in the report."""

    def finish(folder: Path, model: DumpedModel, net: NetDesc, names: LabelMap, progress: Progress) -> dict[str, Any]:
        entries = {}
        for target in targets:
            progress(f"writing {target.name}")
            (folder / target.name).mkdir()
            entries[target.name] = write_target(folder / target.name, target, net, model, names)
        return {"targets": entries}

    return Addition(lambda net: refuse_targets(net, targets), finish)
