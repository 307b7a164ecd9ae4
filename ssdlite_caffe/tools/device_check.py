"""Comparing a device's outputs with TensorFlow's: each output, each layer, and the detections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.errors import DeviceError, ImageError
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.decode import clip_detections, overlap, parse_detection_out
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.folder_files import EXPECTED, EXPECTED_IMAGE
from ssdlite_caffe.runtimes.images import IMAGE_SUFFIXES, find_sources, read_image
from ssdlite_caffe.runtimes.joined_heads import joined, outputs_per_map
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.tools.convert import Progress
from ssdlite_caffe.tools.device_accuracy import DeviceAccuracy
from ssdlite_caffe.tools.device_outputs import Shape, read_outputs
from ssdlite_caffe.tools.device_reference import HEADS, SCORES, Array, DeviceReference, ImageValues
from ssdlite_caffe.tools.output_format import OutputFormat
from ssdlite_caffe.tools.same_model import check_same
from ssdlite_caffe.tools.source import open_model

SHOWN_SCORE = 0.3
"""Detections with lower scores need no partner."""
MATCHING_IOU = 0.5
"""Least IoU of two detections of the same thing."""


@dataclass(frozen=True)
class OutputRow:
    """One blob of the device compared with TensorFlow's, over all images.

    Attributes:
        name: of the blob.
        shape: of the blob.
        largest, mean: of the absolute differences.
        correlation: of all values, -1 to 1; NaN where one side is constant.
        snr: signal to noise in dB: power of the reference over power of the difference; Inf where they are equal.
        own: the same of the layers since the device's last earlier values, computed from these; None if not known.
        bad: number of values that are NaN or Inf; they are not counted in the others.
    """

    name: str
    shape: Shape
    largest: float
    mean: float
    correlation: float
    snr: float
    own: float | None
    bad: int


@dataclass(frozen=True)
class Matches:
    """Detections with scores from SHOWN_SCORE, paired by class and overlap.

    Attributes:
        reference: how many TensorFlow has.
        matched: how many of these the device has.
        more: how many the device has besides.
        least_iou, mean_iou: of the pairs; 1 without any.
        score: largest difference of the scores of a pair.
    """

    reference: int
    matched: int
    more: int
    least_iou: float
    mean_iou: float
    score: float

    def joined(self, other: Matches) -> Matches:
        """Of both together."""
        pairs = self.matched + other.matched
        mean = (self.mean_iou * self.matched + other.mean_iou * other.matched) / pairs if pairs else 1.0
        return Matches(
            self.reference + other.reference, pairs, self.more + other.more, min(self.least_iou, other.least_iou),
            mean, max(self.score, other.score),
        )  # fmt: skip


@dataclass(frozen=True)
class DumpReport:
    """Result of a comparison.

    Attributes:
        dump: what was compared.
        images: their names.
        outputs: of the net's outputs, in its order.
        layers: other blobs, the one that adds most noise first.
        detections: None if the dump has not what they are made of.
        notes: what was assumed, and what was skipped.
        accuracy: average precision of both sides; None where no annotations were given, or values are NaN or Inf.
    """

    dump: str
    images: tuple[str, ...]
    outputs: tuple[OutputRow, ...]
    layers: tuple[OutputRow, ...]
    detections: Matches | None
    notes: tuple[str, ...]
    accuracy: DeviceAccuracy | None = None

    @property
    def bad(self) -> int:
        """Number of values that are NaN or Inf."""
        return sum(row.bad for row in (*self.outputs, *self.layers))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which has no Inf and NaN: they are null."""
        data = asdict(self)
        data["accuracy"] = None if self.accuracy is None else self.accuracy.to_dict()
        for row in (*data["outputs"], *data["layers"]):
            row.update(
                {key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
            )
        return data


@dataclass(frozen=True)
class ComparedImage:
    """An image of which both sides' detections are known.

    Attributes:
        name: its name.
        pixels: what the device was given, uint8 (H, W, 3) RGB.
        reference: TensorFlow's values.
        device: the device's detections, boxes as fractions of the net's input; None where they are not known.
        bad: whether that is because outputs are NaN or Inf.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    reference: ImageValues
    device: Detections | None
    bad: bool


def compare_dump(
    source: Path,
    folder: ModelFolder,
    dump: Path,
    *,
    images: Sequence[Path] = (),
    formats: Sequence[OutputFormat] = (),
    reading: ReadOptions | None = None,
    seen: Callable[[ComparedImage], None] = lambda _: None,
    progress: Progress = lambda _: None,
) -> DumpReport:
    """Compare what a device gave with TensorFlow's values.

    Args:
        source: the model that `folder` was converted from.
        folder: the converted model.
        dump: a folder of outputs, or an .npz; for several images a folder that has one for each, with the image's name
            without its suffix.
        images: what the device was given; empty: those in the folder's `expected`.
        formats: what the user says of some outputs.
        reading: how to read the model; None: as on converting.
        seen: called with the detections of each image.
        progress: called with what is being done.

    Raises:
        SsdliteError: an image, an output or the model cannot be read, or they do not fit.
    """
    pairs = dumped_images(folder, dump, images)
    read = [(name, _rgb(image), place) for name, image, place in pairs]
    tallies: dict[str, _Tally] = {}
    matches: Matches | None = None
    notes: list[str] = []
    progress("starting what runs the model")
    with open_model(source, reading or folder.reading) as opened:
        check_same(opened.model, folder)
        with opened.run() as running:
            reference = DeviceReference(opened, folder, running)
            parts, order = _headless_outputs(folder)
            for name, image, place in read:
                wanted = reference.image(image)
                shapes = {blob: values.shape for blob, values in wanted.blobs.items()}
                found = read_outputs(place, {**shapes, "detection_out": (-1, 7)}, order, formats)
                notes += [note for note in found.notes if note not in notes]
                values = {blob: one for blob, one in found.values.items() if blob != "detection_out"}
                _tally(tallies, reference.deploy, wanted, values)
                detections = _detections(reference, wanted, {**joined(found.values, parts), **found.values})
                if detections is not None:
                    one = match_detections(detections, wanted.detections)
                    matches = one if matches is None else matches.joined(one)
                bad = detections is None and not all(np.isfinite(one).all() for one in found.values.values())
                seen(ComparedImage(name, image, wanted, detections, bad))
                progress(f"compared {name}")
    rows = {name: tally.row(name) for name, tally in tallies.items()}
    outputs = tuple(rows[name] for name in dict.fromkeys((*order, *HEADS, SCORES)) if name in rows)
    layers = [row for name, row in rows.items() if row not in outputs]
    layers.sort(key=lambda row: math.inf if row.own is None else row.own)
    return DumpReport(str(dump), tuple(name for name, _, _ in pairs), outputs, tuple(layers), matches, tuple(notes))


def _headless_outputs(folder: ModelFolder) -> tuple[dict[str, tuple[str, ...]], Sequence[str]]:
    """What the headless net's outputs of each feature map join to, if it has such, and all outputs in its order."""
    net = read_net(folder.headless_prototxt)
    parts = outputs_per_map(net)
    return parts, [blob.name for blob in infer(net).outputs] if parts else HEADS


def dumped_images(folder: ModelFolder, dump: Path, images: Sequence[Path]) -> list[tuple[str, Path, Path]]:
    """Name, image and dump of each image; arguments as of `compare_dump`.

    Raises:
        SsdliteError: an image, or the dump of one, is missing.
    """
    if not dump.exists():
        raise DeviceError(f"{dump} does not exist; give a folder of outputs, or an .npz")
    found = _images(folder, images)
    found = [one for one in found if not images and (dump / one[0]).is_dir()] or found
    if len(found) == 1:
        name, path = found[0]
        return [(name, path, dump / name if (dump / name).is_dir() else dump)]
    missing = [name for name, _ in found if not (dump / name).is_dir()]
    if missing or len({name for name, _ in found}) < len(found):
        raise DeviceError(
            f"with {len(found)} images, {dump} must have a folder of outputs for each, named as the image without its "
            f"suffix; {', '.join(missing[:4]) + ' missing' if missing else 'two images have the same name'}"
        )
    return [(name, path, dump / name) for name, path in found]


def _images(folder: ModelFolder, images: Sequence[Path]) -> list[tuple[str, Path]]:
    """Names and files of images, or of those in `expected`; at least one."""
    if not images:
        found = [(path.parent.name, path) for path in sorted((folder.path / EXPECTED).glob(f"*/{EXPECTED_IMAGE}"))]
        if not found:
            raise DeviceError(
                f"which image was the device given? Name it with --images; {folder.path} has no {EXPECTED}, which "
                "convert --expected IMAGE writes"
            )
        return found
    found = []
    for one in find_sources(images):
        if isinstance(one, ImageError):
            raise one
        if one.video or one.path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ImageError(f"{one.path} is not an image; give the image that the device was given")
        found.append((one.path.stem, one.path))
    return found


def first_image(folder: ModelFolder, images: Sequence[Path]) -> tuple[str, npt.NDArray[np.uint8]]:
    """Name and pixels, uint8 (H, W, 3) RGB, of the first image, or of the first in the folder's `expected`.

    Raises:
        SsdliteError: there is none, or it cannot be read.
    """
    name, path = _images(folder, images)[0]
    return name, _rgb(path)


def _rgb(path: Path) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(read_image(path)[:, :, ::-1])


def _detections(reference: DeviceReference, wanted: ImageValues, found: Mapping[str, Array]) -> Detections | None:
    """The device's detections: its own, or decoded from its outputs."""
    if "detection_out" in found:
        return clip_detections(parse_detection_out(found["detection_out"]))
    if HEADS[0] not in found or (HEADS[1] not in found and SCORES not in found):
        return None
    used = [found[name] for name in (*HEADS[:2], SCORES) if name in found]
    if not all(np.isfinite(one).all() for one in used):
        return None
    priors = found.get(HEADS[2], wanted.blobs[HEADS[2]])
    return reference.decode(found[HEADS[0]], priors, logits=found.get(HEADS[1]), scores=found.get(SCORES))


def match_detections(got: Detections, reference: Detections) -> Matches:
    """Pair detections of the same class, by falling score, each with the one that it overlaps most."""
    free = set(range(len(got)))
    ious, scores = [], [0.0]
    shown = reference.above(SHOWN_SCORE)
    for i in range(len(reference)):
        near = [
            (float(overlap(reference.boxes[i], got.boxes[j])), j)
            for j in free
            if got.classes[j] == reference.classes[i]
        ]
        iou, j = max(near, default=(0.0, -1))
        if iou < MATCHING_IOU:
            continue
        free.remove(j)
        if i < len(shown):
            ious.append(iou)
            scores.append(abs(float(got.scores[j]) - float(reference.scores[i])))
    more = sum(float(got.scores[j]) >= SHOWN_SCORE for j in free)
    mean = sum(ious) / len(ious) if ious else 1.0
    return Matches(len(shown), len(ious), more, min(ious, default=1.0), mean, max(scores))


@dataclass
class _Tally:
    """Sums over all images of one blob."""

    shape: Shape
    sums: Array = field(default_factory=lambda: np.zeros(6))
    largest: float = 0.0
    absolute: float = 0.0
    noise: float = 0.0
    own: Array | None = None
    bad: int = 0

    def add(self, got: Array, wanted: Array) -> None:
        good = np.isfinite(got)
        self.bad += int(got.size - np.count_nonzero(good))
        x, y = got[good], wanted[good]
        gap = np.abs(x - y)
        self.largest = max(self.largest, float(gap.max(initial=0.0)))
        self.absolute += float(gap.sum())
        self.noise += float((gap * gap).sum())
        self.sums += [x.size, x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]

    def add_own(self, got: Array, computed: Array) -> None:
        good = np.isfinite(got) & np.isfinite(computed)
        gap = got[good] - computed[good]
        powers = np.array([(computed[good] ** 2).sum(), (gap * gap).sum()])
        self.own = powers if self.own is None else self.own + powers

    def row(self, name: str) -> OutputRow:
        count, x, y, xx, yy, xy = self.sums.tolist()
        spread = (count * xx - x * x) * (count * yy - y * y)
        correlation = (count * xy - x * y) / math.sqrt(spread) if spread > 0 else math.nan
        own = None if self.own is None else _decibels(float(self.own[0]), float(self.own[1]))
        mean = self.absolute / count if count else math.nan
        return OutputRow(
            name, self.shape, self.largest, mean, correlation, _decibels(yy, self.noise), own, self.bad
        )  # fmt: skip


def _decibels(signal: float, noise: float) -> float:
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _tally(tallies: dict[str, _Tally], net: ReferenceNet, wanted: ImageValues, found: Mapping[str, Array]) -> None:
    for name, values in found.items():
        tallies.setdefault(name, _Tally(values.shape)).add(values, wanted.blobs[name])
    if len(set(found) - {*HEADS, SCORES}) < 1:
        return
    for name, computed in _from_own_inputs(net, wanted.blobs[net.input], found).items():
        tallies[name].add_own(found[name], computed)


def _from_own_inputs(net: ReferenceNet, fed: Array, found: Mapping[str, Array]) -> dict[str, Array]:
    """Each blob of the device computed in float64 from the device's own earlier values.

    So the difference from the device's blob is what the layers between add to the noise, and not what they were given.
    """
    layers = [layer for layer in net.layers if layer.type != "DetectionOutput"]
    last = {top: index for index, layer in enumerate(layers) for top in layer.top}
    blobs, computed = {net.input: found.get(net.input, fed)}, {}
    with np.errstate(all="ignore"):
        for index, layer in enumerate(layers):
            net.compute(layer, blobs)
            for top in layer.top:
                if top in found and last[top] == index:
                    computed[top] = blobs[top]
                    blobs[top] = found[top].reshape(blobs[top].shape)
    return computed
