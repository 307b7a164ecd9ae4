"""Which non-maximum suppression a converted detector has, where the model's files name more than one.

A graph exported for TensorFlow Lite ends in an operation whose fast form suppresses once over all boxes by their best
class: a shortcut of the phone's runtime, as the exporter's default has it, and not the model's own NMS. That one stands
in the pipeline.config.

Source: object_detection/export_tflite_ssd_graph.py (`use_regular_nms`);
tensorflow/lite/kernels/detection_postprocess.cc.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.dump.pipeline import Pipeline
from ssdlite_caffe.errors import ModelError

NmsChoice = Literal["auto", "graph", "config", "regular"]
"""auto: the graph's own, but for the fast form: the pipeline.config's, or without one as `regular`.
graph: the graph's own; refused where that is the fast form.
config: the pipeline.config's.
regular: the graph's thresholds and counts, with NMS for each class."""
_FIELDS = ("iou_threshold", "score_threshold", "max_per_class", "max_total")
_FAST = "TensorFlow Lite's fast NMS (one over all classes together)"


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The settings with a suppression.

    Attributes:
        settings: with all that is said of it.
        origin: file that it was taken from, and how; None where no file says anything.
        note: what a user should know, empty where the choice was none.
        from_config: it is the pipeline.config's.
    """

    settings: Settings
    origin: str | None
    note: str = ""
    from_config: bool = False


def choose_suppression(
    settings: Settings, pipeline: Pipeline | None, config: Path | None, choice: NmsChoice, *, source: str
) -> Chosen:
    """Settings with the suppression that is asked for.

    Args:
        settings: of the model's own file.
        pipeline: the pipeline.config, None where there is none.
        config: its path.
        choice: see NmsChoice.
        source: the model's file.

    Raises:
        ModelError: what was asked for is not there, or no Caffe net does it.
    """
    own = settings.tflite_nms
    fast = own is not None and not own.regular
    if choice == "graph" and fast:
        raise ModelError(
            f"{source} suppresses by {_FAST}, which no Caffe net does; take --nms regular (its thresholds, NMS for "
            "each class) or --nms config (the pipeline.config's)"
        )
    if choice == "config" and pipeline is None:
        raise ModelError(
            f"there is no pipeline.config beside {source} to take the suppression from; name it with --pipeline-config"
        )
    if pipeline is not None and (choice == "config" or (choice == "auto" and fast)):
        values = {name: getattr(pipeline.settings, name) for name in _FIELDS}
        unsupported = (*settings.unsupported, *pipeline.nms_unsupported)
        chosen = dataclasses.replace(settings, **values, unsupported=unsupported)
        reason = f", for each class; the graph's own is {_FAST}" if fast else " in place of the graph's own"
        note = f"NMS is that of {config}{reason}"
        return Chosen(chosen, str(config), note, from_config=True)
    if own is None:
        if settings.iou_threshold is None and choice != "auto":
            raise ModelError(
                f"{source} does not say how detections are suppressed, as --nms {choice} asks; take config or auto"
            )
        return Chosen(settings, source if settings.iou_threshold is not None else None)
    chosen = dataclasses.replace(
        settings,
        iou_threshold=own.iou_threshold,
        score_threshold=own.score_threshold,
        max_per_class=own.detections_per_class if own.regular else max(own.detections_per_class, own.max_detections),
        max_total=own.max_detections,
    )
    if not fast:
        return Chosen(chosen, source)
    note = (
        f"NMS is for each class, with the graph's own numbers: at most {own.max_detections} detections an image; the "
        f"graph itself does {_FAST}. For the NMS that the model was trained with give its pipeline.config"
    )
    return Chosen(chosen, f"{source}, for each class", note)
