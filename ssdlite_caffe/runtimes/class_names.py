"""The class names of a model: given by the user, in a file beside a frozen graph, or inside a TensorFlow Lite file."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map, parse_label_map
from ssdlite_caffe.dump.locate import frozen_graph_of, locate
from ssdlite_caffe.errors import LabelMapError, ModelError

_MAX_BYTES = 1 << 22


def label_map_path(graph: Path) -> Path:
    """Label map beside a frozen graph, which `keras export pb` writes and `convert` reads."""
    return graph.parent / f"{graph.stem}.labelmap.prototxt"


def _own_names(model: Path) -> tuple[Callable[[], LabelMap | None], str]:
    """A function that reads the label map that comes with a model, and its name for messages; empty if it has none."""
    with contextlib.suppress(ModelError):
        found = locate(model)
        if found.kind == "TensorFlow Lite":
            return _names_inside(found.path)
    graph = frozen_graph_of(model)
    # The graph may be a link, so look beside its target too.
    places = () if graph is None else (label_map_path(graph), label_map_path(graph.resolve()))
    file = next((place for place in places if place.is_file()), None)
    return (lambda: None, "") if file is None else (lambda: load_label_map(file), str(file))


def _names_inside(model: Path) -> tuple[Callable[[], LabelMap | None], str]:
    """The class names in the zip archive at the end of a TensorFlow Lite file, which holds its associated files.

    The lists of TensorFlow's own models begin with `???` for background. If there are several lists, none is used,
    since nothing says which is the right one.
    """
    try:
        with zipfile.ZipFile(model) as archive:
            lists = [i for i in archive.infolist() if i.filename.endswith(".txt") and i.file_size <= _MAX_BYTES]
            if len(lists) != 1:
                return lambda: None, ""
            text = archive.read(lists[0]).decode("utf-8-sig")
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, zlib.error):
        return lambda: None, ""  # most files have no such archive
    name = f"{model} ({lists[0].filename})"
    return lambda: parse_label_map(text, name), name


def label_map_of(model: Path, given: str | None) -> tuple[LabelMap | None, str]:
    """The label map to use for a model, and its name for messages.

    Args:
        model: a model file or folder.
        given: `coco`, `voc` or a file to use in place of the model's own label map.

    Returns:
        The label map and its name; None and an empty text if none is given and the model has none.

    Raises:
        LabelMapError: the label map cannot be read, or `given` has the model's own class names in another order.
    """
    own, name = _own_names(model)
    if given is None:
        return own(), name
    chosen = load_label_map(given)
    names: tuple[str, ...] = ()
    with contextlib.suppress(LabelMapError):
        found = own()
        names = () if found is None else found.display_names[1:]
    if names != chosen.display_names[1:] and sorted(names) == sorted(chosen.display_names[1:]):
        raise LabelMapError(
            f"{given} has the class names of {name} in another order; the model was trained with "
            f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
        )
    return chosen, given
