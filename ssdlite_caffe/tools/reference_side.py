"""TensorFlow's side of `verify`: layers, boxes, scores and detections of the source model, as a reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel
from ssdlite_caffe.dump.tf1.checkpoint import graph_outputs
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.gen_model.arch import ArchSpec, Nms
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.runtimes.decode import choose_detections, convert_scores
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.resize import input_of, window_of
from ssdlite_caffe.runtimes.source_detector import DoubleSource, SourceDetector, decode_encodings
from ssdlite_caffe.runtimes.tensorflow_detector import TensorFlowDetector
from ssdlite_caffe.runtimes.tflite_detector import TfliteDetector


class ReferenceSide:
    """The source model, running in TensorFlow or in TensorFlow Lite's interpreter.

    Where the graph has no decoder or no NMS of its own, or one with other options than the converted net's, its raw
    outputs are decoded by the reference decoder; the notes say so.
    """

    def __init__(self, model: DumpedModel, graph_nms: Nms, net: NetDesc, source: SourceDetector | DoubleSource) -> None:
        """Prepare the comparison.

        Args:
            model: the source model, as read.
            graph_nms: NMS options of the source model.
            net: the converted net.
            source: the running source model, in float32 or float64; layers, boxes and scores have its dtype.
        """
        self.model, self.net, self.source, self.graph_nms = model, net, source, graph_nms
        self.arch: ArchSpec = net.arch
        self._units: dict[str, ConvUnit] = {unit.scope: unit for unit in model.units}
        # A checkpoint has its graph in the .meta file.
        self._graph_outputs = graph_outputs(locate(model.source).path) if model.form == "checkpoint" else {}

    def network_input(self, image: npt.NDArray[np.uint8]) -> FloatArray:
        """The network input (1, H, W, 3) that both sides get for an image (H, W, 3), RGB."""
        if isinstance(self.source, TfliteDetector):
            return self.source.prepared(image)
        return input_of(self.arch, image)

    def own_network_input(self, image: npt.NDArray[np.uint8]) -> FloatArray | None:
        """The network input that the graph itself computes from the image; None if it does not read images."""
        if not isinstance(self.source, TensorFlowDetector) or not self.source.has_detections:
            return None
        stem = self.source.network_input
        found: FloatArray = self.source.run_image(image, [stem])[stem]
        return found

    def layers(self, fed: FloatArray) -> dict[str, FloatArray]:
        """Outputs of all convolutions with BatchNorm and activation, NCHW, by Caffe's names.

        Args:
            fed: network input (1, H, W, 3).

        Raises:
            ModelError: the model has no graph to run.
        """
        outputs = self.layer_outputs()
        fetched = self.source.run(fed, list(dict.fromkeys(outputs.values())))
        scales = {conv.name: np.float32(self._units[conv.tf_scope].output_scale) for conv in self.net.convolutions}
        return {
            name: np.divide(value := fetched[output].transpose(0, 3, 1, 2), scales[name], dtype=value.dtype)
            for name, output in outputs.items()
        }

    def layer_outputs(self) -> dict[str, str]:
        """The model's tensor for each convolution with BatchNorm and activation, by Caffe's names.

        Raises:
            ModelError: the model has no graph to run.
        """
        units = {conv.name: self._units[conv.tf_scope] for conv in self.net.convolutions}
        outputs = {name: unit.output or self._graph_outputs.get(unit.scope) for name, unit in units.items()}
        if any(output is None for output in outputs.values()):
            raise ModelError(
                f"{self.model.source} ({self.model.form}) has no graph to run; give verify the frozen graph"
            )
        return {name: str(output) for name, output in outputs.items()}

    def boxes(self, fed: FloatArray, layers: dict[str, FloatArray]) -> tuple[FloatArray, FloatArray, str]:
        """Decoded boxes and scores of all default boxes, in TensorFlow's order.

        Args:
            fed: network input (1, H, W, 3).
            layers: as from `layers`.

        Returns:
            float32 (N, 4) xmin, ymin, xmax, ymax; float32 (N, C); and a note on what decoded them.
        """
        try:
            raw = self.source.raw(fed)
        except ModelError:
            return *self._decode_layers(layers), "all default boxes; the graph has no decoder, decoded by verify"
        if raw.boxes is None:
            boxes = decode_encodings(raw.encodings, self.model, self.arch)
            return boxes, raw.scores, "all default boxes; the model's box encodings, decoded by verify"
        return np.ascontiguousarray(raw.boxes[:, [1, 0, 3, 2]]), raw.scores, "all default boxes"

    def _decode_layers(self, layers: dict[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        encodings, logits = [], []
        for feature_map in self.net.feature_maps:
            encodings.append(_per_box(layers[feature_map.loc[-1].name], 4))
            logits.append(_per_box(layers[feature_map.conf[-1].name], self.arch.num_classes))
        settings = self.model.settings
        scale = np.float32(1.0 if settings.logit_scale is None else settings.logit_scale)
        boxes = decode_encodings(np.concatenate(encodings), self.model, self.arch)
        values = np.concatenate(logits) * scale
        return boxes, convert_scores(values, self.arch.score_converter, values.dtype)

    def detections(
        self, fed: FloatArray, boxes: FloatArray, scores: FloatArray, image_size: tuple[int, int]
    ) -> tuple[Detections, str]:
        """The graph's own detections if its NMS options are the net's, else the reference decoder's; and a note.

        The score thresholds may differ: NMS goes by falling score, so a lower threshold does not change the detections
        above both thresholds.

        Args:
            fed: network input (1, H, W, 3).
            boxes: as from `boxes`.
            scores: as from `boxes`.
            image_size: (height, width) of the image, to which boxes are clipped.
        """
        alike = replace(self.graph_nms, score_threshold=self.arch.nms.score_threshold) == self.arch.nms
        if isinstance(self.source, TensorFlowDetector) and self.source.has_detections and alike:
            return self.source.detect(fed, image_size), ""
        window = window_of(image_size, self.arch.resizer)
        found = choose_detections(boxes, scores, self.arch.nms, window=window)
        return found, "the model's boxes with the reference decoder's NMS: "

    def tflite_detections(self, fed: FloatArray) -> Detections | None:
        """The detections of TensorFlow Lite's own post-processing; None if the model does not end in it."""
        if self.model.settings.tflite_nms is None or not isinstance(self.source, TfliteDetector):
            return None
        return self.source.own_detections(fed)


def _per_box(output: FloatArray, values: int) -> FloatArray:
    """Output of a predictor, from (1, K * values, H, W) to (H * W * K, values)."""
    values_last: FloatArray = output[0].transpose(1, 2, 0).reshape(-1, values)
    return values_last
