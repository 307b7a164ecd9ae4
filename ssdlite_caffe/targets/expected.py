"""The folder `expected` of a target's folder: for a few images, what its nets are given and should give."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.errors import ImageError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.runtimes.folder_files import EXPECTED, EXPECTED_IMAGE, is_target_file
from ssdlite_caffe.runtimes.joined_heads import outputs_per_map
from ssdlite_caffe.tools.device_reference import HEADS

_COPIED = (EXPECTED_IMAGE, "image.bin", "input.npy", "input.bin", "detections.json")
_RAW = HEADS[:2]
"""mbox_loc, mbox_conf."""


def write_expected(folder: Path, source: Path, nets: Sequence[caffe_pb2.NetParameter]) -> int:
    """Write the folder `expected` of a target.

    Args:
        folder: of the target.
        source: `expected` of the converted folder, from `tools.expected`.
        nets: the target's, that end at raw outputs.

    Returns:
        The number of images; each has a folder with its inputs, its detections, and a file for each output of `nets`.

    Raises:
        ImageError: the name of an image cannot be that of a folder that a report names.
    """
    images = sorted(path for path in source.iterdir() if path.is_dir())
    for image in images:
        place = folder / EXPECTED / image.name
        if not is_target_file(f"{folder.name}/{EXPECTED}/{image.name}"):
            raise ImageError(f"the image {image.name!a} cannot have a folder of its name here; rename it")
        place.mkdir(parents=True)
        for file in _COPIED:
            shutil.copyfile(image / file, place / file)
        heads = {name: np.load(image / f"{name}.npy", allow_pickle=False) for name in _RAW}
        for net in nets:
            for name, values in outputs_of(heads, net).items():
                np.save(place / f"{file_name(name)}.npy", values, allow_pickle=False)
    return len(images)


def outputs_of(heads: Mapping[str, FloatArray], net: caffe_pb2.NetParameter) -> dict[str, FloatArray]:
    """The raw outputs of a net: the joined ones, or those of each feature map, cut from them.

    Args:
        heads: mbox_loc and mbox_conf, (1, values) each.
        net: its prototxt.

    Returns:
        (1, values) by name.
    """
    parts = outputs_per_map(net)
    if not parts:
        return dict(heads)
    shapes = infer(net).blobs
    found: dict[str, FloatArray] = {}
    for head, names in parts.items():
        sizes = [int(np.prod(shapes[name] or ())) for name in names]
        pieces = np.split(heads[head], np.cumsum(sizes)[:-1], axis=1)
        found.update(zip(names, pieces, strict=True))
    return found


def file_name(blob: str) -> str:
    """A blob's name as that of a file: other characters than letters and digits become _."""
    return re.sub(r"\W", "_", blob)
