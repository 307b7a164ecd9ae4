"""The class names of a model: given, or those that `keras export pb` wrote beside a frozen graph."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map
from ssdlite_caffe.dump.read import frozen_graph_of
from ssdlite_caffe.errors import LabelMapError


def beside(graph: Path) -> Path:
    """Where the class names of a frozen graph lie."""
    return graph.parent / f"{graph.stem}.labelmap.prototxt"


def label_map_of(model: Path, given: str | None) -> tuple[LabelMap | None, str]:
    """The label map to use for a model, and what it is called in messages.

    Args:
        model: the model; a frozen graph, or the one in a folder, may have one beside it.
        given: `coco`, `voc` or a file, which comes first.

    Returns:
        None and no name where there is none.

    Raises:
        LabelMapError: the one to use cannot be read, or the given one has the model's own names in another order.
    """
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
