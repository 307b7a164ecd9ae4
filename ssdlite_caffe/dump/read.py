"""`read_model`: reading a detector from any kind of file or folder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ssdlite_caffe.dump.detector.take_apart import take_apart
from ssdlite_caffe.dump.locate import Kind, Located, locate
from ssdlite_caffe.dump.model import DumpedModel, Settings
from ssdlite_caffe.dump.model_bytes import read_bytes, sha256
from ssdlite_caffe.dump.suppression import NmsChoice, choose_suppression
from ssdlite_caffe.dump.tf1.frozen import graph_of, parse_graph_def
from ssdlite_caffe.errors import ModelError, SsdliteError
from ssdlite_caffe.resizer import Resizer

if TYPE_CHECKING:
    from ssdlite_caffe.dump.pipeline.config import Pipeline

_LENT = {
    "default boxes": ("default_boxes", "box_coder_scales", "box_rounding"),
    "score converter": ("score_converter", "logit_scale"),
    "input size": ("input_size",),
    "preprocessing": ("pixel_scale", "pixel_offset"),
}
"""Name -> settings that may be taken, together, from a folder's other files if the file that is read lacks them."""


@dataclass(frozen=True)
class ReadOptions:
    """How a model is read.

    Attributes:
        pipeline_config: a pipeline.config to use instead of the one beside the model.
        nms: see `suppression.NmsChoice`.
        dequantize: use the dequantised weights of a quantised TensorFlow Lite model.
    """

    pipeline_config: Path | None = None
    nms: NmsChoice = "auto"
    dequantize: bool = False

    def __post_init__(self) -> None:
        """Check the choice.

        Raises:
            ModelError: there is no such choice of nms.
        """
        if self.nms not in get_args(NmsChoice):
            raise ModelError(f"nms must be one of {', '.join(get_args(NmsChoice))}, got {self.nms!r}")


def read_model(path: Path | str, options: ReadOptions | None = None) -> DumpedModel:
    """Read a detector from a frozen graph, TF1 checkpoint, SavedModel, TensorFlow Lite file or dumped weights folder.

    `locate` says which file of a folder is read. Settings that it does not have are taken from the pipeline.config, the
    given one or the one beside it, and then from the folder's other files.

    Args:
        path: a file or folder, or the prefix of a checkpoint.
        options: see ReadOptions.

    Raises:
        ModelError: `path` is something else, is damaged, or is not an SSD MobileNet; or it contradicts the
            pipeline.config that settings are taken from.
        TensorError: a weight is NaN or Inf, or a weights folder does not match its manifest.
        MissingRuntimeError: TensorFlow is needed and not installed.
    """
    options = options or ReadOptions()
    found = locate(path)
    model = _read(found, options)
    if model.form == "weights folder":
        return _with_given_config(model, options)
    return _completed(model, found, options)


def _read(found: Located, options: ReadOptions) -> DumpedModel:
    """The model with the settings of its own file; a checkpoint has those of its pipeline.config."""
    readers: Mapping[Kind, Callable[[], DumpedModel]] = {
        "weights folder": lambda: _weights_folder(found.path),
        "SavedModel": lambda: _saved_model(found.path),
        "frozen graph": lambda: _frozen_graph(found.path),
        "checkpoint": lambda: _checkpoint(found.path, options.pipeline_config),
        "TensorFlow Lite": lambda: _tflite(found.path, options.dequantize),
    }
    return readers[found.kind]()


def _weights_folder(path: Path) -> DumpedModel:
    from ssdlite_caffe.dump.store import read_folder

    return read_folder(path)


def _saved_model(path: Path) -> DumpedModel:
    from ssdlite_caffe.dump.tf1.saved_model import read_saved_model

    return read_saved_model(path)


def _checkpoint(path: Path, config: Path | None) -> DumpedModel:
    from ssdlite_caffe.dump.tf1.checkpoint import read_checkpoint

    return read_checkpoint(path, pipeline_config=config)


def _tflite(path: Path, dequantize: bool) -> DumpedModel:
    from ssdlite_caffe.dump.tflite.read import read_tflite_model

    return read_tflite_model(path, dequantize=dequantize)


def _frozen_graph(path: Path) -> DumpedModel:
    data = read_bytes(path)
    digest = sha256(data)
    graph = graph_of(parse_graph_def(data, path), path)
    del data  # as large as the weights
    units, settings, skipped, notes = take_apart(graph)
    return DumpedModel(str(path), "frozen graph", digest, units.tensors, units.units, settings, skipped, notes=notes)


def _with_given_config(model: DumpedModel, options: ReadOptions) -> DumpedModel:
    """A weights folder's model, with settings that it does not have from the given pipeline.config.

    Raises:
        ModelError: an NMS is chosen; this is possible only when weights are dumped.
    """
    if options.nms != "auto":
        raise ModelError(
            f"{model.source} is a folder of dumped weights, whose NMS was chosen by `dump`; give --nms to `dump`"
        )
    if options.pipeline_config is None:
        return model
    from ssdlite_caffe.dump.pipeline.config import fill_gaps, read_pipeline
    from ssdlite_caffe.dump.pipeline.resizer import refuse_resizer

    config = options.pipeline_config
    pipeline = read_pipeline(config)
    if model.settings.resizer is None:
        refuse_resizer(pipeline.refused_resizer, config)
    settings = fill_gaps(model.settings, pipeline.settings, source=model.source, config=str(config))
    return dataclasses.replace(model, settings=settings)


