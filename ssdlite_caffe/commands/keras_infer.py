"""Running a Keras or TensorFlow Lite model on images, folders and videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.commands.detection_output import Output, show
from ssdlite_caffe.errors import DatasetError, ImageError, ModelError, OutputError
from ssdlite_caffe.evaluation.coco_results import CocoIds, CocoResults
from ssdlite_caffe.files import refuse_existing, write_text
from ssdlite_caffe.keras.detectors import ForeignTflite, KerasRuntime, TfliteRuntime, open_tflite
from ssdlite_caffe.keras.store import load
from ssdlite_caffe.keras.tflite_file import has_description, read_description
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.detector import ImageResult, detect_with
from ssdlite_caffe.runtimes.images import Pixels, find_sources


def open_runtime(path: Path) -> KerasRuntime | TfliteRuntime | ForeignTflite:
    """The model of a file, by its suffix.

    Raises:
        ModelError: it cannot be read.
    """
    return open_tflite(path) if path.suffix == ".tflite" else KerasRuntime(load(path))


def labels_of(path: Path) -> LabelMap:
    """The classes of a file.

    Raises:
        ModelError: it cannot be read.
    """
    if path.suffix != ".tflite":
        return load(path).labels
    if path.is_file() and not has_description(path):
        raise ModelError(f"{path} does not say its class names; give --label-map")
    return read_description(path)[1].labels


def infer(
    model: Path,
    inputs: Sequence[Path],
    *,
    min_score: float = 0.3,
    out: Path | None = None,
    coco: Path | None = None,
    annotations: Path | None = None,
    output: Output = "table",
    force: bool = False,
) -> bool:
    """Detect, print, draw into the folder `out`, and write COCO's results into the file `coco`.

    Args:
        model: .keras, .weights.h5, .h5 or .tflite.
        inputs: images, folders and videos.
        min_score: detections below are left out.
        out: folder for images with boxes.
        coco: JSON file in COCO's result format, of images only.
        annotations: COCO's instances_*.json or image_info_*.json, which says the ids of images and categories; see
            `CocoIds`.
        output: what is printed.
        force: replace files.

    Returns:
        Whether an image could not be read.

    Raises:
        SsdliteError: the model cannot be read, or something cannot be written.
    """
    if coco is not None:
        refuse_existing(coco, force=force)
    runtime = open_runtime(model)
    ids = CocoIds(runtime.labels, annotations)
    numbers = {} if coco is None else image_ids(inputs, ids)
    if coco is not None and coco.resolve() in {path.resolve() for path in (model, annotations, *numbers) if path}:
        raise OutputError(f"{coco} is one of the inputs; give another name")
    names = runtime.labels.display_names
    results = CocoResults(ids.categories)
    images = 0

    def keep(one: ImageResult) -> None:
        nonlocal images
        if one.path in numbers:
            images += 1
            results.add(numbers[one.path], one.height, one.width, one.detections)

    def opened() -> Callable[[Pixels], Detections]:
        return runtime

    failed = show(
        lambda progress: detect_with(
            opened, names, inputs, min_score=min_score, out=out, force=force, progress=progress
        ),
        names, out=out, output=output, keep=keep,
    )  # fmt: skip
    if coco is not None and images:
        write_text(coco, results.to_json(), force=force)
        if output == "table":
            print(f"{len(results.found)} detections of {images} images are in {coco}")
    return failed


def image_ids(inputs: Sequence[Path], ids: CocoIds) -> dict[Path, int | str]:
    """What COCO's results call each image of the inputs; those that are not there are left out.

    Raises:
        DatasetError: one has no id, several have one, or it is a video.
    """
    found: dict[int | str, Path] = {}
    for source in find_sources(inputs):
        if isinstance(source, ImageError):
            continue
        if source.video:
            raise DatasetError(f"{source.path} is a video, which COCO's result format does not know")
        number = ids.image(source.path)
        if number in found:
            raise DatasetError(f"{source.path} and {found[number]} are one image to COCO, of the id {number}")
        found[number] = source.path
    return {path: number for number, path in found.items()}
