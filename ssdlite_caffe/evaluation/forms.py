"""The forms of one detector that `evaluate` may run: which there are, and whether their files can be run at all."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path

from ssdlite_caffe.coco.label_map import LabelMap, check_classes
from ssdlite_caffe.dump.fingerprint import model_sha256
from ssdlite_caffe.dump.locate import all_of, locate
from ssdlite_caffe.dump.tf1.checkpoint import is_checkpoint
from ssdlite_caffe.errors import DatasetError, ModelError
from ssdlite_caffe.files import file_sha256
from ssdlite_caffe.runtimes.class_names import label_map_of
from ssdlite_caffe.runtimes.keras_file import keras_file
from ssdlite_caffe.runtimes.model_folder import REPORT, ModelFolder
from ssdlite_caffe.runtimes.net import NET_RUNTIMES
from ssdlite_caffe.runtimes.tensorflow_detector import check_runnable


@dataclass(frozen=True)
class ModelForms:
    """One detector in the forms that exist of it; None for a form that does not.

    Attributes:
        labels: its classes.
        folder: the folder that `convert` wrote.
        tensorflow: the TensorFlow model.
        keras: the Keras model.
        tflite: the TensorFlow Lite model.
        source: which of the last three is from the folder's report and not given by the user; it must be unchanged.
        lacks: why the model that the folder was converted from is not among them; empty if it is.
        score_threshold: least score of a detection in every runtime, 0 to 1; None: each form's own.
    """

    labels: LabelMap
    folder: ModelFolder | None = None
    tensorflow: Path | None = None
    keras: Path | None = None
    tflite: Path | None = None
    source: Path | None = None
    lacks: str = ""
    score_threshold: float | None = None

    @property
    def path(self) -> Path | None:
        """Path of the first form that exists: folder, Keras, TensorFlow Lite, TensorFlow."""
        forms = (self.folder.path if self.folder else None, self.keras, self.tflite, self.tensorflow)
        return next((path for path in forms if path is not None), None)


def open_model_forms(
    path: Path,
    *,
    tensorflow: Path | None = None,
    keras: Path | None = None,
    tflite: Path | None = None,
    label_map: str | None = None,
    score_threshold: float | None = None,
) -> ModelForms:
    """Find the forms of a detector.

    Args:
        path: a folder that `convert` wrote, or a TensorFlow, Keras or TensorFlow Lite model.
        tensorflow: the model that the folder was converted from; None: the path in the folder's report.
        keras: the same detector as a Keras model.
        tflite: the same detector as a TensorFlow Lite model.
        label_map: `coco`, `voc` or a file, in place of the model's class names. A TensorFlow model needs it, unless
            `keras export pb` wrote a label map beside it.
        score_threshold: see ModelForms.

    Raises:
        SsdliteError: `path` is none of these, or the label map does not fit.
    """
    if not path.exists() and not is_checkpoint(path):
        raise DatasetError(
            f"{path} does not exist; give a folder that `convert` wrote, or a TensorFlow, Keras or TFLite model"
        )
    labels, _ = label_map_of(path, label_map)
    keras = None if keras is None else keras_file(keras) or keras
    if tflite is not None and tflite.is_dir():
        tflite = next((o.path for o in all_of(tflite) if o.kind == "TensorFlow Lite"), tflite)
    if path.is_dir() and not (path / REPORT).is_file():
        with contextlib.suppress(ModelError):  # the checks below raise a better error
            located = locate(path)
            path = located.path if located.kind == "TensorFlow Lite" else path
    path = keras_file(path) or path
    kind = model_kind(path)
    if kind:
        from ssdlite_caffe.keras.detectors import labels_of

        if labels is not None and kind == "keras":
            check_classes(labels, len(labels_of(path)))
        keras, tflite = (path, tflite) if kind == "keras" else (keras, path)
        return ModelForms(labels or labels_of(path), None, tensorflow, keras, tflite, score_threshold=score_threshold)
    if not (path / REPORT).is_file():
        located = locate(path)
        if located.kind == "weights folder":
            raise ModelError(
                f"{path} holds dumped weights, which have no graph to run; give the model that they were taken from, "
                f"or convert them: ssdlite-caffe convert {shlex.quote(str(path))} -o FOLDER"
            )
        check_runnable(located)
        if labels is None:
            raise DatasetError(f"{path} is not a converted model, so its class names are not known; give --label-map")
        return ModelForms(labels, None, path, keras, tflite, score_threshold=score_threshold)
    folder = ModelFolder.open(path)
    if labels is not None:
        check_classes(labels, folder.arch.num_classes)
    found = ModelForms(labels or folder.labels, folder, tensorflow, keras, tflite, score_threshold=score_threshold)
    return found if tensorflow is not None else _with_source(found, folder)


def _with_source(forms: ModelForms, folder: ModelFolder) -> ModelForms:
    """The forms with the model that the folder was converted from, or why it is not there."""
    source = folder.source
    if source is None:
        return dataclasses.replace(
            forms, lacks=f"{folder.path} does not say which TensorFlow model it is from; give it with --tensorflow"
        )
    there = source.path
    if there is None:
        return dataclasses.replace(
            forms,
            lacks=f"the {source.form} that {folder.path} was converted from is gone from {source.recorded.path}; give "
            "its present place with --tensorflow",
        )
    kind = model_kind(there)
    if not kind:
        return dataclasses.replace(forms, tensorflow=there, source=there)
    lacks = f"{folder.path} was converted from {there}, which TensorFlow does not run; give a graph with --tensorflow"
    forms = dataclasses.replace(forms, lacks=lacks)
    if kind == "keras":
        return forms if forms.keras is not None else dataclasses.replace(forms, keras=there, source=there)
    return forms if forms.tflite is not None else dataclasses.replace(forms, tflite=there, source=there)


def model_kind(path: Path) -> str:
    """`keras` or `tflite`, by the suffix of the file; empty for any other."""
    return "keras" if path.name.endswith((".keras", ".h5")) else "tflite" if path.suffix == ".tflite" else ""


def check_form(model: ModelForms, runtime: str) -> None:
    """Refuse what a runtime cannot run, as far as the files show it, before anything is loaded.

    Raises:
        SsdliteError: there is no such form, or its file is gone, changed, damaged or of another kind.
    """
    if runtime in NET_RUNTIMES and model.folder is None:
        raise ModelError(
            f"{runtime} runs converted models, and {model.path} is not one; convert it first: ssdlite-caffe convert "
            f"{shlex.quote(str(model.path))} -o FOLDER"
        )
    forms = {
        "tensorflow": (model.tensorflow, "the path of the TensorFlow model is not known; give it with --tensorflow"),
        "keras": (model.keras, f"{model.path} is not a Keras model; give one with --keras (`keras import` writes it)"),
        "tflite": (
            model.tflite,
            f"{model.path} is not a TensorFlow Lite model; give one with --tflite (`keras export tflite` writes it)",
        ),
    }
    if runtime not in forms:
        return
    path, problem = forms[runtime]
    if path is None:
        raise ModelError(model.lacks if runtime == "tensorflow" and model.lacks else problem)
    if model.folder is not None and path == model.source:
        _check_unchanged(model.folder, path, runtime)
    if runtime == "tensorflow":
        check_runnable(locate(path))
    elif not path.is_file():
        raise ModelError(f"{path} is a folder, not a file" if path.is_dir() else f"{path} does not exist")


def _check_unchanged(folder: ModelFolder, path: Path, runtime: str) -> None:
    known = folder.source.sha256 if folder.source is not None else ""
    now = file_sha256(path) if runtime == "keras" else model_sha256(path)
    if known and now is not None and now != known:
        raise ModelError(
            f"{path} has changed since {folder.path} was converted from it; convert it again, or run it all the same "
            f"with --{runtime} {path}"
        )
