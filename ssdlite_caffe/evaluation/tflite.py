"""`keras export tflite`: write a TensorFlow Lite file, and measure how much average precision its dtype costs."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe.data.labelled_images import LabelledImages, open_images
from ssdlite_caffe.errors import ImageError, OutputError
from ssdlite_caffe.evaluation.evaluate import Evaluation, evaluate
from ssdlite_caffe.evaluation.forms import ModelForms
from ssdlite_caffe.files import refuse_existing, write_bytes
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.keras.export_tflite import Dtype, Inputs, NetworkInput, Outputs, tflite_model
from ssdlite_caffe.keras.model import KerasModel, with_threshold
from ssdlite_caffe.keras.store import description_of, load, save
from ssdlite_caffe.runtimes.images import Source, find_sources, read_image
from ssdlite_caffe.runtimes.resize import input_of, pixels_of
from ssdlite_caffe.terminal import size_text

Steps = Callable[[int, int], None]


@dataclass(frozen=True)
class TestData:
    """Annotated images to measure on; see `labelled_images.open_images`."""

    data: Path
    split: str = "test"
    images: Path | None = None
    limit: int | None = None


@dataclass(frozen=True)
class TfliteOptions:
    """Options of the export; see also `export_tflite.tflite_model`.

    Attributes:
        calibrate: images, or folders of them, for int8.
        calibration_count: largest number of these images to use, evenly spread.
        score_threshold: 0 to 1, in place of the model's own.
    """

    inputs: Inputs = "pixels"
    outputs: Outputs = "detections"
    dtype: Dtype = "float32"
    calibrate: tuple[Path, ...] = ()
    calibration_count: int = 100
    score_threshold: float | None = None


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        size: of the file, in bytes.
        calibration: number of calibration images used.
        evaluation: of the Keras and the TensorFlow Lite model on the same images; None if none were given.
    """

    arch: ArchSpec
    options: TfliteOptions
    size: int
    calibration: int
    evaluation: Evaluation | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "arch": self.arch.to_dict(),
            "inputs": self.options.inputs,
            "outputs": self.options.outputs,
            "dtype": self.options.dtype,
            "bytes": self.size,
            "calibration_images": self.calibration,
            "evaluation": self.evaluation and {**self.evaluation.to_dict(), "loss": self.loss},
        }

    @property
    def loss(self) -> dict[str, float]:
        """By how much the average precision is lower than that of the Keras model."""
        if self.evaluation is None:
            return {}
        keras, tflite = self.evaluation.scores
        return {key: getattr(keras, key) - getattr(tflite, key) for key in ("ap", "ap50")}


def export_tflite(
    model: Path,
    out: Path,
    options: TfliteOptions,
    *,
    test: TestData | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    steps: Steps = lambda done, total: None,
) -> Exported:
    """Write a Keras model as a TensorFlow Lite file, and evaluate both if `test` is given.

    Args:
        model: the Keras file.
        out: the TensorFlow Lite file to write.
        options: of the export.
        test: annotated images to evaluate the Keras and the TensorFlow Lite model on.
        force: replace `out`.
        progress: called with a text when the next step begins.
        steps: called with the number of images evaluated and the total.

    Raises:
        SsdliteError: a file cannot be read or written, or the model cannot be converted to TensorFlow Lite.
    """
    if out.suffix != ".tflite":
        raise OutputError(f"the name of a TensorFlow Lite model must end in .tflite, got {out}")
    refuse_existing(out, force=force)
    progress(f"reading {model}")
    labels = description_of(model)[1]
    images = None if test is None else open_images(test.data, labels, split=test.split, images=test.images)
    calibration = calibration_files(options) if options.dtype == "int8" else []
    detector = load(model)
    if options.score_threshold is not None:
        detector = with_threshold(detector, options.score_threshold)
    progress("converting")
    data = tflite_model(
        detector,
        inputs=options.inputs,
        outputs=options.outputs,
        dtype=options.dtype,
        calibration=calibration_inputs(calibration, options.inputs, detector.arch),
    )
    write_bytes(out, data, force=force)
    result = None
    if test is not None and images is not None:
        progress("measuring")
        result = _measured(detector, out, images, test, steps)
        keras, tflite = result.scores  # the Keras model ran from a copy that is gone
        result = dataclasses.replace(
            result, model=str(model), scores=(dataclasses.replace(keras, path=str(model)), tflite)
        )
    return Exported(detector.arch, options, len(data), len(calibration), result)


def calibration_files(options: TfliteOptions) -> list[Path]:
    """The images for the calibration, evenly spread over those given.

    Raises:
        ImageError: there are none, or an input does not exist.
    """
    found = find_sources(options.calibrate)
    wrong = next((source for source in found if isinstance(source, ImageError)), None)
    if wrong is not None:
        raise wrong
    paths = [source.path for source in found if isinstance(source, Source) and not source.video]
    if not paths:
        raise ImageError("int8 needs images to calibrate the value ranges; give a folder of images with --calibrate")
    step = max(1.0, len(paths) / options.calibration_count)
    return [paths[int(i * step)] for i in range(min(len(paths), options.calibration_count))]


def calibration_inputs(paths: list[Path], inputs: Inputs, arch: ArchSpec) -> Iterator[NetworkInput]:
    """The model's input for each image.

    Raises:
        ImageError: an image cannot be read.
    """
    for path in paths:
        shown = read_image(path)[..., ::-1]
        if inputs == "network":
            yield input_of(arch, shown)
        else:
            yield np.rint(pixels_of(arch, shown)[None])


def _measured(detector: KerasModel, out: Path, images: LabelledImages, test: TestData, steps: Steps) -> Evaluation:
    with tempfile.TemporaryDirectory() as folder:
        same = Path(folder) / "model.keras"  # with the score threshold of what was exported
        save(detector.rebuilt(), same)
        evaluated = ModelForms(detector.labels, keras=same, tflite=out)
        return evaluate(evaluated, images, ["keras", "tflite"], data=str(test.data), limit=test.limit, progress=steps)


def export_summary(exported: Exported, out: Path) -> str:
    """The result in a few lines of text."""
    lines = [
        f"{size_text(exported.size)} are in {out}: {exported.options.dtype}, reads {exported.options.inputs}, "
        f"gives {exported.options.outputs}"
    ]
    if exported.calibration:
        lines.append(f"calibrated with {exported.calibration} images")
    lines += [f"{key.upper()} lost: {value:+.4f}" for key, value in exported.loss.items()]
    return "\n".join(lines)
