"""Comparing a model's graph with a family's net: strides, dilations, paddings, activations, and what feeds what.

Different nets can have the same kernels; see `dump/detector/wiring.py`. A checkpoint has no graph, so nothing is
compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

from ssdlite_caffe.dump.detector.wiring import joined
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel, Settings
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.netdesc import (
    AddDesc,
    ConvDesc,
    GateDesc,
    GlobalPoolDesc,
    NetDesc,
    NodeDesc,
    Padding,
    UpsampleDesc,
)
from ssdlite_caffe.gen_model.padding import same_padding


def check_graph(model: DumpedModel, net: NetDesc) -> None:
    """Compare strides, dilations, paddings, activations and wiring of the graph with the family's.

    Raises:
        ModelError: they differ; the text lists the first differences.
    """
    units = {u.scope: u for u in model.units}
    problems = [*_order_problems(model.settings, net), *input_problems(model, net), *padding_problems(model, net)]
    for conv in net.convolutions:
        unit = units[conv.tf_scope]
        if unit.stride is not None and unit.stride != conv.stride:
            problems.append(f"{unit.scope} has stride {unit.stride}, the family {conv.stride}")
        if unit.dilation is not None and unit.dilation != conv.dilation:
            problems.append(f"{unit.scope} has dilation {unit.dilation}, the family {conv.dilation}")
        if unit.activation is not None and unit.activation != conv.activation:
            problems.append(f"{unit.scope} has the activation {unit.activation}, the family {conv.activation}")
    if problems:
        raise ModelError(
            f"{model.source} has the kernels of a {net.arch.family}, but is a different net: "
            f"{'; '.join(problems[:4])}{f'; and {len(problems) - 4} more' if len(problems) > 4 else ''}"
        )


def _order_problems(settings: Settings, net: NetDesc) -> list[str]:
    """Box encodings and class logits that are not joined in the order of the feature maps."""
    problems = []
    for what, order, convs in (
        ("box encodings", settings.box_order, (m.loc for m in net.feature_maps)),
        ("class logits", settings.class_order, (m.conf for m in net.feature_maps)),
    ):
        wanted = tuple(conv[-1].tf_scope for conv in convs)
        if order is not None and order != wanted:
            problems.append(f"its {what} are joined in the order {', '.join(order)}, in the family {', '.join(wanted)}")
    return problems


def input_problems(model: DumpedModel, net: NetDesc) -> list[str]:
    """Convolutions whose input is another one than in the net; none from a checkpoint, which has no graph."""
    units = {u.scope: u for u in model.units}
    blobs, sized = _expressions(net), _expressions(net, sizes=True)
    windows = pool_windows(net)
    problems = []
    for conv in net.convolutions:
        found, wanted = units[conv.tf_scope].input, blobs.get(conv.bottom)
        if found is None or wanted is None:
            continue
        if found in (wanted, sized[conv.bottom], windowed(wanted, windows.get(conv.bottom))):
            continue
        problems.append(f"{conv.tf_scope} reads {found}, in the family it reads {wanted}")
    return problems


def padding_problems(model: DumpedModel, net: NetDesc) -> list[str]:
    """Convolutions whose padding is another one than in the net; none from a checkpoint, which has no graph."""
    units = {u.scope: u for u in model.units}
    zeros = ((conv, _zeros(units[conv.tf_scope], conv)) for conv in net.convolutions)
    return [
        f"{conv.tf_scope} has padding {astuple(found)} (top, bottom, left, right), the family {astuple(conv.padding)}"
        for conv, found in zeros
        if found is not None and found != conv.padding
    ]


def _zeros(unit: ConvUnit, conv: ConvDesc) -> Padding | None:
    """Zeros on each side of the graph's convolution; None from a checkpoint, which has no graph."""
    if unit.padding is None:
        return None
    if isinstance(unit.padding, tuple):
        return Padding(*unit.padding)
    if unit.padding == "VALID":
        return Padding(0, 0, 0, 0)
    return same_padding(conv.in_size, conv.kernel, conv.stride, conv.dilation)


def _expressions(net: NetDesc, *, sizes: bool = False) -> dict[str, str]:
    """Blob -> its expression, as `dump.wiring` writes them; the network input has none.

    Args:
        net: the net.
        sizes: write the sizes of doubled maps, as of a graph that resizes to sizes that are constants.
    """
    found: dict[str, str] = {}
    body = [node for section in net.sections for node in section.nodes]
    for node in (*body, *(conv for m in net.feature_maps for conv in (*m.loc, *m.conf))):
        text = expression_of(node, found, node.tf_scope if isinstance(node, ConvDesc) else "")
        if sizes and isinstance(node, UpsampleDesc):
            text = text.replace("doubled(", f"doubled{node.size[0]}x{node.size[1]}(", 1)
        found[node.top] = text
    return found


def expression_of(node: NodeDesc, blobs: Mapping[str, str], scope: str) -> str:
    """The expression of a node's output, made from those of its inputs; a convolution's is `scope`."""
    if isinstance(node, ConvDesc):
        return scope
    if isinstance(node, AddDesc):
        return joined("sum", (blobs[bottom] for bottom in node.bottoms))
    if isinstance(node, GateDesc):
        return joined("product", (blobs[node.bottom], blobs[node.gate]))
    if isinstance(node, UpsampleDesc):
        return f"doubled({blobs[node.bottom]})"
    return f"mean({blobs[node.bottom]})"


def pool_windows(net: NetDesc) -> dict[str, tuple[int, int]]:
    """Top of each global pooling -> (height, width) of the map that it takes the mean of."""
    nodes = (node for section in net.sections for node in section.nodes)
    return {node.top: node.in_size for node in nodes if isinstance(node, GlobalPoolDesc)}


def windowed(mean: str, window: tuple[int, int] | None) -> str:
    """The expression of a global mean in a graph that averages over one window of the map's size."""
    return mean if window is None else mean.replace("mean(", f"mean{window[0]}x{window[1]}(", 1)
