"""The dtypes that TensorFlow wants to see on the nodes of a converted TensorFlow Lite graph, so that it can run it."""

from __future__ import annotations

from collections.abc import Iterable

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb

_INDEXED = frozenset({"StridedSlice", "Slice"})
_COUNTED = frozenset({"ConcatV2", "Pack"})


def typed(nodes: Iterable[pb.NodeDef]) -> list[pb.NodeDef]:
    """The nodes with their attributes for dtypes and numbers of inputs; the graph's input becomes float32.

    The reader does not need them. An operation has the dtype of its first input.

    Args:
        nodes: from `lower`, each after the nodes that it reads.
    """
    found: dict[str, int] = {}
    done = []
    for node in nodes:
        copy = pb.NodeDef()
        copy.CopyFrom(node)
        first = found.get(node.input[0].partition(":")[0], pb.DT_FLOAT) if node.input else pb.DT_FLOAT
        found[node.name] = first
        if node.op == "Const":
            found[node.name] = node.attr["dtype"].type
        elif node.op == "Placeholder":
            copy.attr["dtype"].type = pb.DT_FLOAT
        elif node.op == "Cast":
            copy.attr["SrcT"].type, copy.attr["DstT"].type = first, pb.DT_FLOAT  # type: ignore[assignment]
            found[node.name] = pb.DT_FLOAT
        else:
            copy.attr["T"].type = first  # type: ignore[assignment]
            if node.op == "Shape":
                found[node.name] = pb.DT_INT32
            if node.op in _INDEXED:
                copy.attr["Index"].type = pb.DT_INT32
            if node.op in _COUNTED:
                copy.attr["N"].i = len(node.input) - (node.op == "ConcatV2")
        done.append(copy)
    return done
