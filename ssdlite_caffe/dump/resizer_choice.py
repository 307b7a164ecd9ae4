"""Which resizer a model has, where its graph, other graphs and a pipeline.config may say it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.pipeline.config import Pipeline
from ssdlite_caffe.dump.pipeline.resizer import refuse_resizer, resizer_text
from ssdlite_caffe.dump.tf1.checkpoint import meta_resizer
from ssdlite_caffe.resizer import Resizer


class ChosenResizer(NamedTuple):
    """The result of `choose_resizer`.

    Attributes:
        resizer: None if no file says it.
        origin: the file that it is from, or that none says it; None: the model's own.
        notes: sentences for the user.
    """

    resizer: Resizer | None
    origin: str | None = None
    notes: tuple[str, ...] = ()


def choose_resizer(
    model: DumpedModel,
    pipeline: Pipeline | None,
    config: Path | None,
    *,
    checkpoint: Path,
    lent: Iterable[tuple[Path, Resizer]],
) -> ChosenResizer:
    """The resizer of the model's own graph, else of another graph in its folder, else of its pipeline.config.

    Args:
        model: as read, before anything was taken from other files.
        pipeline: content of its pipeline.config.
        config: that file.
        checkpoint: prefix, if the model is a checkpoint, whose resizer is its pipeline.config's.
        lent: files of the folder and their resizers, best first.

    Raises:
        ModelError: only the pipeline.config says how images are resized, and they cannot be resized so here.
    """
    own = model.settings.resizer
    if model.form == "checkpoint":
        return _of_checkpoint(own, checkpoint, config)
    if own is not None:
        refused = "" if pipeline is None else pipeline.refused_resizer
        note = f"{model.source} and {config} differ, the former is used: resizer {own.text()}, not {refused}"
        return ChosenResizer(own, notes=(note,) if refused else ())
    for path, resizer in lent:
        return ChosenResizer(resizer, str(path))
    if pipeline is not None and config is not None:
        refuse_resizer(pipeline.refused_resizer, config)
        # A config for another input size is not that of this model; its difference is noted.
        if model.settings.input_size in (None, pipeline.settings.input_size):
            return ChosenResizer(pipeline.settings.resizer, str(config), _order(pipeline.settings.resizer, config))
    return ChosenResizer(None, "bilinear to the input size, as usual: no file says how images are resized")


def _of_checkpoint(resizer: Resizer | None, prefix: Path, config: Path | None) -> ChosenResizer:
    """The pipeline.config's resizer, with what the graph beside the checkpoint says of it."""
    graph = meta_resizer(prefix)
    ours, theirs = resizer_text(resizer), resizer_text(graph)
    if graph is not None and ours == theirs:
        return ChosenResizer(graph, str(config))
    notes = _order(resizer, config)
    if graph is not None:
        notes = (f"{config} and {prefix}.meta differ, the former is used: resizer {ours}, not {theirs}", *notes)
    return ChosenResizer(resizer, str(config), notes)


def _order(resizer: Resizer | None, config: Path | None) -> tuple[str, ...]:
    if resizer is None or not resizer.letterboxes:
        return ()
    return (
        f"{config} does not say whether pixels are normalised before or after images are padded; before, as the "
        "Object Detection API's last versions do; a frozen graph would say it",
    )
