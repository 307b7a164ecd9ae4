"""The class names of a model: given, beside a frozen graph (`keras export pb`), or in a TensorFlow Lite file."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from pathlib import Path

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map, parse_label_map
from ssdlite_caffe.dump.locate import TFLITE_SUFFIX, frozen_graph_of
from ssdlite_caffe.errors import LabelMapError

_ASSOCIATED = ("labelmap.txt", "labels.txt", "label_map.txt")
_MAX_BYTES = 1 << 22


def beside(graph: Path) -> Path:
    """Where the class names of a frozen graph lie."""
    return graph.parent / f"{graph.stem}.labelmap.prototxt"


def _names_inside(model: Path) -> tuple[LabelMap | None, str]:
    """The class names in the archive behind a TensorFlow Lite file, where its metadata keeps associated files.

    The lists of TensorFlow's own models begin with `???` for background.

    Raises:
        LabelMapError: there is a list, and it cannot be read.
    """
    try:
        with zipfile.ZipFile(model) as archive:
            found = next((i for i in archive.infolist() if i.filename in _ASSOCIATED), None)
            if found is None or found.file_size > _MAX_BYTES:
                return None, ""
            text = archive.read(found).decode("utf-8")
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, zlib.error):
        return None, ""  # most files have no such archive
    first, _, rest = text.partition("\n")
    name = f"{model} ({found.filename})"
    return parse_label_map(f"background\n{rest}" if first.strip() == "???" else text, name), name


def label_map_of(model: Path, given: str | None) -> tuple[LabelMap | None, str]:
    """The label map to use for a model, and what it is called in messages.

    Args:
        model: the model; a frozen graph, or the one in a folder, may have one beside it, a TensorFlow Lite file in it.
        given: `coco`, `voc` or a file, which comes first.

    Returns:
        None and no name where there is none.

    Raises:
        LabelMapError: the one to use cannot be read, or the given one has the model's own names in another order.
    """
    if model.suffix == TFLITE_SUFFIX and given is None:
        return _names_inside(model)
    graph = frozen_graph_of(model)
    places = () if graph is None else (beside(graph), beside(graph.resolve()))  # it may be a link
    file = next((place for place in places if place.is_file()), None)
    if given is None:
        return (None, "") if file is None else (load_label_map(file), str(file))
    chosen = load_label_map(given)
    names: tuple[str, ...] = ()
    if file is not None:
        with contextlib.suppress(LabelMapError):
            names = load_label_map(file).display_names[1:]
    if names != chosen.display_names[1:] and sorted(names) == sorted(chosen.display_names[1:]):
        raise LabelMapError(
            f"{given} has the classes in another order than {file}: the model was trained with "
            f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
        )
    return chosen, given
