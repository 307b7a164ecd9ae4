"""A TensorFlow graph in float64: every float of it made a double, from the network input on.

In float32 TensorFlow's own rounding may be larger than the mistake that is looked for. In float64 the graph computes
what its formulas say; its weights are still the float32 values that it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.imports import import_tensorflow

DoubleArray = npt.NDArray[np.float64]


class DoubleGraph:
    """A graph in a session of its own, on the CPU; a context manager that closes it."""

    def __init__(
        self,
        definition: Any,
        network_input: str,
        outputs: Sequence[str],
        *,
        source: str,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Rewrite the graph.

        Args:
            definition: GraphDef without variables.
            network_input: the tensor (`a/b:0`) or operation that is fed.
            outputs: tensors or operations that can be computed.
            source: the model, for errors.
            aliases: other names by which `run` knows outputs -> their names in the graph.

        Raises:
            ModelError: an operation has no kernel for float64, or the graph cannot be rewritten.
            MissingRuntimeError: TensorFlow is not installed.
        """
        self._tf = import_tensorflow()
        self._source = source
        self._aliases = aliases or {}
        self._input, _, port = network_input.partition(":")
        if port not in ("", "0"):
            raise ModelError(f"{source}: the network input is {network_input}, not the first output of an operation")
        v1 = self._tf.compat.v1
        graph = v1.GraphDef(versions=definition.versions)
        for node in definition.node:
            self._rewrite(node, graph)
        self._graph = self._tf.Graph()
        try:
            operations = list(dict.fromkeys(name.partition(":")[0] for name in outputs))
            graph = v1.graph_util.extract_sub_graph(graph, operations)
            with self._graph.as_default():
                self._tf.graph_util.import_graph_def(graph, name="")
        except (ValueError, AssertionError, self._tf.errors.OpError) as error:
            raise ModelError(f"{source} cannot be computed in float64: {str(error).splitlines()[0]}") from error
        self._session = v1.Session(graph=self._graph, config=v1.ConfigProto(device_count={"GPU": 0}))

    def __enter__(self) -> DoubleGraph:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the session's memory."""
        self._session.close()

    def run(self, network_input: npt.NDArray[Any], names: Sequence[str]) -> dict[str, DoubleArray]:
        """Compute tensors from a network input (1, H, W, 3).

        Raises:
            ModelError: an operation has no kernel for float64.
        """
        known = [self._aliases.get(name, name) for name in names]
        fetched = [name if ":" in name else f"{name}:0" for name in known]
        try:
            values = self._session.run(fetched, {f"{self._input}:0": network_input.astype(np.float64)})
        except self._tf.errors.OpError as error:
            reason = str(error.message).splitlines()[0]
            raise ModelError(f"{self._source} cannot be computed in float64: {reason}") from error
        return dict(zip(names, values, strict=True))

    def _rewrite(self, node: Any, graph: Any) -> None:
        """Add a node to `graph`, with doubles in place of floats."""
        single, double = (kind.as_datatype_enum for kind in (self._tf.float32, self._tf.float64))
        if node.name == self._input:
            graph.node.add(name=node.name, op="Placeholder").attr["dtype"].type = double
            return
        if node.op.startswith("FusedBatchNorm"):
            self._unfuse(node, graph)
            return
        copy = graph.node.add()
        copy.CopyFrom(node)
        for value in copy.attr.values():
            if value.type == single:
                value.type = double
            for index, kind in enumerate(value.list.type):
                value.list.type[index] = double if kind == single else kind
            if value.HasField("tensor") and value.tensor.dtype == single:
                array = self._tf.make_ndarray(value.tensor).astype(np.float64)
                value.tensor.CopyFrom(self._tf.make_tensor_proto(array, shape=array.shape))

    def _unfuse(self, node: Any, graph: Any) -> None:
        """(x - mean) * (gamma / sqrt(variance + epsilon)) + beta, since the fused operation computes in float32."""
        double = self._tf.float64.as_datatype_enum

        def add(suffix: str, kind: str, *inputs: str) -> str:
            new = graph.node.add(name=node.name + suffix, op=kind, input=inputs)
            new.attr["T"].type = double
            return str(new.name)

        if node.attr["is_training"].b:
            raise ModelError(f"{self._source}: {node.name} normalises by the batch, as in training")
        x, gamma, beta, mean, variance = node.input[:5]
        epsilon = graph.node.add(name=node.name + "/epsilon", op="Const")
        epsilon.attr["dtype"].type = double
        epsilon.attr["value"].tensor.CopyFrom(self._tf.make_tensor_proto(np.float64(node.attr["epsilon"].f)))
        scale = add("/scale", "Mul", gamma, add("/rsqrt", "Rsqrt", add("/var", "AddV2", variance, epsilon.name)))
        add("", "AddV2", add("/scaled", "Mul", add("/centred", "Sub", x, mean), scale), beta)
