"""Calibration images: which of a user's images a quantiser is given, and in which form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.coco.label_map import LabelMap, numbered
from ssdlite_caffe.data.annotations import reasons, unknown_class
from ssdlite_caffe.data.labelled_images import LabelledImages, open_images
from ssdlite_caffe.errors import DatasetError, ImageError
from ssdlite_caffe.files import write_bytes, write_text
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.image_input import normalised
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.draw import write_image
from ssdlite_caffe.runtimes.images import IMAGE_SUFFIXES, Pixels, find_sources, read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.resize import caffe_blob, pixels_of
from ssdlite_caffe.targets.target import CalibrationForm

COUNT = 100
"""Images that are taken, unless another number is asked for."""
FOLDER = "calibration"
LOOKED_AT = 10
"""Images without annotations that the model looks at for each one that is taken, evenly over the list."""
SEEN = 0.3
"""Least score of a detection that counts as an object of its class, where there are no annotations."""
_KEPT_BYTES = 256 << 20
"""Decoded images that are kept until it is known which are taken; those beyond it are read again."""
_SHOWN = 8
"""Most classes that a message names."""
_MATTER = ("image skipped", "object skipped")
"""What a user is told of annotations; which classes are in an image does not depend on the rest."""
_SUFFIXES: dict[CalibrationForm, str] = {"bgr-png": ".png", "rgb-png": ".png", "npy": ".npy", "raw": ".bin"}


@dataclass(frozen=True)
class Wanted:
    """What a user asked for.

    Attributes:
        paths: one folder in VOC's layout, one COCO instances_*.json, or images and folders of images.
        count: how many images to take.
        split: of VOC data.
        images: folder of COCO's images.
    """

    paths: tuple[Path, ...]
    count: int = COUNT
    split: str = "trainval"
    images: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """An image that may be taken. `classes` are the ids of the classes in it; `read` gives uint8 (H, W, 3) BGR."""

    name: str
    classes: frozenset[int]
    read: Callable[[], Pixels]


@dataclass(frozen=True)
class Calibration:
    """The images that were chosen.

    Attributes:
        images: name and pixels, resized and padded as the model does and rounded; uint8 (height, width, 3) RGB.
        notes: what the user should know.
    """

    images: tuple[tuple[str, npt.NDArray[np.uint8]], ...]
    notes: tuple[str, ...]


def choose(classes: Sequence[frozenset[int]], count: int) -> list[int]:
    """Choose images so that every class appears, and the rest evenly over the list.

    First the classes: of those not yet seen, that with the fewest images is next, and gets the image with the most
    classes that are not yet seen. Then the largest gaps are filled.

    Args:
        classes: of each image.
        count: images to choose; all are chosen if there are no more.

    Returns:
        Indices, ascending.
    """
    if count >= len(classes):
        return list(range(len(classes)))
    chosen: set[int] = set()
    missing = {one for image in classes for one in image}
    while missing and len(chosen) < count:
        rarest = min(sorted(missing), key=lambda one: sum(one in image for image in classes))
        holding = [index for index, image in enumerate(classes) if rarest in image]
        best = max(holding, key=lambda index: len(classes[index] & missing))
        chosen.add(best)
        missing -= classes[best]
    rest = [index for index in range(len(classes)) if index not in chosen]
    wanted = count - len(chosen)
    chosen.update(rest[(2 * number + 1) * len(rest) // (2 * wanted)] for number in range(wanted))
    return sorted(chosen)


def has_annotations(wanted: Wanted) -> bool:
    """Whether the data says which classes are in an image; else the model has to look for them."""
    return any(_annotated(path) for path in wanted.paths)


def options_of(paths: Sequence[Path]) -> frozenset[str]:
    """Which of `split` and `images` say something about such data: the former of VOC's, the latter of COCO's."""
    if any(path.suffix.lower() == ".json" for path in paths):
        return frozenset({"images"})
    return frozenset({"split"}) if any((path / "Annotations").is_dir() for path in paths) else frozenset()


def check_wanted(wanted: Wanted) -> None:
    """Check what can be checked before a model is read.

    Raises:
        DatasetError: nothing is there, the kinds of data are mixed, or annotated data cannot be opened.
        ImageError: a folder has no images.
    """
    annotated = [path for path in wanted.paths if _annotated(path)]
    if annotated and len(wanted.paths) > 1:
        raise DatasetError(
            f"{annotated[0]} has annotations; give it alone to --calibrate, or only images and folders of images"
        )
    if annotated:
        # The model's classes are not known yet, and a label map saves VOC's reader to look for names in every file.
        open_images(annotated[0], numbered(2), split=wanted.split, images=wanted.images)
        return
    for source in find_sources(wanted.paths):
        if isinstance(source, ImageError):
            raise source
    if not _image_paths(wanted.paths):
        raise DatasetError(f"--calibrate: {', '.join(map(str, wanted.paths))} has no images, only videos")


def calibration_of(wanted: Wanted, folder: ModelFolder, progress: Callable[[str], None]) -> Calibration:
    """Choose images for a converted model, and resize them.

    Args:
        wanted: what was asked for.
        folder: the converted model, which finds the classes of images without annotations.
        progress: called with what is being done.

    Raises:
        SsdliteError: no image can be used.
    """
    notes: list[str] = []
    data = wanted.paths[0]
    if _annotated(data):
        progress(f"reading {data}")
        labelled = open_images(data, folder.labels, split=wanted.split, images=wanted.images)
        candidates = _from_annotations(data, labelled, notes)
    else:
        candidates = list(_from_detections(_image_paths(wanted.paths), wanted.count, folder, notes, progress))
    if not candidates:
        raise DatasetError(f"--calibrate: no image of {data} can be used: {'; '.join(notes) or 'there is none'}")
    picked = choose([one.classes for one in candidates], wanted.count)
    images: list[tuple[str, npt.NDArray[np.uint8]]] = []
    seen: set[int] = set()
    for index in picked:
        candidate = candidates[index]
        try:
            image = candidate.read()
        except (ImageError, DatasetError) as error:
            notes.append(f"skipped: {error}")
            continue
        seen |= candidate.classes
        images.append((candidate.name, resized(folder.arch, image[..., ::-1])))
    if not images:
        raise DatasetError(f"--calibrate: no image of {data} can be read: {notes[-1]}")
    if len(images) < wanted.count:
        taken = "1 calibration image" if len(images) == 1 else f"{len(images)} calibration images"
        notes.append(f"{taken}, fewer than the {wanted.count} that were asked for")
    return Calibration(tuple(images), (*notes, *_unseen(folder.labels, seen)))


def resized(arch: ArchSpec, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An image, uint8 (H, W, 3) RGB, resized and padded as the model does, rounded to uint8."""
    return np.rint(np.clip(pixels_of(arch, image), 0, 255)).astype(np.uint8)


