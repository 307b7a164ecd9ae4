"""Shapes of a graph's feature maps, for graphs that compute their default boxes from these shapes."""

from __future__ import annotations

from collections.abc import Sequence

from ssdlite_caffe.dump.detector.upsampling import cut_input, doubled_input, resized_input
from ssdlite_caffe.dump.graph.constants import Evaluator
from ssdlite_caffe.dump.graph.view import CONVOLUTIONS, IDENTITIES, Graph, Node, Ref
from ssdlite_caffe.dump.graph.windows import window_padding

_ELEMENTWISE = frozenset(
    {
        "Relu", "Relu6", "Elu", "Sigmoid", "Softmax", "Cast", "BiasAdd", "FusedBatchNorm", "FusedBatchNormV2",
        "FusedBatchNormV3", "Mul", "Add", "AddV2", "Sub", "RealDiv", "Minimum", "Maximum",
    }
)  # fmt: skip
_DOUBLING = frozenset({"Reshape", "ResizeNearestNeighbor"})
"""Ops that a map made twice as high and wide ends in."""
_WINDOWS = CONVOLUTIONS | {"MaxPool", "AvgPool"}


def output_size(size: int, kernel: int, stride: int, dilation: int, padding: str | tuple[int, int]) -> int:
    """Number of windows along one axis: ceil(size / stride) for SAME, else as many as fit into the padded size."""
    if padding == "SAME":
        return -(-size // stride)
    before, after = padding if isinstance(padding, tuple) else (0, 0)
    return max(0, (size + before + after - (kernel - 1) * dilation - 1) // stride + 1)


class FeatureMaps:
    """Shapes (1, height, width, channels) of the tensors that a graph computes from its network input.

    Args:
        graph: the graph.
        constants: its evaluator, for kernels and paddings.
        stem_input: the tensor that the first convolution reads.
        input_size: its (height, width).
    """

    def __init__(self, graph: Graph, constants: Evaluator, stem_input: Ref, input_size: tuple[int, int]) -> None:
        self._graph = graph
        self._constants = constants
        self._known: dict[Ref, tuple[int, ...]] = {stem_input: (1, *input_size, 3)}

    def shape(self, ref: Ref) -> tuple[int, ...] | None:
        """The shape of `ref`; None if there is an unknown op between it and the network input."""
        path: list[Node] = []
        seen: set[Ref] = set()
        while ref not in self._known:
            node = self._graph[ref]
            operand = self._operand(node)
            if ref.port or operand is None or ref in seen:
                return None
            seen.add(ref)
            path.append(node)
            ref = operand
        shape = self._known[ref]
        for node in reversed(path):
            behind = self._through(node, shape)
            if behind is None:
                return None
            shape = self._known[node.ref] = behind
        return shape

    def _operand(self, node: Node) -> Ref | None:
        """The input of `node` that is a feature map; None for an unknown op."""
        if node.op in IDENTITIES or node.op in _WINDOWS or node.op in ("Pad", "PadV2"):
            return node.inputs[0] if node.inputs else None
        if node.op in _DOUBLING:
            resized = resized_input(self._constants, node)
            return doubled_input(self._graph, self._constants, node) if resized is None else resized[0]
        if node.op == "StridedSlice":
            cut = cut_input(self._constants, node)
            return None if cut is None else cut[0]
        if node.op not in _ELEMENTWISE:
            return None
        return next((ref for ref in node.inputs if self._constants.get(ref) is None), None)

    def _through(self, node: Node, shape: Sequence[int]) -> tuple[int, ...] | None:
        if node.op in ("Pad", "PadV2"):
            paddings = self._constants.get(node.inputs[1])
            if paddings is None or paddings.shape != (4, 2):
                return None
            return tuple(int(size + pad.sum()) for size, pad in zip(shape, paddings, strict=True))
        if node.op in _WINDOWS:
            return self._windows(node, shape)
        resized = resized_input(self._constants, node)
        if resized is not None:
            return (shape[0], *resized[1], shape[3])
        cut = cut_input(self._constants, node)
        if cut is not None:
            return (shape[0], min(shape[1], cut[1][0]), min(shape[2], cut[1][1]), shape[3])
        if node.op in _DOUBLING:
            return (shape[0], 2 * shape[1], 2 * shape[2], shape[3])
        return tuple(shape)

    def _windows(self, node: Node, shape: Sequence[int]) -> tuple[int, ...] | None:
        strides = node.attr_ints("strides", (1, 1, 1, 1))
        dilations = node.attr_ints("dilations", (1, 1, 1, 1))
        channels = shape[3]
        if node.op in ("MaxPool", "AvgPool"):
            kernel: tuple[int, ...] = node.attr_ints("ksize", (1, 1, 1, 1))[1:3]
        else:
            weights = self._constants.get(node.inputs[1])
            if weights is None or weights.ndim != 4:
                return None
            kernel = weights.shape[:2]
            channels = weights.shape[3] if node.op == "Conv2D" else weights.shape[2] * weights.shape[3]
        padding = window_padding(node)
        if padding is None or len(strides) != 4 or len(dilations) != 4:
            return None
        pads: tuple[str | tuple[int, int], str | tuple[int, int]] = (
            (padding[:2], padding[2:]) if isinstance(padding, tuple) else (padding, padding)
        )
        height, width = (
            output_size(shape[axis + 1], kernel[axis], strides[axis + 1], dilations[axis + 1], pads[axis])
            for axis in (0, 1)
        )
        return (shape[0], height, width, channels)
