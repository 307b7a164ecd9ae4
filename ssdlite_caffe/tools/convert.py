"""From a TensorFlow model to a folder of Caffe files: read, recognise, build, render, fill, write."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssdlite_caffe import __version__
from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.coco.label_map import BUILTIN, LabelMap, check_classes, numbered
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.files import file_sha256, new_folder, write_text
from ssdlite_caffe.gen_model.arch import LEAST_SCORE, ArchSpec, matters
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect, Stage
from ssdlite_caffe.gen_model.netdesc import GateDesc, NetDesc
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.load.fill import filled_layers
from ssdlite_caffe.load.own_boxes import headless_priors
from ssdlite_caffe.prototxt.binary import write_layers
from ssdlite_caffe.prototxt.text import parse_net
from ssdlite_caffe.runtimes.class_names import label_map_of
from ssdlite_caffe.runtimes.model_folder import (
    DEPLOY,
    DEPLOY_WEIGHTS,
    HEADLESS,
    LABEL_MAP,
    PRIORS,
    REPORT,
    TEST,
    TRAIN,
    TRAIN_WEIGHTS,
    ModelFolder,
    RecordedPath,
)
from ssdlite_caffe.tools.replaced import Inputs, refuse_losses
from ssdlite_caffe.tools.source import open_model

if TYPE_CHECKING:
    from ssdlite_caffe.tools.expected import NamedPixels

STAGES: tuple[tuple[str, Stage], ...] = (
    (DEPLOY, "deploy"),
    (HEADLESS, "headless"),
    (TRAIN, "train"),
    (TEST, "test"),
)
WEIGHTS = {DEPLOY_WEIGHTS: DEPLOY, TRAIN_WEIGHTS: TRAIN}
"""Each caffemodel and the prototxt it is for; the headless net uses deploy's weights, the test net train's."""

Progress = Callable[[str], None]
Check = Callable[[NetDesc], None]
Finish = Callable[[Path, DumpedModel, NetDesc, LabelMap, Progress], dict[str, Any]]
"""Writes more into a converted folder; what it returns is added to the report."""


@dataclass(frozen=True)
class Addition:
    """What a layer above adds to a converted folder.

    Attributes:
        check: raises an error if it cannot be added to this detector; called before anything is written.
        finish: called when the folder is complete.
        inputs: files and folders that it reads.
    """

    check: Check
    finish: Finish
    inputs: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class ConvertOptions:
    """Options of a conversion.

    Attributes:
        dialect: of the deploy and headless nets; the train and test nets use it too, but keep BatchNorm.
        label_map: `coco`, `voc` or a label map file of Caffe or the OD API; None: the model's own, or numbered names.
        reading: how to read the model.
        score_threshold: 0 to 1, in place of the graph's; graphs are often exported with 0.3, which lowers the mAP.
        data: LMDB and batch size in the train and test nets.
        expected: images and folders of such, whose inputs and outputs are written for a device to be compared with.
    """

    dialect: Dialect = dataclasses.field(default_factory=Dialect)
    label_map: str | None = None
    reading: ReadOptions = dataclasses.field(default_factory=ReadOptions)
    score_threshold: float | None = None
    data: DataPaths = dataclasses.field(default_factory=DataPaths)
    expected: tuple[Path, ...] = ()


def convert(
    source: Path,
    out: Path,
    options: ConvertOptions,
    *,
    additions: Sequence[Addition] = (),
    force: bool = False,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Convert `source` into the folder `out`, and return the report that is written there as report.json.

    Raises:
        SsdliteError: the model cannot be read or is not an SSD MobileNet, its weights do not fit, or `out` exists.
    """
    inputs = [*_inputs(source, options), *(one for addition in additions for one in addition.inputs)]
    refuse_losses(out, inputs, force=force)  # before the model is read
    images: Sequence[NamedPixels] = ()
    if options.expected:
        from ssdlite_caffe.tools.expected import read_expected_images  # which imports this module

        images = read_expected_images(options.expected)
    progress(f"reading {source}")
    with open_model(source, options.reading) as opened:
        arch = opened.arch
        if options.score_threshold is not None:
            arch = dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, score_threshold=options.score_threshold))
        found, where = label_map_of(source, options.label_map)
        names = found or opened.labels or numbered(arch.num_classes)
        check_classes(names, arch.num_classes, where or "the label map")
        for addition in additions:
            addition.check(build(arch))
        with new_folder(out, marker=REPORT, force=force) as folder:
            report = write_model_files(folder, opened.model, arch, names, options, progress, out)
            if images:
                from ssdlite_caffe.tools.expected import write_expected

                write_expected(folder, opened, images, progress)
            for addition in additions:
                report |= addition.finish(folder, opened.model, build(arch), names, progress)
            if additions:
                write_text(folder / REPORT, json.dumps(report, indent=2) + "\n", force=True)
    return report


