"""Detecting objects in images, folders and videos with a converted model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssdlite_caffe.errors import ImageError, ModelError, OutputError, SsdliteError
from ssdlite_caffe.files import refuse_existing
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.imports import import_opencv
from ssdlite_caffe.load.own_boxes import code_limits
from ssdlite_caffe.prototxt.text import format_message, read_net
from ssdlite_caffe.runtimes.decode import convert_scores, decode, detections_of, split_priors
from ssdlite_caffe.runtimes.decode_tflite import anchors_of, clip_keeping_all, decode_centres, postprocess
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.draw import can_write, draw_detections, write_image
from ssdlite_caffe.runtimes.images import Pixels, Source, Video, find_sources, read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime, RunningNet, open_net
from ssdlite_caffe.runtimes.opencv_net import path_for_opencv
from ssdlite_caffe.runtimes.resize import caffe_blob, input_of, window_of

Decoder = Literal["caffe", "numpy", "tflite"]

_HEADS = ("mbox_loc", "mbox_conf", "mbox_priorbox")


@dataclass(frozen=True)
class ImageResult:
    """Detections in one image, or in one frame of a video.

    Attributes:
        path: of the image or video.
        frame: index of the frame, from 0; None for an image.
        height, width: in pixels.
        detections: best first, clipped to the image.
    """

    path: Path
    frame: int | None
    height: int
    width: int
    detections: Detections


class Detector:
    """A converted model that has been loaded; call it with an image.

    Attributes:
        labels: the classes, background first; `labels.display_names[class_id]` is a class name.
        score_threshold: least score of a detection.
    """

    def __init__(
        self,
        folder: ModelFolder | str | os.PathLike[str],
        decoder: Decoder = "caffe",
        runtime: NetRuntime = "opencv",
        score_threshold: float | None = None,
    ) -> None:
        """Load the net.

        Args:
            folder: the converted model, or its path.
            decoder: `caffe` runs the deploy net with its DetectionOutput layer; `numpy` runs the headless net and the
                reference decoder; `tflite` runs the headless net and TensorFlow Lite's post-processing in numpy, with
                the options that the model was exported with.
            runtime: `opencv` or `caffe`.
            score_threshold: least score of a detection, in place of the converted model's; for the decoder `caffe`.

        Raises:
            SsdliteError: the runtime is not installed, or cannot load the net.
        """
        if not isinstance(folder, ModelFolder):
            folder = ModelFolder.open(Path(folder))
        self.labels = folder.labels
        self._arch = folder.arch
        self._decoder = decoder
        self._tflite_nms = folder.tflite_nms
        self.score_threshold = folder.arch.nms.score_threshold
        if decoder == "tflite" and self._tflite_nms is None:
            raise ModelError(
                f"{folder.path} has no options for --decoder tflite: it was not converted from a model that ends in "
                "TFLite_Detection_PostProcess"
            )
        if decoder != "caffe":
            assert score_threshold is None, "for the decoder `caffe`"
            self._net = folder.open_headless(runtime)
            return
        self._net, self.score_threshold = _open_deploy(folder, runtime, score_threshold)

    def __call__(self, image: Pixels) -> Detections:
        """Detections in an image, uint8 (H, W, 3) BGR; boxes are clipped to the image."""
        arch = self._arch
        window = window_of((image.shape[0], image.shape[1]), arch.resizer)
        blob = caffe_blob(input_of(arch, image[..., ::-1]))
        if self._decoder == "caffe":
            return detections_of(arch, self._net.detect(blob), window)
        loc, conf, priors = self._net.forward(blob, _HEADS).values()
        if self._decoder == "tflite" and self._tflite_nms is not None:
            corners, variances = split_priors(priors)
            scores = convert_scores(conf.reshape(len(corners), -1), arch.score_converter)
            x, y, width, height = variances[0]
            encodings, anchors = loc.reshape(-1, 4)[:, [1, 0, 3, 2]], anchors_of(corners[:, [1, 0, 3, 2]])
            boxes = decode_centres(encodings, anchors, (1 / y, 1 / x, 1 / height, 1 / width))
            return clip_keeping_all(postprocess(boxes, scores, self._tflite_nms), window)
        limits = code_limits(build(arch), split_priors(priors)[0]) if arch.code_limit is not None else None
        return decode(loc, conf, priors, arch.nms, converter=arch.score_converter, window=window, limits=limits)


def _open_deploy(folder: ModelFolder, runtime: NetRuntime, score_threshold: float | None) -> tuple[RunningNet, float]:
    """The deploy net, with its score threshold or another one, and that threshold."""
    net = read_net(folder.deploy_prototxt)
    ends = [layer.detection_output_param for layer in net.layer if layer.type == "DetectionOutput"]
    if score_threshold is None or not ends:
        own = max((end.confidence_threshold for end in ends), default=0.0)
        return open_net(runtime, folder.deploy_prototxt, folder.deploy_caffemodel), own
    for end in ends:
        end.confidence_threshold = score_threshold
    with tempfile.TemporaryDirectory(prefix="ssdlite-caffe.") as scratch:
        changed = Path(scratch) / folder.deploy_prototxt.name
        changed.write_text(format_message(net), "utf-8")
        try:
            running = open_net(runtime, changed, folder.deploy_caffemodel)
        except SsdliteError as error:
            raise type(error)(str(error).replace(str(changed), str(folder.deploy_prototxt))) from error
    running.prototxt = folder.deploy_prototxt
    return running, score_threshold


def detect(
    folder: ModelFolder,
    inputs: Sequence[Path],
    *,
    decoder: Decoder = "caffe",
    runtime: NetRuntime = "opencv",
    score_threshold: float = 0.3,
    out: Path | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[ImageResult | ImageError]:
    """Detect objects in each image and frame, and draw them.

    Args:
        folder: the converted model.
        inputs: images, videos and folders.
        decoder: see `Detector`.
        runtime: see `Detector`.
        score_threshold: least score of a detection, 0 to 1.
        out: folder for the images with boxes, which keep their file names, and for videos, as .mp4; the second file of
            the same name gets a number.
        force: replace files in `out`.
        progress: called with the number of images and frames done and the total, before each of them and at the end.

    Yields:
        The result for each image or frame, in order; an error in place of an image that cannot be read.

    Raises:
        OutputError: an output file exists already, is one of the inputs, or cannot be written.
        SsdliteError: the runtime is not installed, or cannot load the net.
    """
    yield from detect_with(
        lambda: Detector(folder, decoder, runtime), folder.labels.display_names, inputs,
        score_threshold=score_threshold, out=out, force=force, progress=progress,
    )  # fmt: skip


def detect_with(
    opened: Callable[[], Callable[[Pixels], Detections]],
    names: Sequence[str],
    inputs: Sequence[Path],
    *,
    score_threshold: float = 0.3,
    out: Path | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[ImageResult | ImageError]:
    """`detect` with any detector.

    Args:
        opened: loads the detector; called after inputs and outputs have been checked.
        names: of the classes, background first.
        inputs: see `detect`, also for results and errors.
        score_threshold: see `detect`.
        out: see `detect`.
        force: see `detect`.
        progress: see `detect`.
    """
    sources = find_sources(inputs)
    if not any(isinstance(source, Source) for source in sources):
        yield from (source for source in sources if isinstance(source, ImageError))
        return
    targets = [None] * len(sources) if out is None else _targets(sources, out, force=force)
    detector = opened()
    done, total = 0, len(sources)
    for source, target in zip(sources, targets, strict=True):
        progress(done, total)
        if isinstance(source, ImageError):
            done += 1
            yield source
            continue
        before, frames = done, 1
        try:
            with _opened(source) as (images, rate, frames), _sink(target, rate) as write:
                total += frames - 1
                for number, image in enumerate(images):
                    progress(done, total)
                    try:
                        found = detector(image).above(score_threshold)
                    except ImageError as error:  # the detector does not know the file
                        raise ImageError(f"{source.path}: {error}") from error
                    if write is not None:
                        write(draw_detections(image, found, names))
                    done += 1
                    height, width = image.shape[:2]
                    yield ImageResult(source.path, number if source.video else None, height, width, found)
        except ImageError as error:
            yield error
        done = before + frames
    progress(done, total)


@contextmanager
def _opened(source: Source) -> Iterator[tuple[Iterator[Pixels], float | None, int]]:
    """The images of a source, the frame rate (None for a single image), and the expected number of images."""
    if not source.video:
        yield iter([read_image(source.path)]), None, 1
        return
    with Video(source.path) as video:
        yield iter(video), video.rate, max(1, video.count)


@contextmanager
def _sink(target: Path | None, rate: float | None) -> Iterator[Callable[[Pixels], None] | None]:
    """A function that writes the drawn images of one source, None without a target; a video appears when complete."""
    if target is None:
        yield None
    elif rate is None:
        yield lambda image: write_image(target, image, force=True)
    else:
        with _video_sink(target, rate) as write:
            yield write


@contextmanager
def _video_sink(target: Path, rate: float) -> Iterator[Callable[[Pixels], None]]:
    cv2 = import_opencv()
    writer: Any = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            part = Path(folder) / target.name

            def write(image: Pixels) -> None:
                nonlocal writer
                if writer is None:
                    height, width = image.shape[:2]
                    code = cv2.VideoWriter.fourcc(*"mp4v")
                    writer = cv2.VideoWriter(path_for_opencv(part), cv2.CAP_FFMPEG, code, rate, (width, height))
                    if not writer.isOpened():
                        raise ImageError(f"cannot write {target}: the installed OpenCV has no MPEG-4 encoder")
                writer.write(image)

            try:
                yield write
            finally:
                if writer is not None:
                    writer.release()
            part.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def _targets(sources: Sequence[Source | ImageError], out: Path, *, force: bool) -> list[Path | None]:
    """The output file of each source, all different.

    Raises:
        OutputError: one exists and `force` is false, or is one of the inputs.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; -o must name a folder")
    read = {source.path.resolve() for source in sources if isinstance(source, Source)}
    taken: set[str] = set()
    targets: list[Path | None] = []
    for source in sources:
        if isinstance(source, ImageError):
            targets.append(None)
            continue
        suffix = ".mp4" if source.video else source.path.suffix if can_write(source.path.suffix) else ".png"
        name, number = f"{source.path.stem}{suffix}", 2
        # On some file systems Cat.jpg and cat.jpg are the same file.
        while name.casefold() in taken:
            name, number = f"{source.path.stem}_{number}{suffix}", number + 1
        taken.add(name.casefold())
        target = out / name
        if target.resolve() in read:
            raise OutputError(f"{target} is an input and would be overwritten; give another folder with -o")
        refuse_existing(target, force=force)
        targets.append(target)
    return targets
