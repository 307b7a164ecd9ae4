"""Two paths given in each other's place: told at once, with what to type."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

MODEL, CONVERTED, WEIGHTS = "a model", "a converted model", "dumped weights"
DATA, IMAGES = "annotated data", "images"
PROTOTXT, CAFFEMODEL = "a prototxt", "a caffemodel"

_BY_SUFFIX = {
    ".pb": MODEL, ".tflite": MODEL, ".keras": MODEL, ".h5": MODEL, ".prototxt": PROTOTXT, ".caffemodel": CAFFEMODEL,
    ".json": DATA,
}  # fmt: skip
MODELS_AND_DATA = frozenset({MODEL, CONVERTED}), frozenset({DATA})
_MOST_FILES = 1000
"""Files of a folder that are looked at, at most, for an image."""


def refuse_swapped(command: str, first: Path, second: Path, kinds: tuple[frozenset[str], frozenset[str]]) -> None:
    """Refuse paths that are clearly in each other's place; anything else is left to the command.

    Args:
        command: what to type, with {first} and {second}.
        first: the path given first.
        second: the path given second.
        kinds: what `first` and `second` may be.

    Raises:
        ModelError: `first` is what `second` must be, and the other way round.
    """
    from ssdlite_caffe.errors import ModelError

    wanted_first, wanted_second = kinds
    one = set(_kinds(first))
    if one & wanted_first or not one & wanted_second:
        return  # without a look at the second, which may be a large folder
    other = set(_kinds(second))
    if other & wanted_first and not other & wanted_second:
        typed = command.format(first=shlex.quote(str(second)), second=shlex.quote(str(first)))
        raise ModelError(
            f"{first} is {min(one & wanted_second)} and {second} is {min(other & wanted_first)}: they are swapped; "
            f"type: ssdlite-caffe {typed}"
        )


def is_model_alone(path: Path) -> bool:
    """Whether a path is clearly a model, and not one that is converted."""
    kinds = set(_kinds(path))
    return MODEL in kinds and CONVERTED not in kinds


def refuse_swapped_images(data: Path, images: Path | None) -> None:
    """Refuse COCO's annotations and the folder of its images in each other's option.

    Raises:
        ModelError: they are.
    """
    if images is not None:
        refuse_swapped("... --data {first} --images {second}", data, images, (frozenset({DATA}), frozenset({IMAGES})))


def named_for_each_other(train: Path, test: Path) -> bool:
    """Whether the folder for training has the name of one for tests, and the other way round."""
    first, second = train.resolve().name.lower(), test.resolve().name.lower()
    return "train" not in first and any(word in first for word in ("test", "val")) and "train" in second


def _kinds(path: Path) -> Iterator[str]:
    """What a path may be; nothing if it is not recognised."""
    from ssdlite_caffe.dump.tf1.checkpoint import is_checkpoint
    from ssdlite_caffe.runtimes.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    if not path.is_dir():
        kind = _BY_SUFFIX.get(path.suffix.lower(), IMAGES if path.suffix.lower() in suffixes else "")
        if kind:
            yield kind
        elif is_checkpoint(path):
            yield MODEL
        return
    if (path / "deploy.prototxt").is_file() and (path / "report.json").is_file():
        yield CONVERTED
        return
    if (path / "manifest.json").is_file():
        yield WEIGHTS
        yield MODEL
    elif _is_model(path):
        yield MODEL
    if (path / "data.mdb").is_file() or any((path / name).is_dir() for name in ("JPEGImages", "Annotations")):
        yield DATA
    if any(Path(name).suffix.lower() in suffixes for name in _some_names(path)):
        yield IMAGES


def _is_model(folder: Path) -> bool:
    from ssdlite_caffe.dump.locate import all_of
    from ssdlite_caffe.errors import ModelError
    from ssdlite_caffe.runtimes.keras_file import keras_file

    try:
        return bool(all_of(folder)) or keras_file(folder) is not None
    except ModelError:  # several, of which none is named
        return True


def _some_names(folder: Path) -> Iterator[str]:
    """Names of files in a folder and in the folders in it, not all of a large one."""
    folders = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in itertools.islice(entries, _MOST_FILES):
            yield entry.name
            folders += [Path(entry.path)] if entry.is_dir() else []
    for inner in folders:
        with contextlib.suppress(OSError), os.scandir(inner) as entries:
            yield from (entry.name for entry in itertools.islice(entries, _MOST_FILES))