def _inputs(source: Path, options: ConvertOptions) -> Inputs:
    yield "the model", source
    if options.reading.pipeline_config is not None:
        yield "the pipeline.config", options.reading.pipeline_config
    if options.label_map is not None and options.label_map not in BUILTIN:
        yield "the label map", Path(options.label_map)
    yield from (("--expected", path) for path in options.expected)
    if options.data.lmdb and Path(options.data.lmdb).exists():  # written into the nets, and not read here
        yield "the LMDB", Path(options.data.lmdb)


def write_model_files(
    folder: Path,
    model: DumpedModel,
    arch: ArchSpec,
    names: LabelMap,
    options: ConvertOptions,
    progress: Progress,
    place: Path | None = None,
) -> dict[str, Any]:
    """Write all files of a converted model into the empty folder `folder`, and return the report.

    Args:
        folder: the folder to fill.
        model: the source model.
        arch: its architecture.
        names: its classes.
        options: of the conversion.
        progress: called with a text when the next file begins.
        place: where the folder will be; None: where it is.
    """
    net = build(arch)
    files: dict[str, dict[str, Any]] = {}
    texts: dict[str, str] = {}
    loose = options.dialect.priors == "none"
    for name, stage in STAGES:
        if loose and name == DEPLOY:  # it would need the default boxes
            continue
        progress(f"writing {name}")
        dialect = stage_dialect(options.dialect, stage)
        texts[name] = render(net, dialect, stage, options.data)
        write_text(folder / name, texts[name])
        files[name] = {
            "stage": stage,
            "dialect": dataclasses.asdict(dialect),
            "data": dataclasses.asdict(options.data),
            "sha256": _sha256(texts[name].encode()),
        }
    if loose:
        own = headless_priors(model, net)
        np.save(folder / PRIORS, own)
        files[PRIORS] = {"values": own.size, "sha256": file_sha256(folder / PRIORS)}
    for name, prototxt in WEIGHTS.items():
        prototxt = prototxt if prototxt in texts else HEADLESS
        progress(f"writing {name}")
        files[name] = {"net": prototxt, **_write_weights(folder / name, texts[prototxt], prototxt, net, model)}
    label_text = names.to_prototxt()
    write_text(folder / LABEL_MAP, label_text)
    files[LABEL_MAP] = {"sha256": _sha256(label_text.encode())}
    report = _report(model, arch, net, options, files, place or folder)
    write_text(folder / REPORT, json.dumps(report, indent=2) + "\n")
    return report


def _write_weights(path: Path, text: str, prototxt: str, net: NetDesc, model: DumpedModel) -> dict[str, Any]:
    """Write a caffemodel, and return how much was filled. The blobs of one layer are in memory at a time."""
    parsed = parse_net(text, name=prototxt)
    sizes: list[int] = []

    def counted() -> Iterator[tuple[str, tuple[FloatArray, ...]]]:
        for name, blobs in filled_layers(parsed, net, model):
            sizes.extend([sum(blob.size for blob in blobs)] if blobs else [])
            yield name, blobs

    digest = write_layers(path, parsed, counted())
    return {"layers_filled": len(sizes), "values": sum(sizes), "sha256": digest}


