"""Layers of our own for Keras models. This module imports Keras, so import it only after `import_keras`.

All are registered under the package name `ssdlite_caffe`, so that models with them can be loaded in Keras' safe mode.
The registered names are part of the files: do not change them.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes

PACKAGE = "ssdlite_caffe"
_SIXTH = float(np.float32(1 / 6))


@keras.saving.register_keras_serializable(PACKAGE)
class HardSwish(keras.layers.Layer):
    """x * relu6(x + 3) * (1/6), multiplied in this order. Source: `hard_swish` in slim's mobilenet_v3.py."""

    def call(self, inputs: Any) -> Any:
        """The same shape."""
        return inputs * tf.nn.relu6(inputs + 3.0) * _SIXTH

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same."""
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class HardSigmoid(keras.layers.Layer):
    """The squeeze-excite gate: relu6(x + 3) * scale, scale 0.16667 in TensorFlow's graphs."""

    def __init__(self, scale: float, **options: Any) -> None:
        super().__init__(**options)
        self.scale = scale

    def call(self, inputs: Any) -> Any:
        """The same shape."""
        return tf.nn.relu6(inputs + 3.0) * float(np.float32(self.scale))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The same."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "scale": self.scale}


@keras.saving.register_keras_serializable(PACKAGE)
class FusedBatchNorm(keras.layers.BatchNormalization):
    """Keras' BatchNormalization over the channels of (B, H, W, C), with TensorFlow's fused kernel.

    TF1 detectors use this kernel, and it is several times faster in training. It does not support float64, for which
    Keras' own computation is used. In training, the moving variance is the unbiased one, as in TF1.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The same shape."""
        if inputs.dtype not in (tf.float32, tf.float16, tf.bfloat16):
            return super().call(inputs, training=training, mask=mask)
        training = bool(training) and self.trainable
        parameters = [tf.cast(p, tf.float32) for p in (self.gamma, self.beta)]
        if not training:
            statistics = [tf.cast(p, tf.float32) for p in (self.moving_mean, self.moving_variance)]
            return tf.compat.v1.nn.fused_batch_norm(
                inputs, *parameters, *statistics, epsilon=self.epsilon, is_training=False
            )[0]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, *parameters, epsilon=self.epsilon, is_training=True
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(PACKAGE, name="Pixels")
class PixelsToInput(keras.layers.Layer):
    """From pixels 0..255, RGB, to the network's input: optional resize, then pixel * scale - mean * scale.

    The resize is TensorFlow 1's: bilinear, corners not aligned, pixel centres at whole numbers.
    """

    def __init__(self, mean: float, scale: float, size: list[int] | None = None, **options: Any) -> None:
        """Set the constants.

        Args:
            mean: subtracted from every pixel.
            scale: factor of the difference.
            size: (height, width) to resize to; None: the images have the network's size already.
            options: Keras' options of every layer.
        """
        super().__init__(**options)
        self.mean, self.scale = mean, scale
        self.size = None if size is None else [int(v) for v in size]

    def call(self, inputs: Any) -> Any:
        """(B, H, W, 3) of any real dtype -> (B, height, width, 3)."""
        pixels = tf.cast(inputs, tf.float32)
        if self.size is not None:
            pixels = tf.compat.v1.image.resize_bilinear(pixels, self.size, align_corners=False)
        return tf.cast(pixels * float(np.float32(self.scale)) - float(self.mean * self.scale), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Resized."""
        return input_shape if self.size is None else (input_shape[0], *self.size, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "mean": self.mean, "scale": self.scale, "size": self.size}


class _OfArch(keras.layers.Layer):
    """A layer whose configuration includes the detector's architecture."""

    def __init__(self, arch: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self.arch = ArchSpec.from_dict(arch)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "arch": self.arch.to_dict()}


@keras.saving.register_keras_serializable(PACKAGE)
class Predictions(_OfArch):
    """Joins the outputs of all predictors into box encodings and class logits, in TensorFlow's order of boxes.

    Its configuration describes the model: `arch`, and `labels` with the name and display name of each class, background
    first.
    """

    def __init__(self, arch: dict[str, Any], labels: list[list[str]], **options: Any) -> None:
        super().__init__(arch, **options)
        self.labels = [[str(name), str(shown)] for name, shown in labels]

    def call(self, inputs: list[Any]) -> dict[str, Any]:
        """Join the maps.

        Args:
            inputs: (B, H, W, K * 4) and (B, H, W, K * C) of each feature map, in turn.

        Returns:
            box_encodings (B, N, 4): ty, tx, th, tw; class_predictions_with_background (B, N, C).
        """

        def rows(maps: list[Any], last: int) -> Any:
            flat = [tf.reshape(m, (-1, int(np.prod(m.shape[1:])) // last, last)) for m in maps]
            return tf.concat(flat, 1)

        return {
            "box_encodings": rows(inputs[0::2], 4),
            "class_predictions_with_background": rows(inputs[1::2], self.arch.num_classes),
        }

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "labels": self.labels}


@keras.saving.register_keras_serializable(PACKAGE)
class Decode(_OfArch):
    """From box encodings to boxes and from logits to scores.

    y = ty / sy * H + Y, x = tx / sx * W + X, h = exp(th / sh) * H, w = exp(tw / sw) * W for a default box of centre
    (Y, X), height H and width W, scales s the reciprocals of the box coder's variances.
    Source: faster_rcnn_box_coder.py of the TensorFlow OD API.
    """

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Decode the outputs of `Predictions`.

        Returns:
            boxes (B, N, 4): ymin, xmin, ymax, xmax as fractions of the image, not clipped; scores (B, N, C).
        """
        encodings, logits = inputs["box_encodings"], inputs["class_predictions_with_background"]
        convert = tf.nn.sigmoid if self.arch.score_converter == "sigmoid" else tf.nn.softmax
        return {"boxes": self._boxes(encodings), "scores": convert(logits, name="convert_scores")}

    def _boxes(self, encodings: Any) -> Any:
        corners = tf_default_boxes(build(self.arch))
        top, left = ((corners[:, i] + corners[:, i + 2]) / 2 for i in (0, 1))
        high, wide = (corners[:, i + 2] - corners[:, i] for i in (0, 1))
        centre_y, centre_x, height, width = (tf.constant(v, encodings.dtype) for v in (top, left, high, wide))
        vx, vy, vw, vh = self.arch.variances
        with tf.name_scope("Decode"):
            ty, tx, th, tw = tf.unstack(tf.transpose(encodings, (2, 0, 1)), 4)
            ty, tx, th, tw = (t / float(np.float32(1 / v)) for t, v in ((ty, vy), (tx, vx), (th, vh), (tw, vw)))
            w, h = tf.exp(tw) * width, tf.exp(th) * height
            y, x = ty * height + centre_y, tx * width + centre_x
            corners_found = tf.stack([y - h / 2.0, x - w / 2.0, y + h / 2.0, x + w / 2.0])
            return tf.transpose(corners_found, (1, 2, 0), name="transpose_1")


@keras.saving.register_keras_serializable(PACKAGE, name="Suppression")
class NonMaxSuppression(_OfArch):
    """From boxes and scores of all default boxes to detections: NMS for each class, as in the OD API.

    Source: multiclass_non_max_suppression in core/post_processing.py of the TensorFlow OD API.
    """

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Choose among the outputs of `Decode`.

        Returns:
            float32, as in the OD API: detection_boxes (B, max_total, 4), detection_scores and detection_classes
            (B, max_total), best first and padded with zeros, and num_detections (B,). Class ids start at 1.
        """
        nms = self.arch.nms
        boxes = tf.cast(inputs["boxes"], tf.float32)
        scores = tf.cast(inputs["scores"], tf.float32)[..., 1:]
        if nms.clip_first:
            boxes = clip_to_image(boxes)
            scores = tf.where(has_area(boxes)[..., None], scores, -1.0)
        candidates = int(scores.shape[1])
        per_class = min(nms.max_per_class, candidates)
        total = per_class * int(scores.shape[2])
        boxes, scores, classes, count = tf.image.combined_non_max_suppression(
            boxes[:, :, None, :], scores, per_class, nms.max_total if nms.clip_first else total,
            iou_threshold=nms.iou_threshold, score_threshold=nms.score_threshold, clip_boxes=False,
        )  # fmt: skip
        # Boxes without area in the image do not count towards max_total, so they are removed before it is applied.
        boxes = clip_to_image(boxes)
        valid = (tf.range(tf.shape(scores)[1])[None] < count[:, None]) & has_area(boxes)
        best, order = tf.math.top_k(tf.where(valid, scores, -1.0), min(nms.max_total, int(scores.shape[1])))
        found = best >= 0
        missing = [(0, 0), (0, nms.max_total - int(best.shape[1]))]
        boxes = tf.where(found[..., None], tf.gather(boxes, order, batch_dims=1), 0.0)
        classes = tf.where(found, tf.gather(classes, order, batch_dims=1), 0.0)
        return {
            "detection_boxes": tf.pad(boxes, [*missing, (0, 0)]),
            "detection_scores": tf.pad(tf.where(found, best, 0.0), missing),
            "detection_classes": tf.pad(classes, missing) + 1.0,
            "num_detections": tf.reduce_sum(tf.cast(found, tf.float32), 1),
        }


def clip_to_image(boxes: Any) -> Any:
    """Boxes (..., 4), as fractions, clipped to the image."""
    return tf.maximum(tf.minimum(boxes, 1.0), 0.0)


def has_area(boxes: Any) -> Any:
    """Whether each of the boxes (..., 4) has an area above 0."""
    ymin, xmin, ymax, xmax = tf.unstack(boxes, 4, axis=-1)
    return (ymax - ymin) * (xmax - xmin) > 0.0
