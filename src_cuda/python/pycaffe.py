"""The methods that make `_caffe.Net` pleasant: blobs and parameters by name, forward and backward with arrays.

Written anew for Python 3 with the interface of pycaffe's module of this name, so that programs written for it run.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ._caffe import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    Net,
    RMSPropSolver,
    SGDSolver,
)

__all__ = ["AdaDeltaSolver", "AdaGradSolver", "AdamSolver", "NesterovSolver", "Net", "RMSPropSolver", "SGDSolver"]

Arrays = Mapping[str, np.ndarray]


def _once(name: str, compute: Callable[[Any], Any]) -> property:
    """A property that is computed at its first use and kept on the net; what it holds are views, not copies."""

    def get(net: Any) -> Any:
        if name not in net.__dict__:
            net.__dict__[name] = compute(net)
        return net.__dict__[name]

    return property(get)


def _by_layer(net: Any, ids: Callable[[int], Iterable[int]]) -> OrderedDict[str, list[str]]:
    """Names of the blobs that `ids` gives for each layer."""
    names = list(net._blob_names)
    return OrderedDict((layer, [names[i] for i in ids(index)]) for index, layer in enumerate(net._layer_names))


def _fed(net: Any, names: Sequence[str], arrays: Arrays, kind: str) -> None:
    """Copy arrays into the `data` or `diff` of the blobs `names`; all of them have to be given.

    Raises:
        ValueError: another set of blobs, or an array of another batch size.
    """
    if set(arrays) != set(names):
        raise ValueError(f"arrays are given for {sorted(arrays)}, and the net takes {sorted(names)}")
    for name, array in arrays.items():
        blob = net.blobs[name]
        if len(array) != blob.shape[0]:
            raise ValueError(f"{name} takes a batch of {blob.shape[0]}, and {len(array)} are given")
        getattr(blob, kind)[...] = array


def _forward(
    self: Any,
    blobs: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    **kwargs: np.ndarray,
) -> dict[str, np.ndarray]:
    """Run the net, or its layers from `start` to `end`, inclusive.

    Args:
        self: the net.
        blobs: names to return besides the outputs.
        start: first layer to run.
        end: last layer to run.
        kwargs: an array for each of the net's inputs; none where data layers feed it or the blobs are set already.

    Returns:
        The blobs' data, views that the next run writes over.
    """
    layers = list(self._layer_names)
    wanted = (self.top_names[end] if end is not None else self.outputs) + list(blobs or ())
    if kwargs:
        _fed(self, self.inputs, kwargs, "data")
    self._forward(0 if start is None else layers.index(start), len(layers) - 1 if end is None else layers.index(end))
    return {name: self.blobs[name].data for name in wanted}


def _backward(
    self: Any,
    diffs: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    **kwargs: np.ndarray,
) -> dict[str, np.ndarray]:
    """Run the net backward, or its layers from `start` back to `end`, inclusive.

    Args:
        self: the net.
        diffs: names of blobs whose gradients to return besides the inputs'.
        start: first layer to run, the one nearest the outputs.
        end: last layer to run.
        kwargs: a gradient for each of the net's outputs; none where losses begin it.

    Returns:
        The blobs' diffs, views that the next run writes over.
    """
    layers = list(self._layer_names)
    wanted = (self.bottom_names[end] if end is not None else self.inputs) + list(diffs or ())
    if kwargs:
        _fed(self, self.outputs, kwargs, "diff")
    self._backward(len(layers) - 1 if start is None else layers.index(start), 0 if end is None else layers.index(end))
    return {name: self.blobs[name].diff for name in wanted}


def _batch(self: Any, blobs: Arrays) -> Iterator[dict[str, np.ndarray]]:
    """Arrays of any length in portions of the net's batch size, the last one filled up with zeros."""
    size = next(iter(self.blobs.values())).shape[0]
    count = len(next(iter(blobs.values())))
    for first in range(0, count, size):
        part = {name: np.asarray(array[first : first + size]) for name, array in blobs.items()}
        yield {
            name: np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])
            for name, array in part.items()
        }


def _joined(portions: Iterable[Arrays], count: int) -> dict[str, np.ndarray]:
    """The portions' arrays one after the other, without what filled up the last."""
    lists: dict[str, list[np.ndarray]] = {}
    for portion in portions:
        for name, array in portion.items():
            lists.setdefault(name, []).append(array)
    return {name: np.concatenate(arrays)[:count] for name, arrays in lists.items()}


def _copies(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items()}


def _forward_all(self: Any, blobs: Sequence[str] | None = None, **kwargs: np.ndarray) -> dict[str, np.ndarray]:
    """Run as many batches as the arrays hold; the outputs, and `blobs`, of all of them as copies."""
    count = len(next(iter(kwargs.values())))
    return _joined((_copies(self.forward(blobs=blobs, **batch)) for batch in self._batch(kwargs)), count)


def _forward_backward_all(
    self: Any, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **kwargs: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run as many batches as the arrays hold forward and backward; all outputs and all gradients as copies."""
    inputs = {name: kwargs[name] for name in self.inputs if name in kwargs}
    gradients = {name: kwargs[name] for name in self.outputs if name in kwargs}
    count = len(next(iter(kwargs.values())))
    forward, backward = [], []
    for given, wanted in itertools.zip_longest(
        self._batch(inputs) if inputs else (), self._batch(gradients) if gradients else (), fillvalue={}
    ):
        forward.append(_copies(self.forward(blobs=blobs, **given)))
        backward.append(_copies(self.backward(diffs=diffs, **wanted)))
    return _joined(forward, count), _joined(backward, count)


def _set_input_arrays(self: Any, data: np.ndarray, labels: np.ndarray) -> None:
    """Give the net's MemoryDataLayer float32 images (N, C, H, W) and labels (N,) or (N, 1, 1, 1)."""
    if labels.ndim == 1:
        labels = np.ascontiguousarray(labels[:, None, None, None])
    self._set_input_arrays(data, labels)


Net.blobs = _once("_blobs_dict", lambda net: OrderedDict(zip(net._blob_names, net._blobs, strict=True)))
Net.blob_loss_weights = _once(
    "_blob_loss_weights_dict", lambda net: OrderedDict(zip(net._blob_names, net._blob_loss_weights, strict=True))
)
Net.layer_dict = _once("_layer_dict", lambda net: OrderedDict(zip(net._layer_names, net.layers, strict=True)))
Net.params = _once(
    "_params_dict",
    lambda net: OrderedDict(
        (name, layer.blobs) for name, layer in zip(net._layer_names, net.layers, strict=True) if len(layer.blobs)
    ),
)
Net.inputs = _once("_input_list", lambda net: [net._blob_names[i] for i in net._inputs])
Net.outputs = _once("_output_list", lambda net: [net._blob_names[i] for i in net._outputs])
Net.top_names = _once("_top_names", lambda net: _by_layer(net, net._top_ids))
Net.bottom_names = _once("_bottom_names", lambda net: _by_layer(net, net._bottom_ids))
Net.forward = _forward
Net.backward = _backward
Net.forward_all = _forward_all
Net.forward_backward_all = _forward_backward_all
Net.set_input_arrays = _set_input_arrays
Net._batch = _batch
