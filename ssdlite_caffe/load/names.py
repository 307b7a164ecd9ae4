"""How a net's layers and blobs are named: as ours, as an earlier project's, or blobs as the layers that write them."""

from __future__ import annotations

from dataclasses import replace

from ssdlite_caffe.gen_model.compat import COMPAT, Compat
from ssdlite_caffe.gen_model.families import family
from ssdlite_caffe.gen_model.netdesc import ConvDesc, NetDesc, NodeDesc
from ssdlite_caffe.prototxt import caffe_pb2


def named_as(desc: NetDesc, net: caffe_pb2.NetParameter) -> NetDesc:
    """`desc` with the names of the project that has more of the layers of `net` than ours do, if there is one.

    The channel counts stay TensorFlow's: where a project's are others, the weights do not fit its nets.
    """
    layers = {layer.name for layer in net.layer}
    projects = [project for project in COMPAT.values() if desc.arch.family in project.families]
    nets = [desc, *(_renamed(desc, project) for project in projects)]
    return max(nets, key=lambda named: sum(conv.name in layers for conv in named.convolutions))


def _renamed(desc: NetDesc, project: Compat) -> NetDesc:
    ours = f"/{family(desc.arch.family).depthwise_caffe}"

    def depthwise(name: str) -> str:
        return f"{name.removesuffix(ours)}/{project.depthwise_v1}" if name.endswith(ours) else name

    def body(node: NodeDesc) -> NodeDesc:
        if not isinstance(node, ConvDesc):
            return node
        return replace(node, name=depthwise(node.name), bottom=depthwise(node.bottom))

    def classes(conv: ConvDesc) -> ConvDesc:
        if conv.role != "class_predictor" or not project.class_layers:
            return conv
        return replace(conv, name=conv.name + project.class_layers, blob=conv.top)

    return replace(
        desc,
        sections=tuple(replace(section, nodes=tuple(map(body, section.nodes))) for section in desc.sections),
        feature_maps=tuple(replace(m, conf=tuple(map(classes, m.conf))) for m in desc.feature_maps),
    )


def with_blobs_of(desc: NetDesc, net: caffe_pb2.NetParameter) -> NetDesc:
    """`desc` with the blobs that hold the convolutions' results, after BatchNorm and activation, as `net` names them.

    With `--names tops` that is the name of the last layer, in other dialects the convolution's own.
    """
    convs = {conv.name for conv in desc.convolutions}
    read = {blob for layer in net.layer if layer.type != "Silence" for blob in layer.bottom}
    last: dict[str, caffe_pb2.LayerParameter] = {}
    current = ""
    for layer in net.layer:
        if layer.name in convs:
            current = layer.name
        elif not layer.name.startswith(f"{current}/"):
            current = ""
        if current:
            last[current] = layer

    def named(conv: ConvDesc) -> ConvDesc:
        tops = list(last[conv.name].top) if conv.name in last else []
        if not tops or conv.top in tops:
            return conv
        return replace(conv, blob=next((top for top in tops if top in read), tops[0]))

    return replace(
        desc,
        sections=tuple(
            replace(s, nodes=tuple(named(node) if isinstance(node, ConvDesc) else node for node in s.nodes))
            for s in desc.sections
        ),
        feature_maps=tuple(
            replace(m, loc=tuple(map(named, m.loc)), conf=tuple(map(named, m.conf))) for m in desc.feature_maps
        ),
    )
