"""What a user says of a device's output: --output BLOB:file=out0.bin,dtype=int8,scale=0.05,zero=-3,layout=nhwc."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdlite_caffe.errors import DeviceError

DTYPES = {
    "float32": "<f4", "float16": "<f2", "float64": "<f8", "bfloat16": "<u2", "int8": "<i1", "uint8": "<u1",
    "int16": "<i2", "uint16": "<u2", "int32": "<i4",
}  # fmt: skip
"""Names of dtypes in --output, as little endian files have them."""
_KEYS = ("file", "dtype", "scale", "zero", "layout")
_MAX_LIST_BYTES = 1 << 20


@dataclass(frozen=True)
class OutputFormat:
    """What the user says of an output.

    Attributes:
        name: of the blob.
        file: name of the file in the folder, or of the array in the .npz; "" to find it by the blob's name.
        dtype: a key of DTYPES, for flat files; "" if not said.
        scale, zero: value = scale * (stored - zero); scale None if the values are not quantised.
        layout: `nchw` or `nhwc`; "" if not said.
    """

    name: str
    file: str = ""
    dtype: str = ""
    scale: float | None = None
    zero: float = 0.0
    layout: str = ""


def parse_formats(texts: Sequence[str]) -> list[OutputFormat]:
    """Read values of --output; `@FILE` stands for the lines of a file, of which empty ones and `# ...` are skipped.

    Raises:
        DeviceError: a file cannot be read, or a value is not valid, or two are for one blob.
    """
    lines: list[str] = []
    for text in texts:
        lines += _lines(Path(text[1:])) if text.startswith("@") else [text]
    formats = [parse_format(line) for line in lines]
    twice = next((name for name, count in Counter(one.name for one in formats).items() if count > 1), None)
    if twice is not None:
        raise DeviceError(f"--output {twice} is given twice")
    return formats


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_LIST_BYTES + 1)
        if len(data) > _MAX_LIST_BYTES:
            raise DeviceError(f"--output: {path} is larger than {_MAX_LIST_BYTES >> 20} MiB, the limit for a list")
        stripped = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise DeviceError(f"--output: cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DeviceError(f"--output: {path} is not UTF-8 text; it has a BLOB:key=value,... on each line") from error
    return [line for line in stripped if line and not line.startswith("#")]


def parse_format(text: str) -> OutputFormat:
    """Read `NAME:key=value,...`, with the keys file, dtype, scale, zero and layout.

    Raises:
        DeviceError: it has another form, or a value that is not allowed.
    """
    found = re.fullmatch(r"(.+?):([a-z_]+=.*)", text, re.DOTALL)
    if found is None:
        raise DeviceError(f"--output takes BLOB:key=value,... with the keys {', '.join(_KEYS)}, got {text!r}")
    said: dict[str, str] = {}
    for part in found[2].split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in _KEYS:
            raise DeviceError(f"--output {text}: the keys are {', '.join(_KEYS)}, got {part!r}")
        if key in said:
            raise DeviceError(f"--output {text}: {key} is given twice")
        said[key] = value
    if said.get("dtype", "float32") not in DTYPES:
        raise DeviceError(f"--output {text}: dtype must be one of {', '.join(DTYPES)}, got {said['dtype']!r}")
    if said.get("layout", "nchw") not in ("nchw", "nhwc"):
        raise DeviceError(f"--output {text}: layout must be nchw or nhwc, got {said['layout']!r}")
    scale = _number(text, said, "scale")
    if scale is not None and scale <= 0:
        raise DeviceError(f"--output {text}: scale must be positive, got {said['scale']}")
    zero = _number(text, said, "zero")
    if zero is not None and scale is None:
        raise DeviceError(f"--output {text}: zero needs scale; a value is scale * (stored - zero)")
    return OutputFormat(
        found[1], said.get("file", ""), said.get("dtype", ""), scale, zero or 0.0, said.get("layout", "")
    )


def _number(text: str, said: Mapping[str, str], key: str) -> float | None:
    if key not in said:
        return None
    try:
        value = float(said[key])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DeviceError(f"--output {text}: {key} must be a number, got {said[key]!r}")
    return value
