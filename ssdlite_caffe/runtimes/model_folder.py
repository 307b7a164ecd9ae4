"""A converted model: the folder that `convert` and `remap` write and the other commands read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ssdlite_caffe.coco.label_map import LabelMap, check_classes, load_label_map
from ssdlite_caffe.dump.model import TfliteNms
from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.dump.suppression import NmsChoice
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.gen_model.arch import ArchSpec

REPORT = "report.json"
LABEL_MAP = "labelmap.prototxt"
NEEDED = ("deploy.prototxt", "deploy.caffemodel", "headless.prototxt", LABEL_MAP, REPORT)
"""Files that every converted folder holds; train and test files may be missing."""

_MAX_REPORT_BYTES = 64 << 20


@dataclass(frozen=True)
class ModelFolder:
    """The folder, checked on opening.

    Attributes:
        path: the folder.
        arch: the detector.
        labels: its classes, background first, as many as `arch.num_classes`.
        report: report.json.
    """

    path: Path
    arch: ArchSpec
    labels: LabelMap
    report: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Open a converted folder.

        Raises:
            PrototxtError: it is no folder, lacks a file, or its report cannot be read.
            ArchError: the report's architecture is not one.
            LabelMapError: the label map contradicts itself or the architecture.
        """
        if not path.is_dir():
            kind = "is a file" if path.exists() else "does not exist"
            raise PrototxtError(f"{path} {kind}; give a folder that `ssdlite-caffe convert` wrote")
        missing = [name for name in NEEDED if not (path / name).is_file()]
        if missing:
            raise PrototxtError(f"{path} is no converted model: it lacks {', '.join(missing)}; convert the model again")
        report = _read_report(path / REPORT)
        arch = ArchSpec.from_dict(report["arch"])
        labels = load_label_map(path / LABEL_MAP)
        check_classes(labels, arch.num_classes, str(path / LABEL_MAP))
        return cls(path, arch, labels, report)

    @property
    def reading(self) -> ReadOptions:
        """How the model was read that it was converted from; the usual way where the report does not say.

        Raises:
            PrototxtError: the report says something that is no such options.
        """
        said = self.report.get("reading")
        if said is None:
            return ReadOptions()
        try:
            config, nms, dequantize = said["pipeline_config"], said["nms"], said["dequantize"]
            if nms not in get_args(NmsChoice) or not isinstance(dequantize, bool):
                raise ValueError(f"nms {nms!r}, dequantize {dequantize!r}")
            return ReadOptions(None if config is None else Path(config), nms, dequantize)
        except (KeyError, TypeError, ValueError) as error:
            raise PrototxtError(f"{self.path / REPORT} does not say how the model was read: {error}") from error

    @property
    def tflite_nms(self) -> TfliteNms | None:
        """TensorFlow Lite's own suppression of the model that it was converted from; None where it has none.

        Raises:
            PrototxtError: the report says something that is no such options.
        """
        said = self.report.get("tflite_nms")
        try:
            return None if said is None else TfliteNms(**said)
        except TypeError as error:
            raise PrototxtError(f"{self.path / REPORT} has no options of TensorFlow Lite's NMS: {error}") from error

    @property
    def deploy_prototxt(self) -> Path:
        """The net with its DetectionOutput layer."""
        return self.path / "deploy.prototxt"

    @property
    def deploy_caffemodel(self) -> Path:
        """Weights of the deploy and the headless net."""
        return self.path / "deploy.caffemodel"

    @property
    def headless_prototxt(self) -> Path:
        """The net that ends at mbox_loc, mbox_conf and mbox_priorbox."""
        return self.path / "headless.prototxt"


def _read_report(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_REPORT_BYTES:
            raise PrototxtError(f"{path} is larger than {_MAX_REPORT_BYTES >> 20} MiB, which no report is")
        report = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PrototxtError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PrototxtError(f"{path} is not JSON: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("arch"), dict):
        raise PrototxtError(f"{path} holds no architecture (the key arch); convert the model again")
    return report
