"""Writing a training folder: nets, solvers, scripts and first weights for Caffe's solver (the command `kit`)."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ssdlite_caffe.coco.label_map import BUILTIN, LabelMap, load_label_map
from ssdlite_caffe.coco.same_classes import match_classes
from ssdlite_caffe.data.lmdb_store import DATA
from ssdlite_caffe.data.lmdb_write import NAME_SIZE
from ssdlite_caffe.errors import ArchError, DatasetError, OutputError, SsdliteError
from ssdlite_caffe.files import new_folder, refuse_existing, write_text
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import refuse_irregular_boxes
from ssdlite_caffe.gen_model.dialect import BatchNormDialect, DataPaths, Dialect, Stage
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.prior_boxes import small_boxes
from ssdlite_caffe.gen_model.render import Solver, render, render_script, render_solver
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import stage_dialect
from ssdlite_caffe.training.intervals import largest_divisor
from ssdlite_caffe.training.kit_boxes import matched_shares, objects_by_label
from ssdlite_caffe.training.kit_check import (
    INITIAL,
    KIT,
    LABEL_MAP,
    SOLVER_TEST,
    SOLVER_TRAIN,
    Count,
    check_kit,
    lmdb_counts,
    lmdb_facts,
    refuse_disagreement,
)
from ssdlite_caffe.training.kit_weights import refuse_other_classes, write_initial_weights

TRAIN, TEST, SNAPSHOTS = "train.prototxt", "test.prototxt", "snapshot"
DEFAULT_LMDBS = ("trainval_lmdb", "test_lmdb")
"""LMDBs of a training folder that is written without data, inside of it."""
TEST_IMAGES = {"coco": 5000, "voc": 4952}
"""Images in COCO's val2017 and VOC's test2007, for training folders that are written without data."""

_LARGEST_TEST_BATCH = 8
_STAGES: tuple[tuple[str, Stage], ...] = (
    (TRAIN, "train"), (TEST, "test"), ("deploy.prototxt", "deploy"), ("headless.prototxt", "headless"),
)  # fmt: skip
_SCRIPTS = ("train.sh", "test.sh")
_FILES = frozenset({*(name for name, _ in _STAGES), *_SCRIPTS, KIT, LABEL_MAP, INITIAL, SOLVER_TRAIN, SOLVER_TEST})


@dataclass(frozen=True)
class KitOptions:
    """What a training folder is made of, beside classes and detector.

    Attributes:
        lmdbs: to train and to test on; None: those of DEFAULT_LMDBS, which may be put there later.
        source: a converted folder of the same detector that gives the first weights; None: they come from fillers.
        finetune: start the class predictors from fillers where the classes differ from the source's.
        frozen: keep the BatchNorm statistics of the first weights during the training.
        small_boxes: make the default boxes of the first feature map as small as TensorFlow's smallest.
        batch_size: images of a training iteration.
        zoom: images are shrunk up to so many times during training; 1: never.
        loc_weight: factor of the loss of the boxes; 0.25 is TensorFlow's normalize_loc_loss_by_codesize.
        dialect: of all nets; the train and test nets keep BatchNorm.
        solver: its settings; `write_kit` fills in the names of the nets and the length of a test.
    """

    lmdbs: tuple[Path, Path] | None = None
    source: Path | None = None
    finetune: bool = False
    frozen: bool = False
    small_boxes: bool = False
    batch_size: int = 24
    zoom: float = 4.0
    loc_weight: float = 1.0
    dialect: Dialect = field(default_factory=Dialect)
    solver: Solver = field(default_factory=lambda: Solver(TRAIN))


class _Data(NamedTuple):
    """An LMDB as the nets name it: paths relative to the training folder, and its number of images."""

    lmdb: str
    name_size: str
    images: int


def write_kit(
    label_map: str,
    arch: ArchSpec,
    out: Path,
    options: KitOptions = KitOptions(),
    *,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a training folder.

    Args:
        label_map: coco, voc, or a file; its classes are the net's.
        arch: the detector; its class count is replaced by the label map's, and its resizer by the plain one: the data
            layers squash images to the input size, and so will the trained detector.
        out: folder to make.
        options: all else.
        force: replace an earlier one, where nothing was added to it.
        say: called with lines for the user.

    Returns:
        The content of kit.json.

    Raises:
        SsdliteError: the label map, the LMDBs or the weights are missing or do not fit together; `out` exists.
    """
    labels = load_label_map(label_map)
    resizer, arch = arch.resizer, dataclasses.replace(arch, num_classes=len(labels), resizer=Resizer())
    if options.dialect.priors == "constant" and options.source is None:
        raise ArchError(
            "the default boxes of --priors constant are in the weights, which a kit has only with --from; give it, or "
            "leave out --priors"
        )
    if options.small_boxes:
        refuse_irregular_boxes(arch, "--small-boxes makes PriorBox's")
    small = _with_small_boxes(arch)
    if options.small_boxes and small == arch:
        raise ArchError("the net's default boxes are as small as TensorFlow's already; leave out --small-boxes")
    net = build(small if options.small_boxes else arch)
    _refuse(out, options, force=force)
    train, test = _data(label_map, out, options)
    _check_classes(label_map, labels, options)
    kit: dict[str, Any] = {
        "arch": net.arch.to_dict(),
        "train": train._asdict() if options.lmdbs else None,
        "test": test._asdict() if options.lmdbs else None,
    }
    if not resizer.plain:
        kit["resizer_before"] = resizer.text()
    if options.lmdbs and not arch.irregular_boxes:
        kit["default_boxes"] = _shares(net, build(small), options.lmdbs[0], labels)
    with new_folder(out, marker=KIT, force=force) as folder:
        write_text(folder / LABEL_MAP, labels.to_prototxt())
        _write_nets(folder, net, options, train, test)
        if options.source is not None:
            kit["initial"] = write_initial_weights(
                folder / INITIAL, read_net(folder / TRAIN), net, labels, options.source, finetune=options.finetune,
                say=say,
            )  # fmt: skip
        _write_solvers(folder, options.solver, test)
        for name in _SCRIPTS:
            write_text(folder / name, render_script(name, _needed(train, test)))
            (folder / name).chmod(0o777 & ~_umask())
        write_text(folder / KIT, json.dumps(kit, indent=2) + "\n")
        if options.lmdbs:
            _check(folder, out)
    return kit


