"""The ArchSpec of torchvision's ssdlite320_mobilenet_v3_large.

Source: torchvision 0.29.1, models/detection/ssdlite.py, models/detection/_utils.py (BoxCoder) and
models/detection/anchor_utils.py (DefaultBoxGenerator).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from ssdlite_caffe.gen_model.arch import ArchSpec, CellBoxes, Nms
from ssdlite_caffe.gen_model.build import default_arch
from ssdlite_caffe.resizer import Resizer

_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
_RATIOS = (2, 3)
_CODE_LIMIT = math.log(1000 / 16)


def torchvision_arch(num_classes: int, *, full_tail: bool = False) -> ArchSpec:
    """The detector that torchvision's function builds.

    Args:
        num_classes: counts background, as torchvision's does.
        full_tail: as with torchvision's default for fine-tuning, an ImageNet backbone; False: halved last blocks, as of
            its COCO weights.

    Raises:
        ArchError: the class count is out of range.
    """
    arch = default_arch("v3-large", num_classes, boxes=torchvision_boxes(), score_converter="softmax")
    return replace(
        arch,
        full_tail=full_tail,
        explicit_padding=True,
        gate_scale=1 / 6,
        nms=Nms(0.55, 0.001, 300, 300, clip_first=True, top_k=300, keep_empty=True),
        resizer=Resizer(half_pixel_centers=True, normalise_first=True),
        code_limit=_CODE_LIMIT,
    )


def torchvision_boxes() -> tuple[CellBoxes, ...]:
    """The default boxes of a cell of each map, in torchvision's order; each side is cut to at most 1."""
    cells = []
    for scale, following in itertools.pairwise(_SCALES):
        middle = math.sqrt(scale * following)
        sizes = [(scale, scale), (middle, middle)]
        for root in map(math.sqrt, _RATIOS):
            sizes += [(scale / root, scale * root), (scale * root, scale / root)]
        cells.append(CellBoxes(tuple((min(h, 1.0), min(w, 1.0)) for h, w in sizes)))
    return tuple(cells)
