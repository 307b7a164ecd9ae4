"""Running torchvision's ssdlite320_mobilenet_v3_large in PyTorch as the reference."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.torch.read import without_prefix
from ssdlite_caffe.dump.torch.state_dict import read_state_dict
from ssdlite_caffe.dump.torch.torchvision import INPUT_SIZE, is_box_predictor, swapped_codes
from ssdlite_caffe.errors import MissingRuntimeError, ModelError
from ssdlite_caffe.imports import import_torch
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.tensorflow_detector import DetectorOutputs, RawNames

RAW = RawNames("raw/encodings", "raw/logits", "raw/boxes", "raw/scores")
"""Names of what `run` gives beside the outputs of modules."""
STEM_INPUT = "raw/input"
_C4 = 13
_LAST = "backbone.features.1.3.0.weight"
_HALVED = 480
"""Outputs of the last convolution of the backbone with a halved tail."""


def check_torch() -> None:
    """Say that PyTorch is not installed, before anything is loaded.

    Raises:
        MissingRuntimeError: it is not.
    """
    if any(importlib.util.find_spec(name) is None for name in ("torch", "torchvision")):
        import_torch()  # raises, with the reason
        raise MissingRuntimeError("PyTorch cannot be loaded")


class TorchDetector:
    """The model in PyTorch on the CPU, with the interface of TensorFlowDetector."""

    has_detections = True
    network_input = STEM_INPUT

    def __init__(self, path: Path, model: DumpedModel, *, ema: bool = False, score_threshold: float | None = None):
        """Build torchvision's net and load the weights into it.

        Args:
            path: the file.
            model: as it was read.
            ema: as it was read.
            score_threshold: in place of torchvision's.

        Raises:
            ModelError: torchvision's net does not take the weights.
            MissingRuntimeError: PyTorch or torchvision is not installed.
        """
        self.path = path
        self._torch, self._vision = import_torch()
        self._module = self._built(model, score_threshold).eval()
        state = self._state(ema)
        try:
            self._module.load_state_dict(state)
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"torchvision's net does not take the weights of {path}: {reason}") from error
        self._last: tuple[Any, dict[str, Any]] | None = None

    def __enter__(self) -> TorchDetector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the last results' memory."""
        self._last = None

    def _built(self, model: DumpedModel, score_threshold: float | None) -> Any:
        """Torchvision's net with random weights, of the model's class count and tail; nothing is downloaded.

        Source: ssdlite320_mobilenet_v3_large, which builds the full tail only with weights that it downloads.
        """
        settings = model.settings
        from torchvision.models import mobilenet_v3_large  # type: ignore[import-not-found,unused-ignore]
        from torchvision.models.detection import anchor_utils, ssd, ssdlite

        norm = functools.partial(self._torch.nn.BatchNorm2d, eps=0.001, momentum=0.03)
        halved = model.tensors[_LAST].shape[-1] == _HALVED
        backbone = mobilenet_v3_large(weights=None, norm_layer=norm, reduced_tail=halved)
        extractor = ssdlite.SSDLiteFeatureExtractorMobileNet(backbone.features, _C4, norm)
        channels = [672, 480 if halved else 960, 512, 256, 256, 128]
        boxes = anchor_utils.DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
        head = ssdlite.SSDLiteHead(channels, boxes.num_anchors_per_location(), settings.num_classes, norm)
        return ssd.SSD(
            extractor, boxes, INPUT_SIZE, settings.num_classes, head=head,
            score_thresh=settings.score_threshold if score_threshold is None else score_threshold,
            nms_thresh=settings.iou_threshold, detections_per_img=settings.max_total,
            topk_candidates=settings.max_candidates, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        )  # fmt: skip

    def _state(self, ema: bool) -> dict[str, Any]:
        """The state_dict: as PyTorch reads it, where it is one without more; else as we read it.

        The file has passed our reader, so it calls nothing.
        """
        found, _ = without_prefix(read_state_dict(self.path, ema=ema).tensors)
        ours = {name: one for name, one in found.items() if name != "n_averaged"}
        with contextlib.suppress(Exception):  # safetensors, checkpoints with other classes, older versions
            theirs = self._torch.load(self.path, map_location="cpu", weights_only=True)
            if set(theirs) == set(ours):
                return dict(theirs)
        return {
            name: self._torch.from_numpy(np.array(one.as_float32() if one.is_float else one.values()))
            for name, one in ours.items()
        }

    def run(
        self, network_input: npt.NDArray[Any], names: Sequence[str], image_size: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """Outputs of modules and of RAW, from a network input (1, H, W, 3), RGB, normalised.

        Args:
            network_input: float32, or float64 for a net of `in_double`.
            names: of modules, whose outputs are given as NHWC, or of RAW.
            image_size: not needed.

        Raises:
            ModelError: the net has no such module.
        """
        modules = dict(self._module.named_modules())
        wanted = [name for name in names if name not in (*RAW.all, STEM_INPUT)]
        missing = [name for name in wanted if name not in modules]
        if missing:
            raise ModelError(f"{self.path} has no module named {', '.join(missing)}")
        kept: dict[str, Any] = {}

        def keep(name: str) -> Any:
            # Some modules change their input in place, so each output is copied at once.
            return lambda _, __, output: kept.__setitem__(name, output.permute(0, 2, 3, 1).clone().numpy())

        with contextlib.ExitStack() as stack:
            for name in wanted:
                handle = modules[name].register_forward_hook(keep(name))
                stack.callback(handle.remove)
            raw = self._raw(network_input)
        for name in wanted:
            if is_box_predictor(name):
                kept[name] = kept[name][..., swapped_codes(kept[name].shape[-1])]
        values = {**kept, **raw, STEM_INPUT: network_input}
        return {name: values[name] for name in names}

    def _forward(self, network_input: npt.NDArray[Any]) -> tuple[dict[str, Any], Any]:
        """The heads' outputs and the default boxes in pixels."""
        from torchvision.models.detection.image_list import ImageList

        x = self._torch.from_numpy(np.ascontiguousarray(network_input.transpose(0, 3, 1, 2)))
        features = list(self._module.backbone(x).values())
        heads = self._module.head(features)
        return heads, self._module.anchor_generator(ImageList(x, [INPUT_SIZE]), features)

    def _raw(self, network_input: npt.NDArray[Any]) -> dict[str, Any]:
        with self._torch.inference_mode():
            heads, default_boxes = self._forward(network_input)
            codes, logits = heads["bbox_regression"][0], heads["cls_logits"][0]
            boxes = self._module.box_coder.decode_single(codes, default_boxes[0])
            scores = self._torch.softmax(logits, -1)
        size = np.asarray(INPUT_SIZE * 2, boxes.numpy().dtype)
        values = (codes.numpy()[:, [1, 0, 3, 2]], logits.numpy(), boxes.numpy()[:, [1, 0, 3, 2]] / size, scores.numpy())
        return dict(zip(RAW.all, values, strict=True))

    def run_image(self, image: npt.NDArray[np.uint8], names: Sequence[str]) -> dict[str, Any]:
        """The same from an image (H, W, 3), RGB, which the model resizes and normalises itself."""
        with self._torch.inference_mode():
            prepared, _ = self._module.transform([self._tensor(image)])
        return self.run(prepared.tensors.permute(0, 2, 3, 1).numpy(), names)

    def _tensor(self, image: npt.NDArray[np.uint8]) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255

    def raw(self, network_input: FloatArray) -> DetectorOutputs:
        """Box encodings, logits, boxes and scores of every default box, from a network input (1, H, W, 3)."""
        return RAW.outputs(self._raw(network_input))

    def raw_names(self) -> RawNames:
        """The names under which `run` gives what `raw` does."""
        return RAW

    def double_input(self, fed: FloatArray) -> npt.NDArray[np.float64]:
        """What the net of `in_double` reads for a network input: the same."""
        return fed.astype(np.float64)

    def stem_input(self, fed: FloatArray) -> npt.NDArray[np.float64]:
        """What the first convolution reads in the net of `in_double` for a network input: the same."""
        return fed.astype(np.float64)

    def in_double(self, names: Sequence[str]) -> TorchDetector:
        """The net in float64; its default boxes stay float32 centres and sizes, as torchvision makes them."""
        import copy

        other = copy.copy(self)
        other._module = copy.deepcopy(self._module).double()
        other._last = None
        return other

    def detect(self, network_input: FloatArray, image_size: tuple[int, int] | None = None) -> Detections:
        """The model's detections for a network input (1, H, W, 3); boxes are fractions of the image, clipped."""
        with self._torch.inference_mode():
            heads, default_boxes = self._forward(network_input)
            found = self._module.postprocess_detections(heads, default_boxes, [INPUT_SIZE])[0]
        return _detections(found, INPUT_SIZE)

    def detect_image(self, image: npt.NDArray[np.uint8]) -> Detections:
        """The model's detections for an image (H, W, 3), RGB, which it resizes and normalises itself."""
        with self._torch.inference_mode():
            found = self._module([self._tensor(image)])[0]
        return _detections(found, (image.shape[0], image.shape[1]))


def _detections(found: dict[str, Any], size: tuple[int, int]) -> Detections:
    """Detections with boxes as fractions; torchvision keeps boxes that clipping left without area, we do not."""
    height, width = size
    boxes = found["boxes"].numpy() / np.asarray([width, height] * 2, np.float32)
    whole = Detections(found["labels"].numpy().astype(np.int64), found["scores"].numpy(), boxes)
    return whole.select(np.flatnonzero(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) > 0))
