"""Small data sets with boxes, written for tests: in VOC's layout and as COCO's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

Object = tuple[str, Sequence[float], int]
"""Name, corners in pixels, difficult."""

SIZE = (48, 80)
"""Height and width of most images."""
NAMES = ("circle", "square", "triangle")


def pixels(seed: int, height: int = SIZE[0], width: int = SIZE[1]) -> np.ndarray:
    """An image that no other seed gives, uint8 BGR (height, width, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width])


def encoded(image: np.ndarray, suffix: str = ".jpg", *options: int) -> bytes:
    import cv2

    good, data = cv2.imencode(suffix, image, list(options))
    assert good
    return bytes(data)


def voc_xml(objects: Sequence[Object], size: tuple[int, int] | None = SIZE) -> str:
    """A VOC annotation, an element a line."""
    lines = ["<annotation>"]
    if size is not None:
        lines += ["<size>", f"<width>{size[1]}</width>", f"<height>{size[0]}</height>", "<depth>3</depth>", "</size>"]
    for name, corners, difficult in objects:
        lines += ["<object>", f"<name>{escape(name)}</name>", f"<difficult>{difficult}</difficult>", "<bndbox>"]
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            lines.append(f"<{side}>{value}</{side}>")
        lines += ["</bndbox>", "</object>"]
    return "\n".join([*lines, "</annotation>", ""])


def write_voc(root: Path, images: dict[str, Sequence[Object]], split: str = "trainval") -> Path:
    """A folder in VOC's layout, with a JPEG for each name."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for seed, (name, objects) in enumerate(images.items()):
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(encoded(pixels(seed)))
        (root / "Annotations" / f"{name}.xml").write_text(voc_xml(objects))
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in images))
    return root


def some_voc(root: Path, count: int = 5) -> Path:
    """Images with one object and more, of all classes; the last is without any."""
    images: dict[str, Sequence[Object]] = {
        f"p{number}": [
            (NAMES[(number + i) % 3], (1 + 7 * i, 2 + 3 * number, 12 + 9 * i, 20 + 5 * number), (number + i) % 2)
            for i in range(1 + number % 4)
        ]
        for number in range(count - 1)
    }
    return write_voc(root, {**images, f"p{count - 1}": []})


def coco_content(count: int = 4) -> dict[str, Any]:
    """Annotations for images `a/p0.jpg` and so on; ids of categories have gaps."""
    return {
        "images": [
            {"id": 100 + i, "file_name": f"a/p{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(count)
        ],
        "categories": [{"id": 9, "name": "square"}, {"id": 2, "name": "circle"}],
        "annotations": [
            {"id": 7 * i, "image_id": 100 + i % (count - 1), "category_id": (2, 9)[i % 2], "iscrowd": int(i == 3),
             "bbox": [3.25 * i, 2.5, 10.125, 7.75 + i], "segmentation": [[1, 2, 3]], "area": 1.5}
            for i in range(6)
        ],
    }  # fmt: skip


def write_coco(folder: Path, content: object, count: int = 4) -> tuple[Path, Path]:
    """Folder of images, file of annotations."""
    (folder / "images" / "a").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / "images" / "a" / f"p{number}.jpg").write_bytes(encoded(pixels(number)))
    path = folder / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "images", path