def _completed(model: DumpedModel, found: Located, options: ReadOptions) -> DumpedModel:
    from ssdlite_caffe.dump.pipeline.config import contradictions, fill_gaps
    from ssdlite_caffe.dump.resizer_choice import choose_resizer

    config, pipeline, unread = _config(found, options)
    settings, origins = model.settings, {"weights": model.source, **model.origins}
    lender = _suppression_lender(settings, found, options)
    if lender is not None:
        settings = dataclasses.replace(settings, tflite_nms=lender.settings.tflite_nms)
    source = model.source if lender is None else lender.source
    chosen = choose_suppression(settings, pipeline, config, options.nms, source=source)
    settings = chosen.settings
    twice = "" if pipeline is None else pipeline.twice
    notes = [*(note for note in (found.note, *model.notes, chosen.note, unread, twice) if note)]
    if chosen.origin is not None:
        origins["suppression"] = chosen.origin
    if pipeline is not None and model.form != "checkpoint":
        differences = contradictions(settings, pipeline.settings)
        gaps = _gaps(settings)
        if options.pipeline_config is not None or chosen.from_config or gaps:
            settings = fill_gaps(settings, pipeline.settings, source=model.source, config=str(config))
            origins.update({what: str(config) for what in gaps})
        if differences:
            notes.append(f"{model.source} and {config} differ, the former is used: {'; '.join(differences)}")
    resized = choose_resizer(
        model, pipeline, config, checkpoint=found.path, lent=_lent_resizers(settings, found, options)
    )
    settings = dataclasses.replace(settings, resizer=resized.resizer)
    notes += resized.notes
    if resized.origin is not None:
        origins["resizer"] = resized.origin
    if settings.iou_threshold is None and model.form != "checkpoint":
        notes.append("no file has settings of NMS; the Object Detection API's usual ones are used")
    for other in found.others:
        settings, lent = _borrowed(settings, other, options)
        origins.update({what: str(other.path) for what in lent})
    if unread and (gaps := _gaps(settings)):
        raise ModelError(f"{model.source} does not say its {', '.join(gaps)}, and {unread}")
    if options.dequantize and not model.inexact:
        notes.append("--dequantize has no effect: this is not a quantised TensorFlow Lite file")
    if settings.pixel_scale is None:
        origins["preprocessing"] = "2/255 x - 1, the family's: the model has a normalised float input or does not say"
    return dataclasses.replace(model, settings=settings, origins=origins, notes=tuple(notes))


def _lent_resizers(settings: Settings, found: Located, options: ReadOptions) -> Iterator[tuple[Path, Resizer]]:
    """The resizers of the folder's other files, read only when they are asked for."""
    for other in found.others:
        lender = _lender(settings, other, options)
        if lender is not None and lender.settings.resizer is not None:
            yield other.path, lender.settings.resizer


def _suppression_lender(settings: Settings, found: Located, options: ReadOptions) -> DumpedModel | None:
    """Another model of the folder that has settings of NMS, if the model that is read has none."""
    if settings.iou_threshold is not None or settings.tflite_nms is not None or found.kind == "checkpoint":
        return None
    models = (_lender(settings, other, options) for other in found.others)
    return next((model for model in models if model is not None and model.settings.tflite_nms is not None), None)


def _lender(settings: Settings, other: Located, options: ReadOptions) -> DumpedModel | None:
    """The model of another file of the folder, if it is a detector with the same class count and input size."""
    model: DumpedModel | None = None
    if other.kind in ("frozen graph", "TensorFlow Lite"):
        with contextlib.suppress(SsdliteError):
            model = _read(other, options)
    if model is None or model.settings.num_classes != settings.num_classes:
        return None
    sizes = {size for size in (model.settings.input_size, settings.input_size) if size is not None}
    return model if len(sizes) < 2 else None


def _config(found: Located, options: ReadOptions) -> tuple[Path | None, Pipeline | None, str]:
    """The path and content of the pipeline.config to use; a note if the one beside the model cannot be read."""
    from ssdlite_caffe.dump.pipeline.config import read_pipeline

    if options.pipeline_config is not None:
        return options.pipeline_config, read_pipeline(options.pipeline_config), ""
    if found.config is None:
        return None, None, ""
    try:
        return found.config, read_pipeline(found.config), ""
    except ModelError as error:
        return None, None, f"the pipeline.config beside it is skipped: {error}"


def _gaps(settings: Settings) -> list[str]:
    """The settings that a model does not have and a pipeline.config may have."""
    gaps = [what for what, names in _LENT.items() if what != "preprocessing" and _lacks(settings, names)]
    return [*gaps, *(["suppression"] if settings.iou_threshold is None else [])]


def _lacks(settings: Settings, names: tuple[str, ...]) -> bool:
    if names[0] == "default_boxes" and settings.anchors is not None and settings.box_coder_scales is not None:
        return False  # boxes are computed from the pipeline.config's anchors
    return any(getattr(settings, name) is None for name in names)


def _borrowed(settings: Settings, other: Located, options: ReadOptions) -> tuple[Settings, list[str]]:
    """Settings with those that only another file of the folder has, and the names of what was taken."""
    wanted = {what: names for what, names in _LENT.items() if _lacks(settings, names)}
    if not any(what in wanted for what in ("default boxes", "score converter", "input size")):
        return settings, []
    lender = _lender(settings, other, options)
    if lender is None:
        return settings, []
    theirs = lender.settings
    taken = {what: names for what, names in wanted.items() if not _lacks(theirs, names)}
    values = {name: getattr(theirs, name) for names in taken.values() for name in names}
    return dataclasses.replace(settings, **values), list(taken)