def write_calibration(folder: Path, calibration: Calibration, form: CalibrationForm, arch: ArchSpec, name: str) -> None:
    """Write images and their list, a file `name`, into a target's folder.

    The list has a path a line, as seen from the folder.
    """
    (folder / FOLDER).mkdir()
    lines = []
    for number, (_, image) in enumerate(calibration.images):
        path = f"{FOLDER}/{number:04d}{_SUFFIXES[form]}"  # a user's own names may have blanks, which lists cannot hold
        _write(folder / path, image, form, arch)
        lines.append(f"{path}\n")
    write_text(folder / name, "".join(lines))


def _write(path: Path, image: npt.NDArray[np.uint8], form: CalibrationForm, arch: ArchSpec) -> None:
    if form in ("bgr-png", "rgb-png"):
        # write_image takes BGR and writes a usual, RGB, file.
        write_image(path, np.ascontiguousarray(image if form == "bgr-png" else image[..., ::-1]))
        return
    fed = caffe_blob(normalised(image[None].astype("<f4"), arch.pixel_mean, arch.pixel_scale))
    if form == "npy":
        np.save(path, fed, allow_pickle=False)
    else:
        write_bytes(path, fed.tobytes())


def _annotated(path: Path) -> bool:
    return path.suffix.lower() == ".json" or (path / "Annotations").is_dir() or (path / "data.mdb").is_file()


