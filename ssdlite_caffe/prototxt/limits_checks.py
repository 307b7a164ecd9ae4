"""Checks that several runtimes share; each gives a `Check` with a runtime's own text."""

from __future__ import annotations

from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.runtime import Check
from ssdlite_caffe.prototxt.shapes import LayerShapes, Severity
from ssdlite_caffe.prototxt.sizes import show

Layer = caffe_pb2.LayerParameter
_CONVOLUTIONS = ("Convolution", "Deconvolution", "ConvolutionDepthwise", "DepthwiseConvolution")


def scale_of_two(text: str, severity: Severity = "error") -> Check:
    """A Scale layer whose factors are a second bottom, as a squeeze-excite gate is by default."""
    return Check(lambda layer, _: text if layer.type == "Scale" and len(layer.bottom) == 2 else "", severity)


def broadcast(text: str, severity: Severity = "error") -> Check:
    """An Eltwise layer whose bottoms differ in shape."""

    def find(layer: Layer, shapes: LayerShapes) -> str:
        known = {blob.shape for blob in shapes.bottoms if blob.shape is not None}
        if layer.type != "Eltwise" or len(known) < 2:
            return ""
        return f"an Eltwise of {' and '.join(show(one) for one in sorted(known, reverse=True))}: {text}"

    return Check(find, severity)


def coefficients(text: str, severity: Severity = "error") -> Check:
    """An Eltwise layer with factors other than 1."""
    return Check(lambda layer, _: text if any(one != 1 for one in layer.eltwise_param.coeff) else "", severity)


def product(text: str, severity: Severity = "error") -> Check:
    """An Eltwise layer that multiplies."""
    wanted = caffe_pb2.EltwiseParameter.PROD
    return Check(
        lambda layer, _: text if layer.type == "Eltwise" and layer.eltwise_param.operation == wanted else "", severity
    )


def in_place(text: str, severity: Severity = "error") -> Check:
    """A layer that writes a blob that it reads."""
    return Check(lambda layer, _: text if set(layer.top) & set(layer.bottom) else "", severity)


def top_of_another_name(text: str, severity: Severity = "warning") -> Check:
    """A layer that is not in place, and whose only top is not named as the layer."""

    def find(layer: Layer, _: LayerShapes) -> str:
        other = len(layer.top) == 1 and bool(layer.bottom) and layer.top[0] != layer.name
        return text if other and layer.top[0] not in layer.bottom else ""

    return Check(find, severity)


def no_stride(text: str, severity: Severity = "error") -> Check:
    """A Deconvolution without a stride."""

    def find(layer: Layer, _: LayerShapes) -> str:
        param = layer.convolution_param
        given = param.stride or param.HasField("stride_h") or param.HasField("stride_w")
        return text if layer.type == "Deconvolution" and not given else ""

    return Check(find, severity)


def sizes(kernel: int, pad: int, group: int) -> Check:
    """Convolutions with a larger kernel, pad or group than a chip has."""

    def find(layer: Layer, _: LayerShapes) -> str:
        if layer.type not in _CONVOLUTIONS:
            return ""
        param = layer.convolution_param
        given = {
            "kernels of at most": (kernel, max([*param.kernel_size, param.kernel_h, param.kernel_w])),
            "a pad of at most": (pad, max([*param.pad, param.pad_h, param.pad_w])),
            "a group of at most": (group, param.group),
        }
        wrong = [f"{what} {most}, this is {value}" for what, (most, value) in given.items() if value > most]
        return f"it takes {', '.join(wrong)}" if wrong else ""

    return Check(find)


def enlarged_pixel(text: str) -> Check:
    """An Interp that makes a map of one pixel larger in both directions, as --gate interp has it."""

    def find(layer: Layer, shapes: LayerShapes) -> str:
        before, after = ((blobs[0].shape or ())[2:] if blobs else () for blobs in (shapes.bottoms, shapes.tops))
        return text if layer.type == "Interp" and 1 in before and after and before != after else ""

    return Check(find)


def priors_in_pairs(text: str) -> Check:
    """A PriorBox with another number of max_size than of min_size, or one that is not greater."""

    def find(layer: Layer, _: LayerShapes) -> str:
        least, most = layer.prior_box_param.min_size, layer.prior_box_param.max_size
        fine = len(least) == len(most) and all(high > low for low, high in zip(least, most, strict=True))
        return text if layer.type == "PriorBox" and not fine else ""

    return Check(find)
