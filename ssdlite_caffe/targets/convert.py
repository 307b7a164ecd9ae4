"""The targets of a conversion: each gets a folder of its name in the converted folder."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.runtimes.folder_files import EXPECTED
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.targets.calibration import Calibration, Wanted, calibration_of, check_wanted, has_annotations
from ssdlite_caffe.targets.target import Target
from ssdlite_caffe.targets.write import refuse_targets, write_target
from ssdlite_caffe.tools.convert import Addition, ConvertOptions, Progress, write_model_files


def targets_addition(targets: Sequence[Target], wanted: Wanted | None = None) -> Addition:
    """What `convert` adds to its folder for targets: OUT/<name>/ for each, and `targets` in the report.

    Args:
        targets: the programs.
        wanted: calibration images, for the programs that quantise; None: none.

    Raises:
        SsdliteError: no program quantises, or no such images are there.
    """
    if wanted is not None:
        if not any(target.calibration for target in targets):
            names = ", ".join(target.name for target in targets) or "none"
            raise ArchError(f"--calibrate is for a --target that quantises; given: {names}")
        check_wanted(wanted)

    def finish(folder: Path, model: DumpedModel, net: NetDesc, names: LabelMap, progress: Progress) -> dict[str, Any]:
        entries = {}
        calibration = None if wanted is None else _calibration(wanted, folder, model, net, names, progress)
        expected = folder / EXPECTED if (folder / EXPECTED).is_dir() else None
        for target in targets:
            progress(f"writing {target.name}")
            (folder / target.name).mkdir()
            entries[target.name] = write_target(folder / target.name, target, net, model, names, calibration, expected)
        notes = () if calibration is None else calibration.notes
        return {"targets": entries, "target_notes": list(notes)}

    inputs = [] if wanted is None else [("--calibrate", path) for path in wanted.paths]
    if wanted is not None and wanted.images is not None:
        inputs.append(("--images", wanted.images))
    return Addition(lambda net: refuse_targets(net, targets), finish, tuple(inputs))


def _calibration(
    wanted: Wanted, folder: Path, model: DumpedModel, net: NetDesc, names: LabelMap, progress: Progress
) -> Calibration:
    """Choose images. Where the model has to look for classes, it runs in a dialect that OpenCV takes."""
    if has_annotations(wanted):
        return calibration_of(wanted, ModelFolder.open(folder), progress)
    with tempfile.TemporaryDirectory() as place:
        dialect = Dialect(priors="constant" if net.arch.irregular_boxes else "layer")
        write_model_files(Path(place), model, net.arch, names, ConvertOptions(dialect), lambda _: None)
        return calibration_of(wanted, ModelFolder.open(Path(place)), progress)
