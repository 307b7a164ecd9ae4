"""The models that exactness.py measures, and where they are."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import common

Images = Literal["blood cells", "drawn scenes"]
CELLS = ("RBC", "WBC", "Platelets")
SHAPES = ("circle", "square", "triangle")


@dataclass(frozen=True)
class Known:
    """A model that the pages name.

    Attributes:
        title: how the pages name it.
        images: what it is compared on; None: blood cells, or drawn images where they are not at hand.
        classes: names of its first classes; empty: no average precision is measured.
        class_count: without background; 0: as many as there are names.
        inexact: whether the cost of the inexact dialects is measured.
    """

    title: str
    images: Images | None = None
    classes: tuple[str, ...] = ()
    class_count: int = 0
    inexact: bool = False

    def label_map(self) -> str:
        """A label file: a name on each line."""
        others = (f"class {number}" for number in range(len(self.classes) + 1, self.class_count + 1))
        return "".join(f"{name}\n" for name in (*self.classes, *others))


KNOWN: dict[str, Known] = {
    "bccd_v2_ssdlite_3": Known("V2-SSDLite 300, 3 classes, trained", "blood cells", CELLS, inexact=True),
    "zoo2018_v2_ssdlite_90": Known("V2-SSDLite 300, the zoo's 2018 graph, trained", "blood cells", CELLS, 90),
    "examples": Known("V3-small-SSDLite 320, 3 classes, trained (`examples/`)", "drawn scenes", SHAPES, inexact=True),
    "shapes_v3_small_3": Known("V3-small-SSDLite 320, 3 classes, trained with the OD API", "drawn scenes"),
    "zoo_like_v3_small_3": Known("V3-small-SSDLite 320, the same, exported for TensorFlow Lite", "drawn scenes"),
    "random_v3_large_90": Known("V3-large-SSDLite 320, 90 classes, random weights", "blood cells"),
    "random_v2_075_20": Known("V2-SSDLite 0.75x 320, 20 classes, random weights", "blood cells"),
    "random_v3_small_37": Known("V3-small-SSDLite 288x352, 37 classes, random weights", "blood cells"),
}
"""By name: the model's folder, or what stands before the = of --model."""


@dataclass(frozen=True)
class Found:
    """A model at hand: its folder, and what is known of it."""

    name: str
    folder: Path
    known: Known


def find(models: Path, others: Iterable[str]) -> dict[str, Found]:
    """The example, `models` or every folder in it, and those given as NAME=FOLDER, in the order of KNOWN."""
    folders = {"examples": common.ROOT / "examples"}
    if not models.is_dir():
        sys.exit(f"{models} is no folder; give a folder of models with --models")
    if (models / common.GRAPH).is_file():
        folders[models.resolve().name] = models
    else:
        folders |= {path.name: path for path in sorted(models.iterdir()) if path.is_dir()}
    for text in others:
        name, separator, folder = text.partition("=")
        if not separator or not name or not Path(folder).is_dir():
            sys.exit(f"--model must be NAME=FOLDER with a folder that exists, got {text!r}")
        if name in folders:
            sys.exit(f"--model {text}: {folders[name]} has that name already; give another one")
        folders[name] = Path(folder)
    order = [*(name for name in KNOWN if name in folders), *sorted(set(folders) - set(KNOWN))]
    return {name: Found(name, folders[name], KNOWN.get(name, Known(name))) for name in order}
