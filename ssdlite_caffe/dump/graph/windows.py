"""Padding of the ops that slide a window over a feature map."""

from __future__ import annotations

from ssdlite_caffe.dump.graph.view import Node


def window_padding(node: Node) -> str | tuple[int, int, int, int] | None:
    """The padding of a convolution or pooling: "SAME", "VALID" or zeros (top, bottom, left, right); None if unknown."""
    padding = node.attr_text("padding")
    if padding in ("SAME", "VALID"):
        return padding
    explicit = node.attr_ints("explicit_paddings")
    if padding == "EXPLICIT" and len(explicit) == 8 and not any(explicit[i] for i in (0, 1, 6, 7)):
        return explicit[2], explicit[3], explicit[4], explicit[5]
    return None