def stage_dialect(dialect: Dialect, stage: Stage) -> Dialect:
    """The dialect of a stage: train and test nets are for Caffe.

    They keep BatchNorm, which training needs, and gates are written with layers that Caffe has.
    """
    if stage not in ("train", "test"):
        return dialect
    gate = "scale" if dialect.gate in ("interp", "eltwise") else dialect.gate
    return dataclasses.replace(dialect, batch_norm="keep", gate=gate)


def _report(
    model: DumpedModel,
    arch: ArchSpec,
    net: NetDesc,
    options: ConvertOptions,
    files: dict[str, dict[str, Any]],
    folder: Path,
) -> dict[str, Any]:
    inexact = [*options.dialect.inexact(clip_first=arch.nms.clip_first), *model.inexact]
    if arch.resizer.letterboxes and arch.nms.clip_first:
        inexact.append("boxes clipped to the padded input, not to the image, before suppression")
    notes = [*model.notes, *threshold_notes(arch, options.score_threshold), *_gate_notes(net, options.dialect)]
    notes += _limit_notes(arch, options.dialect)
    if not arch.resizer.plain:
        notes.append(
            f"{TRAIN} and {TEST} resize as OpenCV does"
            + (" and squash images to the input size, without a letterbox" if arch.resizer.letterboxes else "")
        )
    if inexact:
        notes.append(f"not exact: {', '.join(inexact)}; detections differ from the model's own")
    if arch.nms.max_per_class < arch.nms.max_total:
        notes.append(
            f"TensorFlow keeps at most {arch.nms.max_per_class} detections of each class; DetectionOutput has no such "
            f"limit and keeps the best {arch.nms.max_total} of all classes; --decoder numpy does as TensorFlow"
        )
    return {
        "ssdlite_caffe": __version__,
        "source": {
            "given": model.source,
            **source_place(model.source, folder),
            "form": model.form,
            "sha256": model.sha256,
            "origins": model.origins,
        },
        "reading": reading_to_dict(options.reading, folder),
        "arch": arch.to_dict(),
        "resizer": dataclasses.asdict(arch.resizer),
        "tflite_nms": None if model.settings.tflite_nms is None else dataclasses.asdict(model.settings.tflite_nms),
        "default_boxes": net.num_default_boxes,
        "feature_maps": [
            {"blob": m.blob, "size": list(m.size), "channels": m.channels, "boxes_per_cell": len(m.tf_boxes)}
            for m in net.feature_maps
        ],
        "tensors": {"used": len(model.tensors), "sha256": tensors_sha256(model), "skipped": model.skipped},
        "exact": not inexact,
        "notes": notes,
        "files": files,
    }


def _gate_notes(net: NetDesc, dialect: Dialect) -> list[str]:
    """A sentence on gates that Caffe does not run; none for a net without gates."""
    reasons = {
        "interp": "needs a Caffe with Interp layers, which neither BVLC's nor the one of `caffe build` is",
        "eltwise": "is not for Caffe, which stops at the gates, nor for MNN, which computes something else",
    }
    if dialect.gate not in reasons or not any(isinstance(n, GateDesc) for s in net.sections for n in s.nodes):
        return []
    return [f"--gate {dialect.gate}: {DEPLOY} {reasons[dialect.gate]}; {TRAIN} and {TEST} have Scale layers instead"]


def _limit_notes(arch: ArchSpec, dialect: Dialect) -> list[str]:
    """A sentence on the limit of box sizes; none if the model has none, or the net has it too.

    A box that is cut is 2 g times its default box's size or larger, with g = exp(limit) / 2. Clipped to the image, it
    is what the larger one is unless its centre is more than g times the default box's size away from an edge.
    """
    if arch.code_limit is None or (dialect.priors == "constant" and dialect.clip == "exact" and arch.nms.clip_first):
        return []
    most = math.exp(arch.code_limit)
    least = min(min(size) for cell in arch.boxes for size in cell.sizes)
    far = most / 2 * least - 1
    return [
        f"the model cuts boxes to {most:g} times the width and height of their default boxes, and {DEPLOY} does not"
        + (
            f"; clipped to the image, boxes are the same unless their centre is {far:.1f} times its size beyond it"
            if dialect.clip == "exact" and arch.nms.clip_first
            else ""
        )
        + "; --priors constant with --clip exact cuts them too"
    ]


