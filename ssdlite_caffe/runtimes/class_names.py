"""The class names of a model: given, beside a frozen graph (`keras export pb`), or in a TensorFlow Lite file."""

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
    """Where the class names of a frozen graph lie."""
    return graph.parent / f"{graph.stem}.labelmap.prototxt"


def _own_names(model: Path) -> tuple[Callable[[], LabelMap | None], str]:
    """How to read the class names that come with a model, and what they are called; no name where there are none."""
    with contextlib.suppress(ModelError):
        found = locate(model)
        if found.kind == "TensorFlow Lite":
            return _names_inside(found.path)
    graph = frozen_graph_of(model)
    places = () if graph is None else (label_map_path(graph), label_map_path(graph.resolve()))  # it may be a link
    file = next((place for place in places if place.is_file()), None)
    return (lambda: None, "") if file is None else (lambda: load_label_map(file), str(file))


def _names_inside(model: Path) -> tuple[Callable[[], LabelMap | None], str]:
    """The class names in the archive behind a TensorFlow Lite file, where its metadata keeps associated files.

    The lists of TensorFlow's own models begin with `???` for background. Of several lists none can be told for the
    right one.
    """
    try:
        with zipfile.ZipFile(model) as archive:
            lists = [i for i in archive.infolist() if i.filename.endswith(".txt") and i.file_size <= _MAX_BYTES]
            if len(lists) != 1:
                return lambda: None, ""
            text = archive.read(lists[0]).decode("utf-8-sig")
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, zlib.error):
        return lambda: None, ""  # most files have no such archive
    first, _, rest = text.partition("\n")
    name = f"{model} ({lists[0].filename})"
    return lambda: parse_label_map(f"background\n{rest}" if first.strip() == "???" else text, name), name


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
            f"{given} has the classes in another order than {name}: the model was trained with "
            f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
        )
    return chosen, given
