"""Choosing the NMS of a converted detector, if the model's files have more than one.

A graph exported for TensorFlow Lite ends in an operation with two forms. Its fast form, the exporter's default, does
one NMS over all boxes by their best class, to save time on phones. It is not the NMS that the model was trained with,
which is in the pipeline.config.

Source: object_detection/export_tflite_ssd_graph.py (`use_regular_nms`);
tensorflow/lite/kernels/detection_postprocess.cc.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from ssdlite_caffe.dump.model import Settings
from ssdlite_caffe.dump.pipeline.config import Pipeline
from ssdlite_caffe.errors import ModelError

NmsChoice = Literal["auto", "graph", "config", "regular"]
"""auto: the graph's NMS; if that is the fast form, the pipeline.config's, and if there is none, as `regular`.
graph: the graph's NMS; an error if that is the fast form.
config: the pipeline.config's NMS.
regular: the graph's thresholds and counts, with NMS for each class."""
_FIELDS = ("iou_threshold", "score_threshold", "max_per_class", "max_total")
_FAST = "TensorFlow Lite's fast NMS (one over all classes together)"


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Settings with the chosen NMS.

    Attributes:
        settings: the settings.
        origin: the file that the NMS is from, and how; None if no file has one.
        note: a sentence for the user; empty if there was nothing to choose.
        from_config: whether it is the pipeline.config's.
    """

    settings: Settings
    origin: str | None
    note: str = ""
    from_config: bool = False


def choose_suppression(
    settings: Settings, pipeline: Pipeline | None, config: Path | None, choice: NmsChoice, *, source: str
) -> Chosen:
    """Settings with the NMS of `choice`.

    Args:
        settings: of the model's own file.
        pipeline: the pipeline.config, None if there is none.
        config: its path.
        choice: see NmsChoice.
        source: the model's file.

    Raises:
        ModelError: the chosen NMS is in no file, or a Caffe net cannot do it.
    """
    own = settings.tflite_nms
    fast = own is not None and not own.regular
    if choice == "graph" and fast:
        raise ModelError(
            f"{source} has {_FAST}, which a Caffe net cannot do; give --nms regular (the same thresholds, NMS for each "
            "class) or --nms config (the pipeline.config's)"
        )
    if choice == "config" and pipeline is None:
        raise ModelError(
            f"--nms config needs a pipeline.config, and there is none beside {source}; give it with --pipeline-config"
        )
    if pipeline is not None and (choice == "config" or (choice == "auto" and fast)):
        values = {name: getattr(pipeline.settings, name) for name in _FIELDS}
        unsupported = (*settings.unsupported, *pipeline.nms_unsupported)
        chosen = dataclasses.replace(settings, **values, unsupported=unsupported)
        reason = f" (for each class); the graph has {_FAST}" if fast else ", not the graph's own"
        note = f"NMS is that of {config}{reason}"
        return Chosen(chosen, str(config), note, from_config=True)
    if own is None:
        if settings.iou_threshold is None and choice != "auto":
            raise ModelError(
                f"--nms {choice} needs NMS settings in {source}, and there are none; give --nms config or auto"
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
        f"NMS is for each class, with the graph's numbers (at most {own.max_detections} detections per image); the "
        f"graph has {_FAST}. For the NMS that the model was trained with, give its pipeline.config"
    )
    return Chosen(chosen, f"{source}, for each class", note)