def _with_small_boxes(arch: ArchSpec) -> ArchSpec:
    first, *rest = arch.boxes
    return dataclasses.replace(arch, boxes=(small_boxes(first, arch.input_size), *rest))


def _shares(net: NetDesc, small: NetDesc, lmdb: Path, labels: LabelMap) -> list[dict[str, Any]]:
    """For each class the share (0..1) of objects that a default box fits, and the same for small default boxes."""
    objects = objects_by_label(lmdb)
    shares, alternative = matched_shares(net, objects), matched_shares(small, objects)
    names = labels.display_names
    return [
        {
            "class": names[label] if 0 < label < len(names) else str(label),
            "objects": len(objects[label]),
            "share": round(share, 4),
            "share_small": round(alternative[label], 4),
        }
        for label, share in shares.items()
    ]


def batch_size_of_test(images: int) -> int:
    """The largest batch size, up to 8, that divides the test set, so that each image is tested just once."""
    return largest_divisor(images, _LARGEST_TEST_BATCH)


def _refuse(out: Path, options: KitOptions, *, force: bool) -> None:
    """Refuse to overwrite, without `force`; with it, to remove files that this command did not write."""
    refuse_existing(out, force=force)
    if out.is_dir():
        added = sorted(entry.name for entry in out.iterdir() if entry.name not in _FILES)
        if (out / KIT).is_file() and added:
            raise OutputError(f"{out} holds {added[0]}, which `kit` did not write; move it, or give another name")
    for path in options.lmdbs or ():
        if path.resolve().is_relative_to(out.resolve()):
            raise OutputError(f"{path} lies in {out}, which would be replaced; move it, or give another name")


def _data(label_map: str, out: Path, options: KitOptions) -> tuple[_Data, _Data]:
    if options.lmdbs is None:
        if label_map not in BUILTIN:
            raise DatasetError(
                "label maps other than coco and voc need LMDBs to train and test on; give --train and --test"
            )
        return _Data(DEFAULT_LMDBS[0], "", 0), _Data(DEFAULT_LMDBS[1], "", TEST_IMAGES[label_map])
    base = out.resolve()
    found = []
    for path in options.lmdbs:
        records = lmdb_facts(path).records
        if not records:
            raise DatasetError(f"{path} must hold at least one image, got an empty LMDB")
        name_size = path / NAME_SIZE
        found.append(_Data(_relative(path, base), _relative(name_size, base) if name_size.is_file() else "", records))
    return found[0], found[1]


def _check_classes(label_map: str, labels: LabelMap, options: KitOptions) -> None:
    """Compare all class counts, and the classes of the first weights, before anything is written.

    Raises:
        LabelMapError: they do not agree.
    """
    classes = len(labels)
    counts = [Count("label map", label_map, classes), Count("net", TRAIN, classes)]
    for path in options.lmdbs or ():
        counts += lmdb_counts(path, classes)
    if options.source is None or options.finetune:
        refuse_disagreement(counts)
        return
    own = ModelFolder.open(options.source).labels
    counts.append(Count("weights", options.source, len(own)))
    refuse_disagreement(counts, "; --finetune starts from weights of other classes" if len(own) != classes else "")
    refuse_other_classes(match_classes(own, labels), options.source)


def _check(folder: Path, out: Path) -> None:
    """Check what was written; errors name the folder that it is moved to."""
    try:
        check_kit(folder, beside=out)
    except SsdliteError as error:
        raise type(error)(str(error).replace(str(folder), str(out))) from error


def _relative(path: Path, base: Path) -> str:
    """A path as seen from the folder `base`, so that training folder and data may be moved together."""
    return os.path.relpath(path.resolve(), base)


def _write_nets(folder: Path, net: NetDesc, options: KitOptions, train: _Data, test: _Data) -> None:
    data = {
        "train": DataPaths(
            train.lmdb, LABEL_MAP, batch_size=options.batch_size, zoom=options.zoom, loc_weight=options.loc_weight
        ),
        "test": DataPaths(test.lmdb, LABEL_MAP, test.name_size, batch_size_of_test(test.images)),
    }
    batch_norm: dict[str, BatchNormDialect] = {"train": "frozen" if options.frozen else "keep", "test": "keep"}
    for name, stage in _STAGES:
        own = stage_dialect(options.dialect, stage)
        dialect = dataclasses.replace(own, batch_norm=batch_norm.get(stage, own.batch_norm))
        write_text(folder / name, render(net, dialect, stage, data.get(stage)))


def _write_solvers(folder: Path, solver: Solver, test: _Data) -> None:
    told = dataclasses.replace(
        solver, train_net=TRAIN, test_net=TEST, test_iter=test.images // batch_size_of_test(test.images)
    )
    write_text(folder / SOLVER_TRAIN, render_solver(told))
    write_text(folder / SOLVER_TEST, render_solver(dataclasses.replace(told, learn=False, test_interval=1)))


def _needed(train: _Data, test: _Data) -> list[str]:
    """Files outside the training folder that its nets name."""
    return [f"{train.lmdb}/{DATA}", f"{test.lmdb}/{DATA}", *([test.name_size] if test.name_size else [])]


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
