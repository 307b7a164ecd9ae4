"""A converted model: the folder that `convert`, `remap` and `merge-bn` write and the other commands read."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ssdlite_caffe.coco.label_map import LabelMap, check_classes, load_label_map
from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.dump.model import TfliteNms
from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.dump.suppression import NmsChoice
from ssdlite_caffe.dump.tf1.checkpoint import is_checkpoint
from ssdlite_caffe.errors import ArchError, ModelError, PrototxtError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect
from ssdlite_caffe.runtimes.folder_files import DEPLOY as DEPLOY
from ssdlite_caffe.runtimes.folder_files import DEPLOY_WEIGHTS as DEPLOY_WEIGHTS
from ssdlite_caffe.runtimes.folder_files import HEADLESS as HEADLESS
from ssdlite_caffe.runtimes.folder_files import LABEL_MAP as LABEL_MAP
from ssdlite_caffe.runtimes.folder_files import NEEDED as NEEDED
from ssdlite_caffe.runtimes.folder_files import PRIORS as PRIORS
from ssdlite_caffe.runtimes.folder_files import REPORT as REPORT
from ssdlite_caffe.runtimes.folder_files import TEST as TEST
from ssdlite_caffe.runtimes.folder_files import TRAIN as TRAIN
from ssdlite_caffe.runtimes.folder_files import TRAIN_WEIGHTS as TRAIN_WEIGHTS
from ssdlite_caffe.runtimes.folder_files import read_report, targets_of
from ssdlite_caffe.runtimes.keras_file import keras_file
from ssdlite_caffe.runtimes.loose_priors import WithPriors, deploy_net_of, read_priors
from ssdlite_caffe.runtimes.net import NetRuntime, RunningNet, open_net

DIALECT_KEYS = ("dialect", "spelling")
"""Keys of a prototxt's dialect in its entry in report.json: today's, and that of version 0.1."""

_BEFORE = {"input_form": "fields"}
"""Choices of prototxts whose report does not have them, where they were not the defaults of today."""


@dataclass(frozen=True)
class RecordedPath:
    """The place of a file that a folder was made from, so that it is found from any working directory.

    Attributes:
        path: absolute.
        relative: the same as seen from the folder, for when both have moved together; None on another drive.
    """

    path: Path
    relative: str | None

    @classmethod
    def at(cls, path: Path | str, folder: Path) -> RecordedPath:
        """The place to record of `path`, given as seen from the working directory, in the report of `folder`."""
        place = Path(os.path.normpath(Path(path).absolute()))
        try:
            relative: str | None = Path(os.path.relpath(place, folder.absolute())).as_posix()
        except ValueError:  # Windows: another drive
            relative = None
        return cls(place, relative)

    @classmethod
    def of(cls, path: object, relative: object) -> RecordedPath:
        """What a report says.

        Raises:
            TypeError: it is not text.
        """
        if not isinstance(path, str) or not isinstance(relative, str | None):
            raise TypeError(f"must be text, got {path!r} and {relative!r}")
        return cls(Path(path), relative)

    def found_from(self, folder: Path) -> Path | None:
        """Where it is now: where it was or, if nothing is there, as seen from the folder; None if it is in neither."""
        places = (self.path, *(() if self.relative is None else (Path(os.path.normpath(folder / self.relative)),)))
        return next((place for place in places if place.exists() or is_checkpoint(place)), None)


@dataclass(frozen=True)
class Source:
    """The model that a folder was converted from.

    Attributes:
        recorded: where it was then.
        path: where it is now; None if it is gone.
        form: the kind of file.
        sha256: hash of its files then, hex; empty in reports of early versions.
    """

    recorded: RecordedPath
    path: Path | None
    form: str
    sha256: str


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
        loose = (path / PRIORS).is_file()
        missing = [name for name in NEEDED if not (path / name).is_file() and not (loose and name == DEPLOY)]
        if len(missing) == len(NEEDED) and (kind := _model_kind(path)):
            raise PrototxtError(
                f"{path} is a {kind}, not a converted model; convert it first, type: ssdlite-caffe convert "
                f"{shlex.quote(str(path))} -o FOLDER"
            )
        if not path.is_dir():
            kind = "is a file" if path.exists() else "does not exist"
            raise PrototxtError(f"{path} {kind}; give a folder that `ssdlite-caffe convert` wrote")
        if missing:
            raise PrototxtError(
                f"{path} is not a converted model: {', '.join(missing)} missing; convert the model again"
            )
        report = read_report(path / REPORT)
        arch = ArchSpec.from_dict(report["arch"])
        labels = load_label_map(path / LABEL_MAP)
        check_classes(labels, arch.num_classes, str(path / LABEL_MAP))
        return cls(path, arch, labels, report)

    @property
    def reading(self) -> ReadOptions:
        """The options with which the source model was read; the defaults if the report has none.

        Raises:
            PrototxtError: the options in the report are not valid, or their pipeline.config is gone.
        """
        return self.reading_with(None)

    def reading_with(self, pipeline_config: Path | None) -> ReadOptions:
        """`reading`, with another pipeline.config unless that is None.

        Raises:
            PrototxtError: see `reading`; a pipeline.config that is not needed may be gone.
        """
        said = self.report.get("reading")
        if said is None:
            return ReadOptions(pipeline_config)
        try:
            config, nms, dequantize = said["pipeline_config"], said["nms"], said["dequantize"]
            if nms not in get_args(NmsChoice) or not isinstance(dequantize, bool):
                raise ValueError(f"nms {nms!r}, dequantize {dequantize!r}")
            recorded = None if config is None else RecordedPath.of(config, said.get("pipeline_config_relative"))
        except (KeyError, TypeError, ValueError) as error:
            raise PrototxtError(
                f"{self.path / REPORT}: the options under 'reading' are not valid: {error}; convert the model again"
            ) from error
        reading = ReadOptions(pipeline_config, nms, dequantize)
        if pipeline_config is not None or recorded is None:
            return reading
        found = recorded.found_from(self.path)
        if found is None:
            raise PrototxtError(
                f"the pipeline.config with which {self.path} was converted is gone from {recorded.path}; put it back, "
                "give it to verify with --pipeline-config, or convert the model again"
            )
        return replace(reading, pipeline_config=found)

    @property
    def source(self) -> Source | None:
        """The model that the folder was converted from; None if the report has none, as one of merge-bn has.

        Raises:
            PrototxtError: what the report says of it is not valid.
        """
        said = self.report.get("source")
        if said is None:
            return None
        try:
            recorded = RecordedPath.of(said["path"], said.get("relative"))
            sha256, form = said.get("sha256", ""), said.get("form", "model")
            if not isinstance(sha256, str) or not isinstance(form, str):
                raise TypeError(f"sha256 {sha256!r}, form {form!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise PrototxtError(
                f"{self.path / REPORT}: what is under 'source' is not valid: {error}; convert the model again"
            ) from error
        return Source(recorded, recorded.found_from(self.path), form, sha256)

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
            return Dialect(**{**_BEFORE, **entry[key]}), DataPaths(**entry.get("data", {}))
        except (TypeError, ArchError) as error:
            raise PrototxtError(
                f"{self.path / REPORT}: the dialect of {name} is not valid: {error}; convert the model again"
            ) from error

    @property
    def deploy_prototxt(self) -> Path:
        """The net with its DetectionOutput layer; a temporary one if the folder's default boxes are in a file."""
        return self._deploy()[0]

    @property
    def deploy_caffemodel(self) -> Path:
        """Weights of the deploy and the headless net; a temporary file, as `deploy_prototxt`."""
        return self._deploy()[1]

    def _deploy(self) -> tuple[Path, Path]:
        prototxt, weights = self.path / DEPLOY, self.path / DEPLOY_WEIGHTS
        if prototxt.is_file() or self.priors is None:
            return prototxt, weights
        written = self.written_as(HEADLESS)
        return deploy_net_of(self.arch, written[0] if written else Dialect(), self.priors, weights)

    @property
    def priors(self) -> Path | None:
        """The file of default boxes, if the headless net has none."""
        path = self.path / PRIORS
        return path if path.is_file() and not (self.path / DEPLOY).is_file() else None

    def open_headless(self, runtime: NetRuntime) -> RunningNet:
        """Load the headless net, which gives mbox_loc, mbox_conf and mbox_priorbox.

        Raises:
            SsdliteError: the runtime is not installed, or cannot load the net.
        """
        net = open_net(runtime, self.headless_prototxt, self.path / DEPLOY_WEIGHTS)
        if self.priors is None:
            return net
        return WithPriors(net, read_priors(self.priors, build(self.arch).num_default_boxes))

    @property
    def headless_prototxt(self) -> Path:
        """The net that ends at mbox_loc, mbox_conf and mbox_priorbox, which a folder may have in a file instead."""
        return self.path / HEADLESS


def _model_kind(path: Path) -> str:
    """The kind of a model that convert takes; empty if it is none, by its name where it is a file."""
    if keras_file(path) is not None:
        return "Keras model"
    if not path.is_dir() and path.suffix not in (".pb", ".tflite") and not is_checkpoint(path):
        return ""
    try:
        return locate(path).kind
    except ModelError:
        return ""


def without_targets(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a folder for one made of it, which has no folders of targets; a note says so."""
    rest = {key: value for key, value in report.items() if key not in ("targets", "target_notes")}
    names = list(targets_of(report))
    if names:
        note = f"the folders of targets ({', '.join(names)}) are not carried along; only `convert` writes them"
        rest["notes"] = [*rest.get("notes", ()), note]
    return rest
