"""`--priors constant` and `none`: default boxes as a layer's weights, or not in the net at all."""

from __future__ import annotations

from collections.abc import Sequence

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.layers import (
    BOXES_LAYER,
    Concat,
    ConstantBoxes,
    DetectionOutput,
    GlobalPooling,
    LayerDesc,
    LoweredNet,
    PriorBox,
    Reshape,
)
from ssdlite_caffe.gen_model.rewrites.replace import frozen, replaced

_PRIORS = "mbox_priorbox"
_INPUT = "data"


def priors_as_constants(net: LoweredNet) -> LoweredNet:
    """The default boxes of all feature maps as the bias of one InnerProduct layer, in place of the PriorBox layers.

    Several runtimes have no PriorBox, or compute it in their own way. The InnerProduct has weights of 0 for the mean of
    each of the image's channels, so its output is its bias: the corners of all boxes, and then their variances. Reshape
    gives them PriorBox's shape. They are the model's own boxes, so box encodings need no factors (`load/own_boxes.py`),
    and they may be any boxes: not centred, or other ones in each cell.

    Before:

        layer {
          name: "mbox_priorbox"
          type: "Concat"

    After:

        layer {
          name: "mbox_priorbox/mean"
          type: "Pooling"
          bottom: "data"
          top: "mbox_priorbox/mean"
          pooling_param {
            pool: AVE
            global_pooling: true
          }
        }
        layer {
          name: "mbox_priorbox/boxes"
          type: "InnerProduct"
          bottom: "mbox_priorbox/mean"
          top: "mbox_priorbox/boxes"
          inner_product_param {
            num_output: 16272
          }
        }
        layer {
          name: "mbox_priorbox"
          type: "Reshape"
    """
    boxes = sum(layer.boxes for section in net.sections for layer in section.layers if isinstance(layer, PriorBox))
    mean = f"{_PRIORS}/mean"
    constant: tuple[LayerDesc, ...] = (
        GlobalPooling(name=mean, bottoms=(_INPUT,), tops=(mean,)),
        ConstantBoxes(
            name=BOXES_LAYER, bottoms=(mean,), tops=(BOXES_LAYER,), num_output=boxes * 8, learning=frozen(net, 2)
        ),
        Reshape(name=_PRIORS, bottoms=(BOXES_LAYER,), tops=(_PRIORS,), dims=(0, 2, -1)),
    )
    return _without_prior_boxes(net, constant)


def without_priors(net: LoweredNet) -> LoweredNet:
    """A headless net without default boxes: they are in the file `priors.npy` beside it.

    For runtimes without PriorBox whose users decode boxes themselves. Train and test nets keep their PriorBox layers,
    which their loss and their DetectionOutput read.

    Before:

        layer {
          name: "mbox_priorbox"
          type: "Concat"

    After: nothing; the outputs are mbox_loc and mbox_conf.

    Raises:
        ArchError: it is a deploy net, whose DetectionOutput reads them.
    """
    if net.input_shape is None:
        return net
    if any(isinstance(layer, DetectionOutput) for section in net.sections for layer in section.layers):
        raise ArchError(
            "a deploy net needs its default boxes, which --priors none leaves out; take the headless net (gen: -s "
            "headless), or give --priors constant"
        )
    return _without_prior_boxes(net, ())


def _without_prior_boxes(net: LoweredNet, instead: tuple[LayerDesc, ...]) -> LoweredNet:
    def layers_for(layer: LayerDesc) -> Sequence[LayerDesc]:
        if isinstance(layer, PriorBox):
            return ()
        return instead if isinstance(layer, Concat) and layer.name == _PRIORS else (layer,)

    return replaced(net, layers_for)
