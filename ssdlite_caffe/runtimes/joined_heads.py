"""A headless net whose outputs are those of each feature map (`--outputs per-map`), read as if they were joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.net import RunningNet

Array = npt.NDArray[Any]
_HEADS = ("mbox_loc", "mbox_conf")
_PRIORS = "_mbox_priorbox"


def outputs_per_map(net: caffe_pb2.NetParameter) -> dict[str, tuple[str, ...]]:
    """For mbox_loc and mbox_conf the blobs that they consist of, in the order of the default boxes.

    The order is that of the PriorBox layers or, in a net without any, of the layers that write the blobs.

    Returns:
        An empty dict if the net joins them itself, or has no such blobs.
    """
    written = [top for layer in net.layer for top in layer.top]
    if any(head in written for head in _HEADS):
        return {}
    maps = [name.removesuffix(_PRIORS) for name in _joined_priors(net)]
    found = {}
    for head in _HEADS:
        end = f"_{head}_flat"
        names = [f"{blob}{end}" for blob in maps] or [name for name in dict.fromkeys(written) if name.endswith(end)]
        if not names or not set(names) <= set(written):
            return {}
        found[head] = tuple(names)
    return found


def _joined_priors(net: caffe_pb2.NetParameter) -> Sequence[str]:
    joined = next((layer.bottom for layer in net.layer if "mbox_priorbox" in layer.top), ())
    return [name for name in joined if name.endswith(_PRIORS)]


def joined(values: Mapping[str, Array], parts: Mapping[str, Sequence[str]]) -> dict[str, Array]:
    """What a net would give that joins its outputs itself.

    Args:
        values: of blobs, each with the batch as its first axis.
        parts: as from `outputs_per_map`.

    Returns:
        (N, values) of each name in `parts` whose parts are all there.
    """
    return {
        name: np.concatenate([values[part].reshape(len(values[part]), -1) for part in blobs], axis=1)
        for name, blobs in parts.items()
        if all(part in values for part in blobs)
    }


class JoinedHeads:
    """A loaded net that gives mbox_loc and mbox_conf, too.

    Attributes:
        prototxt: of the net.
    """

    def __init__(self, net: RunningNet, parts: dict[str, tuple[str, ...]]) -> None:
        """Wrap a net; `parts` as from `outputs_per_map`."""
        self._net, self._parts, self.prototxt = net, parts, net.prototxt

    def forward(self, blob: FloatArray, outputs: Sequence[str]) -> dict[str, FloatArray]:
        """As the net's own; what is joined has the shape (N, values)."""
        wanted = dict.fromkeys(part for name in outputs for part in self._parts.get(name, (name,)))
        found = self._net.forward(blob, list(wanted))
        found |= joined(found, self._parts)
        return {name: found[name] for name in outputs}

    def detect(self, blob: FloatArray) -> Detections:
        """As the net's own, which has no DetectionOutput layer."""
        return self._net.detect(blob)


def with_joined_heads(net: RunningNet, prototxt: caffe_pb2.NetParameter) -> RunningNet:
    """The net, or a `JoinedHeads` of it if its outputs are those of each feature map."""
    parts = outputs_per_map(prototxt)
    return JoinedHeads(net, parts) if parts else net