def threshold_notes(arch: ArchSpec, given: float | None) -> list[str]:
    """A sentence on a score threshold of the model's own that is too high for measuring; none if one was given."""
    threshold = arch.nms.score_threshold
    if given is not None or not matters(threshold):
        return []
    return [
        f"the model drops detections with scores below {threshold:g}, and so does the converted one, which makes an "
        f"average precision too low; to measure, give --score-threshold {LEAST_SCORE:g} here or to evaluate"
    ]


def source_place(source: str | Path, folder: Path) -> dict[str, Any]:
    """Where the source is, as a report in `folder` says it."""
    recorded = RecordedPath.at(source, folder)
    return {"path": str(recorded.path), "relative": recorded.relative}


def moved_places(old: ModelFolder, out: Path) -> dict[str, Any]:
    """The parts of a folder's report that name files by their place, as the report of a folder made from it says it."""
    places: dict[str, Any] = {}
    source, reading = old.source, old.report.get("reading")
    if source is not None:
        places["source"] = {**old.report["source"], **source_place(source.path or source.recorded.path, out)}
    if isinstance(reading, dict) and reading.get("pipeline_config") is not None:
        config = RecordedPath.of(reading["pipeline_config"], reading.get("pipeline_config_relative"))
        now = RecordedPath.at(config.found_from(old.path) or config.path, out)
        places["reading"] = {
            **reading, "pipeline_config": str(now.path), "pipeline_config_relative": now.relative,
        }  # fmt: skip
    return places


def reading_to_dict(reading: ReadOptions, folder: Path) -> dict[str, Any]:
    """Plain data for report.json in `folder`."""
    data = dataclasses.asdict(reading)
    if not reading.ema:  # reports from before there were state_dicts have the same content
        del data["ema"]
    if reading.pipeline_config is not None:
        recorded = RecordedPath.at(reading.pipeline_config, folder)
        data.update(pipeline_config=str(recorded.path), pipeline_config_relative=recorded.relative)
    return data


def tensors_sha256(model: DumpedModel) -> str:
    """Hash of all names, shapes and values, hex; the same for a checkpoint and a graph frozen from it."""
    digest = hashlib.sha256()
    for name, value in sorted(model.tensors.items()):
        digest.update(f"{name} {value.shape}\n".encode())
        digest.update(value.astype("<f4", copy=False).data)
    return digest.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def convert_summary(report: dict[str, Any], out: Path) -> str:
    """A report in a few lines of text."""
    arch = ArchSpec.from_dict(report["arch"])
    height, width = arch.input_size
    maps = ", ".join(f"{m['size'][0]}x{m['size'][1]}" for m in report["feature_maps"])
    source = report["source"]
    lines = [
        f"{source['form']} {source['given']}",
        f"{arch.family} {arch.head}, width {arch.width_multiplier:g}{', full tail' * arch.full_tail}, "
        f"{arch.num_classes} classes with background, input {height}x{width}, {arch.score_converter} scores",
        *([] if arch.resizer.plain else [f"images resized by {arch.resizer.text()}"]),
        f"{report['default_boxes']} default boxes on {maps}",
        f"NMS for each class: IoU {arch.nms.iou_threshold:g}, scores from {arch.nms.score_threshold:g}, "
        f"{arch.nms.max_per_class} a class, {arch.nms.max_total} in all",
        f"{report['tensors']['used']} tensors used, each once; "
        f"{report['files'][DEPLOY_WEIGHTS]['layers_filled']} layers filled, none left",
        *(f"note: {note}" for note in report["notes"]),
        f"in {out}: {', '.join(report['files'])}, {REPORT}",
    ]
    return "\n".join(lines)
