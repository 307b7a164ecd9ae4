"""Names of Keras layers: TensorFlow's variable scopes, with `.` in place of `/`, which Keras does not allow."""

from __future__ import annotations

from ssdlite_caffe.gen_model.netdesc import AddDesc, ConvDesc, GateDesc, GlobalPoolDesc, NetDesc, NodeDesc

BATCH_NORM = "BatchNorm"
PREDICTIONS = "predictions"
POSTPROCESSOR = "Postprocessor"
PREPROCESSOR = "Preprocessor"


def layer_name(scope: str) -> str:
    """`FeatureExtractor/MobilenetV2/Conv` -> `FeatureExtractor.MobilenetV2.Conv`; scopes must not have dots."""
    assert "." not in scope, scope
    return scope.replace("/", ".")


def scope_of_layer(name: str) -> str:
    """Inverse of `layer_name`."""
    return name.replace(".", "/")


def batch_norm_scope(conv: ConvDesc) -> str:
    """`<scope>/BatchNorm`, where TensorFlow keeps gamma, beta and the moving statistics."""
    return f"{conv.tf_scope}/{BATCH_NORM}"


def node_scopes(net: NetDesc) -> dict[str, str]:
    """The scope of every node of the body, by its Caffe name.

    A convolution has its own scope. A node without variables gets one in the block of the convolution before it
    (`<block>/add`, `<block>/squeeze_excite/mul`).
    """
    scopes: dict[str, str] = {}
    for section in net.sections:
        last = ""
        for node in section.nodes:
            if isinstance(node, ConvDesc):
                last = node.tf_scope
                scopes[node.name] = last
            else:
                scopes[node.name] = f"{last.rpartition('/')[0]}/{_TAILS[type(node)]}"
    return scopes


_TAILS: dict[type[NodeDesc], str] = {AddDesc: "add", GlobalPoolDesc: "squeeze", GateDesc: "mul"}