def _image_paths(paths: Sequence[Path]) -> list[Path]:
    """The images; one that is given twice, also by way of its folder or a link, is there once."""
    found = [source for source in find_sources(paths) if not isinstance(source, ImageError)]
    images = [source.path for source in found if source.path.suffix.lower() in IMAGE_SUFFIXES]
    once: dict[Path, Path] = {}
    for path in images:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def _from_annotations(data: Path, labelled: LabelledImages, notes: list[str]) -> list[Candidate]:
    """The images with their classes; what was skipped is added to `notes`.

    Raises:
        DatasetError: there are objects, and the model has the class of none.
    """
    candidates, keep = [], _Keep()
    problems = list(labelled.problems)
    for number in range(len(labelled)):
        try:
            image, wrong = labelled.read(number)
        except (ImageError, DatasetError) as error:
            notes.append(f"skipped: {error}")
            continue
        problems += wrong
        classes = frozenset(box.label for box in image.boxes)
        candidates.append(Candidate(image.name, classes, keep(image.pixels, _reader(labelled, number))))
    unknown = Counter(name for name in map(unknown_class, problems) if name)
    counted = _listed([f"{name} ({count})" for name, count in unknown.most_common()])
    if unknown and not any(one.classes for one in candidates):
        known = _listed(labelled.labels.display_names[1:])
        raise DatasetError(
            f"--calibrate: no object of {data} is of the model's classes, {known}; "
            f"it has {counted}; give the class names that the model was trained with, with --label-map"
        )
    if unknown:
        objects = "1 object" if unknown.total() == 1 else f"{unknown.total()} objects"
        notes.append(f"{objects} skipped, of classes that the model does not have: {counted}")
    others = [one for one in problems if one.effect in _MATTER and unknown_class(one) is None]
    notes += reasons(others, len(others))
    return candidates


class _Keep:
    """Keeps decoded images, so that those that are taken are not decoded again; not more than _KEPT_BYTES of them."""

    def __init__(self) -> None:
        self._bytes = 0

    def __call__(self, image: Pixels, again: Callable[[], Pixels]) -> Callable[[], Pixels]:
        """What gives this image later; `again` reads it."""
        self._bytes += image.nbytes
        if self._bytes > _KEPT_BYTES:
            return again
        return lambda: image


def _reader(labelled: LabelledImages, number: int) -> Callable[[], Pixels]:
    return lambda: labelled.read(number)[0].pixels


def _from_detections(
    paths: Sequence[Path], count: int, folder: ModelFolder, notes: list[str], progress: Callable[[str], None]
) -> Iterator[Candidate]:
    detector, keep = Detector(folder), _Keep()
    most = LOOKED_AT * count
    if len(paths) > most:
        notes.append(f"looked for classes in {most} of {len(paths)} images, evenly over the list")
        paths = [paths[(2 * number + 1) * len(paths) // (2 * most)] for number in range(most)]
    for number, path in enumerate(paths, start=1):
        progress(f"calibration: looking for classes in image {number} of {len(paths)}")
        try:
            image = read_image(path)
            found = detector(image)
        except ImageError as error:
            notes.append(f"skipped: {error}")
            continue
        classes = frozenset(int(one) for one in found.classes[found.scores >= SEEN])
        yield Candidate(path.name, classes, keep(image, _image_of(path)))


def _image_of(path: Path) -> Callable[[], Pixels]:
    return lambda: read_image(path)


def _unseen(labels: LabelMap, seen: set[int]) -> list[str]:
    names = [name for number, name in enumerate(labels.display_names) if number and number not in seen]
    if not names:
        return []
    what = "the class" if len(names) == 1 else f"any of the {len(names)} classes:"
    return [f"no calibration image has {what} {_listed(names)}"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
