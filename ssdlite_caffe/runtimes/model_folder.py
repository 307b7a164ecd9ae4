"""A converted model: the folder that `convert`, `remap` and `merge-bn` write and the other commands read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ssdlite_caffe.coco.label_map import LabelMap, check_classes, load_label_map
from ssdlite_caffe.dump.model import TfliteNms
from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.dump.suppression import NmsChoice
from ssdlite_caffe.errors import ArchError, PrototxtError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect
from ssdlite_caffe.terminal import size_text

DEPLOY, HEADLESS, TRAIN, TEST = "deploy.prototxt", "headless.prototxt", "train.prototxt", "test.prototxt"
DEPLOY_WEIGHTS, TRAIN_WEIGHTS = "deploy.caffemodel", "train.caffemodel"
"""Weights of the deploy and headless nets, and of the train and test nets."""
LABEL_MAP, REPORT = "labelmap.prototxt", "report.json"
NEEDED = (DEPLOY, DEPLOY_WEIGHTS, HEADLESS, LABEL_MAP, REPORT)
"""Files of every converted folder; those of the train and test nets may be missing."""

DIALECT_KEYS = ("dialect", "spelling")
"""Keys of a prototxt's dialect in its entry in report.json: today's, and that of version 0.1."""

_MAX_REPORT_BYTES = 64 << 20


@dataclass(frozen=True)
class ModelFolder:
    """A converted model, whose files have been checked.

    Attributes:
        path: the folder.
        arch: the detector's architecture.
        labels: the classes, background first, `arch.num_classes` in all.
        report: content of report.json.
    """

    path: Path
    arch: ArchSpec
    labels: LabelMap
    report: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Open a converted folder.

        Raises:
            PrototxtError: it is not a folder, a file is missing, or report.json cannot be read.
            ArchError: the architecture in report.json is not valid.
            LabelMapError: the label map contradicts itself or the architecture.
        """
        if not path.is_dir():
            kind = "is a file" if path.exists() else "does not exist"
            raise PrototxtError(f"{path} {kind}; give a folder that `ssdlite-caffe convert` wrote")
        missing = [name for name in NEEDED if not (path / name).is_file()]
        if missing:
            raise PrototxtError(
                f"{path} is not a converted model: {', '.join(missing)} missing; convert the model again"
            )
        report = _read_report(path / REPORT)
        arch = ArchSpec.from_dict(report["arch"])
        labels = load_label_map(path / LABEL_MAP)
        check_classes(labels, arch.num_classes, str(path / LABEL_MAP))
        return cls(path, arch, labels, report)

    @property
    def reading(self) -> ReadOptions:
        """The options with which the source model was read; the defaults if the report has none.

        Raises:
            PrototxtError: the options in the report are not valid.
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
            raise PrototxtError(
                f"{self.path / REPORT}: the options under 'reading' are not valid: {error}; convert the model again"
            ) from error

    @property
    def tflite_nms(self) -> TfliteNms | None:
        """Options of TensorFlow Lite's own NMS in the source model; None if it has none.

        Raises:
            PrototxtError: the options in the report are not valid.
        """
        said = self.report.get("tflite_nms")
        try:
            return None if said is None else TfliteNms(**said)
        except TypeError as error:
            raise PrototxtError(
                f"{self.path / REPORT}: the options under 'tflite_nms' are not valid: {error}; convert the model again"
            ) from error

    def written_as(self, name: str) -> tuple[Dialect, DataPaths] | None:
        """Dialect and data paths of a prototxt of the folder; None if the report does not have them.

        Raises:
            PrototxtError: they are not valid.
        """
        files = self.report.get("files")
        entry = files.get(name) if isinstance(files, dict) else None
        key = next((key for key in DIALECT_KEYS if isinstance(entry, dict) and key in entry), None)
        if entry is None or key is None:
            return None
        try:
            return Dialect(**entry[key]), DataPaths(**entry.get("data", {}))
        except (TypeError, ArchError) as error:
            raise PrototxtError(
                f"{self.path / REPORT}: the dialect of {name} is not valid: {error}; convert the model again"
            ) from error

    @property
    def deploy_prototxt(self) -> Path:
        """The net with its DetectionOutput layer."""
        return self.path / DEPLOY

    @property
    def deploy_caffemodel(self) -> Path:
        """Weights of the deploy and the headless net."""
        return self.path / DEPLOY_WEIGHTS

    @property
    def headless_prototxt(self) -> Path:
        """The net that ends at mbox_loc, mbox_conf and mbox_priorbox."""
        return self.path / HEADLESS


def _read_report(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_REPORT_BYTES:
            raise PrototxtError(f"{path} is larger than {size_text(_MAX_REPORT_BYTES)}, the limit for a report")
        report = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PrototxtError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PrototxtError(f"{path} is not JSON: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("arch"), dict):
        raise PrototxtError(f"{path} has no architecture under the key 'arch'; convert the model again")
    return report
