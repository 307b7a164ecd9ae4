"""Drawn scenes of circles, squares and triangles: training data that is generated, and free of licenses.

A scene is a gradient of two colours with noise, and one to six shapes on it whose boxes do not touch. Only the outline
of a shape depends on its class: size, position and colour have the same distribution for all classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.lmdb_store import LABEL_MAP
from ssdlite_caffe.data.voc_lists import ANNOTATIONS, IMAGES, SPLITS
from ssdlite_caffe.files import new_folder, refuse_existing, write_text
from ssdlite_caffe.runtimes.draw import write_image

Layout = Literal["voc", "coco"]

CLASSES = ("circle", "square", "triangle")
MARKER = "shapes.json"
_DECIMALS = 2


@dataclass(frozen=True)
class ToyObject:
    """One shape: class id (1 circle, 2 square, 3 triangle) and box (xmin, ymin, xmax, ymax) in pixels."""

    label: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class ShapesOptions:
    """What to draw.

    Attributes:
        count: number of scenes.
        seed: the same seed gives the same scenes, and different seeds give different ones.
        layout: of the folder.
        split: name of the list in ImageSets/Main (VOC), or of the annotation file and the folder of images (COCO).
        side: height and width in pixels.
    """

    count: int
    seed: int
    layout: Layout = "voc"
    split: str = "trainval"
    side: int = 320


def draw_scene(seed: int | Sequence[int], side: int = 320) -> tuple[np.ndarray, list[ToyObject]]:
    """An image, uint8 RGB (side, side, 3), and its objects; the same seed gives the same scene.

    The gradient is vertical or horizontal, each channel from 30 to 220, with Gaussian noise of sigma 2 to 14. Half
    sizes r are 0.05 to 0.22 of the side. A circle has the radius r and a square the side 2r; a triangle has its apex
    in the middle of the top edge of the box (2r, 2r), and its base is the bottom edge.
    """
    random = np.random.default_rng(seed)
    ends = random.uniform(30, 220, (2, 3))
    ramp = np.linspace(0, 1, side)[:, None]
    gradient = ends[0] * (1 - ramp) + ends[1] * ramp
    image = np.broadcast_to(gradient[:, None] if random.random() < 0.5 else gradient[None], (side, side, 3)).copy()
    shapes: list[ToyObject] = []
    wanted = random.integers(1, 7)
    for _ in range(60):
        if len(shapes) == wanted:
            break
        radius = random.uniform(0.05, 0.22) * side
        x, y = random.uniform(radius, side - radius, 2)
        box = (x - radius, y - radius, x + radius, y + radius)
        if any(_touch(box, other.box) for other in shapes):
            continue
        label = int(random.integers(1, 4))
        image[_mask(label, x, y, radius, side)] = random.uniform(0, 255, 3)
        shapes.append(ToyObject(label, box))
    image += random.normal(0, random.uniform(2, 14), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), shapes


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _mask(label: int, x: float, y: float, radius: float, side: int) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] + 0.5
    if label == 1:
        circle: np.ndarray = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
        return circle
    inside: np.ndarray = (abs(rows - y) <= radius) & (abs(columns - x) <= radius)
    if label == 3:
        inside &= abs(columns - x) <= (rows - (y - radius)) / 2
    return inside


def make_shapes(
    out: Path,
    options: ShapesOptions,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Draw scenes into a folder in VOC's or COCO's layout, with a label map.

    Args:
        out: the folder.
        options: what to draw.
        force: replace an earlier folder of scenes.
        progress: called with the number of scenes done and the total.

    Returns:
        The report that is written as shapes.json.

    Raises:
        OutputError: the folder has other content, exists and `force` is false, or cannot be written.
        MissingRuntimeError: OpenCV is not installed.
    """
    refuse_existing(out, force=force)
    labels = LabelMap.of_names(CLASSES)
    with new_folder(out, marker=MARKER, force=force) as folder:
        scenes = _scenes(folder, options, progress)
        counts = (_write_voc if options.layout == "voc" else _write_coco)(folder, options, scenes)
        write_text(folder / LABEL_MAP, labels.to_prototxt())
        report = {
            "scenes": options.count,
            "seed": options.seed,
            "layout": options.layout,
            "split": options.split,
            "side": options.side,
            "objects": {name: counts[class_id] for class_id, name in enumerate(CLASSES, 1)},
        }
        write_text(folder / MARKER, json.dumps(report, indent=2) + "\n")
    return report


def _scenes(
    folder: Path, options: ShapesOptions, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, list[ToyObject]]]:
    """Draw and write the images; yields the name without suffix and the objects of each."""
    images = folder / (IMAGES if options.layout == "voc" else options.split)
    digits = max(6, len(str(options.count)))
    for number in range(options.count):
        pixels, shapes = draw_scene((options.seed, number), options.side)
        name = f"{number:0{digits}d}"
        write_image(images / f"{name}.jpg", np.ascontiguousarray(pixels[..., ::-1]))
        yield name, shapes
        progress(number + 1, options.count)


def _write_voc(folder: Path, options: ShapesOptions, scenes: Iterator[tuple[str, list[ToyObject]]]) -> list[int]:
    counts = [0] * (len(CLASSES) + 1)
    names = []
    for name, shapes in scenes:
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
        size = ElementTree.SubElement(root, "size")
        for key, value in (("width", options.side), ("height", options.side), ("depth", 3)):
            ElementTree.SubElement(size, key).text = str(value)
        for shape in shapes:
            counts[shape.label] += 1
            item = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(item, "name").text = CLASSES[shape.label - 1]
            ElementTree.SubElement(item, "difficult").text = "0"
            box = ElementTree.SubElement(item, "bndbox")
            for key, edge in zip(("xmin", "ymin", "xmax", "ymax"), shape.box, strict=True):
                ElementTree.SubElement(box, key).text = f"{edge:.{_DECIMALS}f}"
        ElementTree.indent(root)
        write_text(folder / ANNOTATIONS / f"{name}.xml", ElementTree.tostring(root, "unicode") + "\n")
        names.append(name)
    write_text(folder / SPLITS / f"{options.split}.txt", "".join(f"{name}\n" for name in names))
    return counts


def _write_coco(folder: Path, options: ShapesOptions, scenes: Iterator[tuple[str, list[ToyObject]]]) -> list[int]:
    counts = [0] * (len(CLASSES) + 1)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, shapes) in enumerate(scenes, 1):
        images.append({"id": number, "file_name": f"{name}.jpg", "height": options.side, "width": options.side})
        for shape in shapes:
            counts[shape.label] += 1
            xmin, ymin, xmax, ymax = (round(edge, _DECIMALS) for edge in shape.box)
            width, height = round(xmax - xmin, _DECIMALS), round(ymax - ymin, _DECIMALS)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": shape.label,
                    "bbox": [xmin, ymin, width, height],
                    "area": round(width * height, _DECIMALS),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": class_id, "name": name} for class_id, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(folder / "annotations" / f"instances_{options.split}.json", json.dumps(content) + "\n")
    return counts
