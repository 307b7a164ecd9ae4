"""From a Keras model to TensorFlow Lite, detections included: float32, float16 weights, or int8."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import ModelError, SsdliteError
from ssdlite_caffe.imports import import_keras
from ssdlite_caffe.keras.model import KerasModel
from ssdlite_caffe.keras.postprocess import postprocessing
from ssdlite_caffe.keras.tflite_file import Description, with_description
from ssdlite_caffe.terminal import silenced

Inputs = Literal["network", "pixels", "image"]
Outputs = Literal["detections", "raw"]
Dtype = Literal["float32", "float16", "int8"]
NetworkInput = npt.NDArray[np.float32]

ENDS: Mapping[str, tuple[str, ...]] = {
    "detections": ("detection_boxes", "detection_classes", "detection_scores", "num_detections"),
    "raw": ("box_encodings", "class_predictions_with_background"),
}
"""Outputs in the order of the file; for detections it is that of TensorFlow Lite's detection examples."""


def tflite_model(
    detector: KerasModel,
    *,
    inputs: Inputs = "pixels",
    outputs: Outputs = "detections",
    dtype: Dtype = "float32",
    calibration: Iterable[NetworkInput] = (),
) -> bytes:
    """Convert a Keras model to a TensorFlow Lite file with built-in operations.

    Args:
        detector: the Keras model.
        inputs: `network`: the normalised network input; `pixels`: 0..255 at the network's size, float32, or uint8 in
            an int8 model; `image`: uint8 images of any size, for which the interpreter's input has to be resized.
        outputs: `detections` of TFLite_Detection_PostProcess, which is built into the interpreter; or `raw`: box
            encodings and class logits.
        dtype: `float16` stores the weights in half the space and computes in float32; `int8` computes in 8 bits,
            except for the decoding of boxes.
        calibration: for int8: inputs (1, H, W, 3) of the kind `inputs`, from which the value ranges are taken.

    Raises:
        ModelError: TensorFlow Lite cannot convert the model.
    """
    if dtype == "int8" and inputs == "image":
        raise ModelError("the inputs of an int8 model must be `pixels` or `network`, got `image`")
    _, tf = import_keras()
    with tempfile.TemporaryDirectory() as folder, _failures(), silenced():
        module = _module(detector, inputs, outputs, dtype)
        tf.saved_model.save(module, folder, signatures={"serving_default": module.signature})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.allow_custom_ops = True
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if dtype != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if dtype == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if dtype == "int8":
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS_INT8)
            kind = np.float32 if inputs == "network" else np.uint8
            converter.representative_dataset = lambda: ([image.astype(kind)] for image in calibration)
        data = converter.convert()
    return with_description(data, Description(detector.arch, detector.labels, inputs, outputs, dtype), ENDS[outputs])


def _module(detector: KerasModel, inputs: Inputs, outputs: Outputs, dtype: Dtype) -> Any:
    """A tf.Module with one signature, `serving_default`.

    The net is frozen first, since the converter does not turn variables into constants in a graph with a function for
    a custom operation, as TFLite_Detection_PostProcess is.
    """
    _, tf = import_keras()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    size: tuple[int | None, ...] = (None, None) if inputs == "image" else detector.arch.input_size
    small = inputs == "image" or (inputs == "pixels" and dtype == "int8")
    start = tf.TensorSpec((1, *size, 3), tf.uint8 if small else tf.float32, name=inputs)
    model = detector.rebuilt(inputs=inputs, outputs="raw").model

    def net(values: Any) -> Any:
        return model(values if inputs == "image" else tf.cast(values, tf.float32), training=False)

    traced = tf.function(net).get_concrete_function(start)
    frozen = convert_variables_to_constants_v2(traced)
    ended = postprocessing(detector.arch, exact=dtype != "int8")

    def whole(values: Any) -> dict[str, Any]:
        encodings, logits = frozen(values)  # in the order of their names
        raw = dict(zip(ENDS["raw"], (encodings, logits), strict=True))
        return ended(encodings, logits) if outputs == "detections" else raw

    module = tf.Module()
    module.whole = tf.function(whole, input_signature=[start])
    module.signature = module.whole.get_concrete_function()
    return module


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Raise the converter's errors as a ModelError of one line."""
    try:
        yield
    except SsdliteError:
        raise
    except Exception as error:  # ConverterError is a plain Exception, and errors from C++ can have any type
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"TensorFlow Lite cannot convert the model: {(lines or [type(error).__name__])[0][:300]}"
        ) from error
