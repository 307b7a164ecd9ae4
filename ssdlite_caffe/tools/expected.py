"""The folder `expected` of a converted folder: for a few images, what a device gets and what it should give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.files import write_bytes, write_text
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.runtimes.draw import write_image
from ssdlite_caffe.runtimes.folder_files import EXPECTED, EXPECTED_IMAGE
from ssdlite_caffe.runtimes.images import IMAGE_SUFFIXES, find_sources, read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.resize import caffe_blob, pixels_of
from ssdlite_caffe.tools.convert import Progress
from ssdlite_caffe.tools.device_reference import HEADS, SCORES, DeviceReference, ImageValues
from ssdlite_caffe.tools.source import OpenedModel

_README = "README.md"


@dataclass(frozen=True)
class NamedPixels:
    """An image, uint8 (H, W, 3) RGB, and the name of its folder."""

    name: str
    pixels: npt.NDArray[np.uint8]


def read_expected_images(paths: Sequence[Path]) -> list[NamedPixels]:
    """Read the images to write outputs of.

    Args:
        paths: images and folders of such.

    Raises:
        ImageError: one cannot be read, or two have the same name without suffix.
    """
    found: dict[str, NamedPixels] = {}
    for source in find_sources(paths):
        if isinstance(source, ImageError):
            raise source
        if source.path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ImageError(f"{source.path} is not an image; --expected takes images and folders of images")
        name = source.path.stem
        if name in found:
            raise ImageError(f"two images are named {name}, and each has a folder of its name; rename one")
        found[name] = NamedPixels(name, np.ascontiguousarray(read_image(source.path)[:, :, ::-1]))
    return list(found.values())


def write_expected(
    folder: Path, opened: OpenedModel, images: Sequence[NamedPixels], progress: Progress = lambda _: None
) -> list[str]:
    """Write `expected` into a converted folder.

    Each image is resized as TensorFlow does and rounded to whole numbers, so that a device that takes images and one
    that takes normalised values get the same; the outputs are those of the rounded image.

    Args:
        folder: what `convert` wrote, from `opened`.
        opened: the model.
        images: from `read_expected_images`.
        progress: called with what is being done.

    Returns:
        The names of the images' folders.

    Raises:
        SsdliteError: the model cannot be run, or a file cannot be written.
    """
    model = ModelFolder.open(folder)
    progress("starting what runs the model")
    with opened.run() as running:
        reference = DeviceReference(opened, model, running)
        for image in images:
            progress(f"computing {image.name}")
            small = np.rint(np.clip(pixels_of(model.arch, image.pixels), 0, 255)).astype(np.uint8)
            _write_image(folder / EXPECTED / image.name, model, small, reference.image(small))
    write_text(folder / EXPECTED / _README, _readme(model, reference.runs_in))
    return [image.name for image in images]


def _write_image(folder: Path, model: ModelFolder, image: npt.NDArray[np.uint8], values: ImageValues) -> None:
    folder.mkdir(parents=True)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    write_image(folder / EXPECTED_IMAGE, bgr)
    write_bytes(folder / "image.bin", bgr.tobytes())
    arrays: dict[str, npt.NDArray[Any]] = {"input": caffe_blob(values.fed)}
    arrays.update((name, values.blobs[name]) for name in (*HEADS, SCORES))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array, "<f4"), allow_pickle=False)
    write_bytes(folder / "input.bin", arrays["input"].astype("<f4").tobytes())
    write_text(folder / "detections.json", json.dumps(_detections(model, values), indent=2) + "\n")


def _detections(model: ModelFolder, values: ImageValues) -> list[dict[str, Any]]:
    found, names = values.detections, model.labels.display_names
    return [
        {"class": int(number), "name": names[number], "score": float(score), "box": [float(v) for v in box]}
        for number, score, box in zip(found.classes, found.scores, found.boxes, strict=True)
    ]


def _readme(model: ModelFolder, runs_in: str) -> str:
    arch = model.arch
    height, width = arch.input_size
    count, classes = build(arch).num_default_boxes, arch.num_classes
    normalised = f"(value - {arch.pixel_mean:g}) * {arch.pixel_scale:.9g}"
    return f"""# Expected outputs

One folder an image. Its values are those of the model in {runs_in}, on `{EXPECTED_IMAGE}`.

| file | what it is |
|---|---|
| `{EXPECTED_IMAGE}` | the image in the net's size, {height} x {width} (height x width), resized as TensorFlow does |
| `image.bin` | the same, uint8 {height} x {width} x 3, blue, green, red of each pixel |
| `input.npy`, `input.bin` | the net's input, float32 1 x 3 x {height} x {width}, BGR: {normalised} |
| `mbox_loc.npy` | box encodings, float32 1 x {4 * count}: x, y, width, height of each of {count} default boxes |
| `mbox_conf.npy` | logits, float32 1 x {count * classes}: {classes} classes of each default box, background first |
| `mbox_conf_flatten.npy` | scores in the same order ({arch.score_converter} of the logits) |
| `mbox_priorbox.npy` | default boxes, float32 1 x 2 x {4 * count}: corners, then variances |
| `detections.json` | detections: class id, name, score, box as xmin, ymin, xmax, ymax in fractions of the image |

`.npy` files are numpy's, `.bin` files flat little endian values. To compare a device's outputs with these:

    ssdlite-caffe verify MODEL FOLDER --dump OUTPUTS
"""
