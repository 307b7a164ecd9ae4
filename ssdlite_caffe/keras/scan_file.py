"""scan.npz in a training's folder: what was found in each image, so that the next start need not decode them all.

The file is only a help: one that is damaged, that another version wrote or that is of other data counts as missing.
Nothing in it is trusted before it is checked.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from ssdlite_caffe import __version__
from ssdlite_caffe.coco.label_map import Label, LabelMap
from ssdlite_caffe.data.annotations import Effect, Problem
from ssdlite_caffe.data.labelled_images import is_lmdb
from ssdlite_caffe.data.lmdb_store import DATA, LABEL_MAP
from ssdlite_caffe.data.voc_lists import ANNOTATIONS, IMAGES, SPLITS
from ssdlite_caffe.errors import SsdliteError, TrainingError
from ssdlite_caffe.files import write_bytes
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.keras.scan import Objects, ObjectTable, Scan, stamp_of

_FORMAT = 1
_SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "stamps": (np.int64, (2,)), "note_stamps": (np.int64, (2,)), "sizes": (np.int32, (2,)), "counts": (np.int32, ()),
    "boxes": (np.float32, (4,)), "labels": (np.int32, ()), "ignored": (np.bool_, ()),
}  # fmt: skip
"""Arrays of the file: dtype, and shape without the first axis."""
_TEXTS = ("names", "files", "notes")
"""Lists of texts, each as the UTF-8 bytes of all and their lengths."""

Key = dict[str, Any]
"""What a scan is of, plain values for JSON."""


@dataclass(frozen=True)
class KeptScan:
    """A scan from a file, and what it is of."""

    key: Key
    scan: Scan


def key_of(data: Path, split: str, images: Path | None, labels: LabelMap | None) -> Key:
    """What a scan is of: the places of the data, and the sizes and times of the files that list the images.

    Args:
        data: a folder in VOC's layout, COCO's instances_*.json, or an LMDB.
        split: of VOC data.
        images: folder of COCO's images.
        labels: the classes; None: those of the data.
    """
    if is_lmdb(data):
        lists = [data / DATA, data / LABEL_MAP]
    elif data.is_dir():
        lists = [data / SPLITS / f"{split}.txt", data / IMAGES, data / ANNOTATIONS]  # folders: a file more or fewer
    else:
        lists = [data]
    return {
        "data": str(data.absolute()),
        "split": split,
        "images": None if images is None else str(images.absolute()),
        "labels": None if labels is None else _plain(labels),
        "lists": [list(stamp_of(path)) for path in lists],
    }


def write_scan(path: Path, kept: KeptScan) -> None:
    """Write a scan.

    Raises:
        OutputError: it cannot be written.
    """
    scan = kept.scan
    header = {
        "version": _version(),
        "key": kept.key,
        "labels": _plain(scan.labels),
        "problems": [list(problem) for problem in scan.problems],
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        "header": _bytes(json.dumps(header)),
        "stamps": scan.stamps,
        "note_stamps": scan.note_stamps,
        "sizes": scan.sizes,
        "counts": scan.objects.counts,
        **scan.objects.all._asdict(),
    }
    for name in _TEXTS:
        texts = [_bytes(text) for text in getattr(scan, name)]
        arrays[name] = np.concatenate([np.zeros(0, np.uint8), *texts])
        arrays[f"{name}_lengths"] = np.array([len(text) for text in texts], np.int32)
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stubs take the names for allow_pickle
    write_bytes(path, stream.getvalue(), force=True)


def read_scan(path: Path) -> KeptScan | None:
    """Read a scan.

    Returns:
        None where there is none, or another version wrote it.

    Raises:
        TrainingError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["version"] != _version():
                return None
            return KeptScan(dict(header["key"]), _checked(header, {name: file[name] for name in file.files}))
    except SsdliteError as error:  # of a label map
        raise TrainingError(f"{path} is damaged: {error}") from error
    except Exception as error:  # numpy and zipfile raise exceptions of nearly any type for a damaged file
        raise TrainingError(f"{path} is damaged: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def _checked(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Scan:
    """The scan in a file's arrays.

    Raises:
        ValueError: they are not what `write_scan` writes.
    """
    for name, (dtype, shape) in _SHAPES.items():
        _require(arrays[name].dtype == dtype and arrays[name].shape[1:] == shape, name)
        _require(arrays[name].ndim == len(shape) + 1, name)
    labels = LabelMap(tuple(Label(i, name, shown) for i, (name, shown) in enumerate(header["labels"])))
    problems = tuple(Problem(str(where), str(what), effect) for where, what, effect in header["problems"])
    _require(all(problem.effect in get_args(Effect) for problem in problems), "problems")
    names, files, notes = (_texts(arrays[name], arrays[f"{name}_lengths"]) for name in _TEXTS)
    _require(all(_is_below(name) for name in (*files, *notes)), "files")
    sizes, counts = arrays["sizes"], arrays["counts"]
    usable = (sizes > 0).all(1)
    _require(len(sizes) == len(counts) == len(names) > 0, "names")
    _require(len(files) == len(arrays["stamps"]) and len(files) in (0, len(names)), "files")
    _require(len(notes) == len(arrays["note_stamps"]) and len(notes) in (0, len(names)), "notes")
    _require(bool((usable | (sizes == 0).all(1)).all() and (counts >= 0).all() and not counts[~usable].any()), "sizes")
    objects = Objects(arrays["boxes"], arrays["labels"], arrays["ignored"])
    _require({len(part) for part in objects} == {int(counts.sum(dtype=np.int64))}, "objects")
    boxes = objects.boxes
    inside = (boxes >= 0) & (boxes <= 1)  # false for NaN, too
    _require(bool(inside.all() and (boxes[:, :2] <= boxes[:, 2:]).all()), "boxes")
    _require(bool(((objects.labels > 0) & (objects.labels < len(labels))).all()), "labels")
    return Scan(
        labels,
        names,
        files,
        notes,
        arrays["stamps"],
        arrays["note_stamps"],
        sizes,
        ObjectTable(counts, objects),
        problems,
    )


def _require(right: bool, name: str) -> None:
    if not right:
        raise ValueError(f"its {name} are not what was written")


def _version() -> list[Any]:
    """Another version of this package or of OpenCV may read other images."""
    return [_FORMAT, __version__, import_opencv().__version__]


def _plain(labels: LabelMap) -> list[list[str]]:
    return [[entry.name, entry.display_name] for entry in labels.entries]


def _bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


def _texts(data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int32]) -> tuple[str, ...]:
    _require(data.dtype == np.uint8 and lengths.dtype == np.int32 and data.ndim == lengths.ndim == 1, "texts")
    ends = np.cumsum(lengths, dtype=np.int64)
    _require(bool((lengths >= 0).all()) and len(data) == (ends[-1] if len(ends) else 0), "texts")
    whole = data.tobytes()
    return tuple(
        whole[end - length : end].decode("utf-8", "surrogateescape")
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    )


def _is_below(name: str) -> bool:
    """Whether it is a path below a folder."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name
