"""Running a Keras or TensorFlow Lite model on pictures, folders and videos, and COCO's result format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.errors import DatasetError
from ssdlite_caffe.files import refuse_existing, write_text
from ssdlite_caffe.keras.runtimes import KerasRuntime, TfliteRuntime
from ssdlite_caffe.keras.store import load
from ssdlite_caffe.keras.tflite_file import read_description
from ssdlite_caffe.tools.decode import Detections
from ssdlite_caffe.tools.detect import Output, show
from ssdlite_caffe.tools.detector import PictureResult, detect_with
from ssdlite_caffe.tools.pictures import Pixels

_MAX_ANNOTATIONS = 1 << 30


def open_runtime(path: Path) -> KerasRuntime | TfliteRuntime:
    """The model of a file, by its suffix.

    Raises:
        ModelError: it cannot be read.
    """
    return TfliteRuntime(path) if path.suffix == ".tflite" else KerasRuntime(load(path))


def labels_of(path: Path) -> LabelMap:
    """The classes of a file.

    Raises:
        ModelError: it cannot be read.
    """
    return read_description(path)[1].labels if path.suffix == ".tflite" else load(path).labels


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
        inputs: pictures, folders and videos.
        min_score: detections below are left out.
        out: folder for pictures with boxes.
        coco: JSON file in COCO's result format; see `coco_results`.
        annotations: COCO's instances_*.json, which says the ids of pictures and categories.
        output: what is printed.
        force: replace files.

    Returns:
        Whether a picture could not be read.

    Raises:
        SsdliteError: the model cannot be read, or something cannot be written.
    """
    if coco is not None:
        refuse_existing(coco, force=force)
    runtime = open_runtime(model)
    ids = None if annotations is None else ids_of(annotations, runtime.labels)
    names = runtime.labels.display_names
    kept: list[PictureResult] = []

    def opened() -> Callable[[Pixels], Detections]:
        return runtime

    failed = show(
        lambda progress: detect_with(
            opened, names, inputs, min_score=min_score, out=out, force=force, progress=progress
        ),
        names, out=out, output=output, keep=kept.append,
    )  # fmt: skip
    if coco is not None and kept:
        rows = coco_results(kept, ids)
        write_text(coco, json.dumps(rows) + "\n", force=force)
        if output == "table":
            print(f"{len(rows)} detections of {len(kept)} pictures are in {coco}")
    return failed


class Ids(NamedTuple):
    """What COCO's annotations call things.

    Attributes:
        images: file name -> image_id.
        categories: row of the label map -> category_id, for the classes that the annotations have too.
    """

    images: dict[str, int]
    categories: dict[int, int]


def coco_results(results: Sequence[PictureResult], ids: Ids | None = None) -> list[dict[str, Any]]:
    """Detections as COCO's evaluation reads them: image_id, category_id, bbox (x, y, width, height in pixels), score.

    Args:
        results: of pictures; frames of videos have no place in COCO's format.
        ids: of the annotations; detections of classes that they lack are left out. Without, a file name of digits alone
            is its id, as COCO names its pictures, any other stands for itself, and a category is its row.

    Raises:
        DatasetError: a picture has no id, or is a video's frame.
    """
    rows = []
    for result in results:
        if result.frame is not None:
            raise DatasetError(f"{result.path} is a video, which COCO's result format does not know")
        number: int | str
        if ids is None:
            number = int(result.path.stem) if result.path.stem.isdecimal() else result.path.stem
        elif result.path.name in ids.images:
            number = ids.images[result.path.name]
        else:
            raise DatasetError(f"{result.path} is none of the annotations' pictures")
        found = result.detections
        scale = (result.width, result.height, result.width, result.height)
        for label, score, box in zip(found.classes, found.scores, found.boxes, strict=True):
            if ids is not None and int(label) not in ids.categories:
                continue
            xmin, ymin, xmax, ymax = (float(v) * s for v, s in zip(box, scale, strict=True))
            rows.append(
                {
                    "image_id": number,
                    "category_id": int(label) if ids is None else ids.categories[int(label)],
                    "bbox": [round(v, 3) for v in (xmin, ymin, xmax - xmin, ymax - ymin)],
                    "score": round(float(score), 6),
                }
            )
    return rows


def ids_of(annotations: Path, labels: LabelMap) -> Ids:
    """The ids in COCO's instances_*.json of pictures, and of the classes of `labels`, found by name.

    Raises:
        DatasetError: it cannot be read, is no such file, or has none of the classes.
    """
    try:
        if annotations.stat().st_size > _MAX_ANNOTATIONS:
            raise DatasetError(f"{annotations} is larger than {_MAX_ANNOTATIONS >> 20} MiB")
        content = json.loads(annotations.read_text("utf-8"))
        images = {Path(image["file_name"]).name: int(image["id"]) for image in content["images"]}
        known = {str(category["name"]): int(category["id"]) for category in content["categories"]}
    except OSError as error:
        raise DatasetError(f"cannot read {annotations}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{annotations} is not COCO's instances_*.json: {type(error).__name__}: {error}") from error
    rows = {name: labels.find(name) for name in known}
    categories = {row: known[name] for name, row in rows.items() if row is not None}
    if not categories:
        names = ", ".join(list(known)[:6])
        raise DatasetError(f"none of the categories of {annotations} is a class of the model: {names}")
    return Ids(images, categories)
