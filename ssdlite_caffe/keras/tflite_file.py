"""A TensorFlow Lite file that describes itself: outputs in a fixed order, and a zip archive appended to the model.

TensorFlow Lite's metadata has associated files in such an archive, and interpreters ignore it. This one has
`labelmap.txt`, a class name on each line without background, and `ssdlite_caffe.json`, which our commands read.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssdlite_caffe.coco.label_map import Label, LabelMap, check_classes
from ssdlite_caffe.dump.detector.raw_outputs import TFLITE_OP
from ssdlite_caffe.errors import ModelError, SsdliteError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.terminal import size_text

LABELS = "labelmap.txt"
DESCRIPTION = "ssdlite_caffe.json"
_EARLIER_IMAGE, _EARLIER_DTYPE = "picture", "numbers"
"""Names for `image` and `dtype` in files of version 0.1."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAX_BYTES = 1 << 29
_MAX_TEXT_BYTES = 1 << 22


@dataclass(frozen=True)
class Description:
    """Description of the model in the file; see `export_tflite.tflite_model`."""

    arch: ArchSpec
    labels: LabelMap
    inputs: str
    outputs: str
    dtype: str


def with_description(data: bytes, description: Description, outputs: Sequence[str]) -> bytes:
    """Name and order the outputs of a converted model, and append its description."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(data))
    graph = model.subgraphs[0]
    (signature,) = model.signatureDefs
    tensors = {output.name.decode(): output.tensorIndex for output in signature.outputs}
    graph.outputs = [tensors[name] for name in outputs]
    for name in outputs:
        graph.tensors[tensors[name]].name = name.encode()
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].customCode == TFLITE_OP.encode():
            operator.customOptions = _options(operator.customOptions, description.arch)
    (start,) = signature.inputs
    graph.tensors[start.tensorIndex].name = start.name
    ordered = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    stream = io.BytesIO(ordered)
    with zipfile.ZipFile(stream, "a") as archive:
        names = "".join(f"{entry.display_name}\n" for entry in description.labels.entries[1:])
        archive.writestr(zipfile.ZipInfo(LABELS, _EPOCH), names)
        archive.writestr(zipfile.ZipInfo(DESCRIPTION, _EPOCH), json.dumps(_to_dict(description), indent=1))
    return stream.getvalue()


def _options(given: Any, arch: ArchSpec) -> list[int]:
    """The operation's options with the limit for each class, which the converter does not write."""
    from flatbuffers import flexbuffers

    return list(flexbuffers.Dumps({**flexbuffers.Loads(bytes(given)), "detections_per_class": arch.nms.max_per_class}))


def has_description(path: Path) -> bool:
    """Whether a file has a description; False also if it cannot be read or has no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return DESCRIPTION in archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def read_description(path: Path) -> tuple[bytes, Description]:
    """The content of a file, and its description.

    Raises:
        ModelError: it cannot be read, or has no description.
    """
    if not path.is_file():
        raise ModelError(f"{path} is a folder, not a file" if path.is_dir() else f"{path} does not exist")
    if path.stat().st_size > _MAX_BYTES:
        raise ModelError(f"{path} is larger than {size_text(_MAX_BYTES)}, the limit for a MobileNet detector")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.getinfo(DESCRIPTION).file_size > _MAX_TEXT_BYTES:
                raise ModelError(f"{path}: {DESCRIPTION} in it is larger than {size_text(_MAX_TEXT_BYTES)}")
            return data, _from_dict(json.loads(archive.read(DESCRIPTION)))
    except SsdliteError:
        raise
    except Exception as error:  # zipfile raises exceptions of nearly any type for a damaged archive
        raise ModelError(
            f"{path} was not written by `ssdlite-caffe keras export tflite`: it has no readable {DESCRIPTION}"
        ) from error


def _to_dict(description: Description) -> dict[str, Any]:
    return {
        "arch": description.arch.to_dict(),
        "labels": [[entry.name, entry.display_name] for entry in description.labels.entries],
        "inputs": description.inputs,
        "outputs": description.outputs,
        "dtype": description.dtype,
    }


def _from_dict(data: dict[str, Any]) -> Description:
    labels = LabelMap(tuple(Label(i, name, shown) for i, (name, shown) in enumerate(data["labels"])))
    arch = ArchSpec.from_dict(data["arch"])
    check_classes(labels, arch.num_classes, "the model's label map")
    inputs = str(data["inputs"])
    return Description(
        arch, labels, "image" if inputs == _EARLIER_IMAGE else inputs, str(data["outputs"]),
        str(data["dtype"] if "dtype" in data else data[_EARLIER_DTYPE]),
    )  # fmt: skip
