"""The class names of a model: given, or those that `keras export pb` wrote beside a frozen graph."""

from __future__ import annotations

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
        LabelMapError: one cannot be read, or the given one has the model's own names in another order.
    """
    graph = frozen_graph_of(model)
    file = None if graph is None or not beside(graph).is_file() else beside(graph)
    own = None if file is None else load_label_map(file)
    if given is None:
        return own, "" if own is None else str(file)
    chosen = load_label_map(given)
    names = () if own is None else own.display_names
    if names != chosen.display_names and sorted(names) == sorted(chosen.display_names):
        raise LabelMapError(
            f"{given} has the classes in another order than {file}: the model was trained with "
            f"{', '.join(names[1:7])}{', ...' if len(names) > 7 else ''}"
        )
    return chosen, given
