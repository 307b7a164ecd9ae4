"""From a TensorFlow model to a folder of .npy files with a manifest that describes the detector."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.dump.store import MANIFEST, write_folder
from ssdlite_caffe.files import refuse_folder
from ssdlite_caffe.tools.convert import Progress
from ssdlite_caffe.tools.source import open_model


def dump(
    source: Path, out: Path, *, reading: ReadOptions | None = None, force: bool = False, progress: Progress
) -> dict[str, Any]:
    """Write the weights of `source` into the folder `out`, and return a summary.

    Raises:
        SsdliteError: the model cannot be read or is not an SSD MobileNet, or `out` exists.
    """
    refuse_folder(out, marker=MANIFEST, force=force)  # before the model is read
    progress(f"reading {source}")
    with open_model(source, reading) as opened:
        model, arch = opened.model, opened.arch
    progress(f"writing {out}")
    write_folder(dataclasses.replace(model, arch=arch.to_dict()), out, force=force)
    return {
        "source": model.source,
        "form": model.form,
        "arch": f"{arch.family} {arch.head} with {arch.num_classes} classes",
        "tensors": len(model.tensors),
        "values": sum(tensor.size for tensor in model.tensors.values()),
        "skipped": model.skipped,
        "origins": model.origins,
        "notes": list(model.notes),
    }


def list_tensors(source: Path, *, reading: ReadOptions | None = None) -> dict[str, Any]:
    """Names, shapes and dtypes of a model's tensors, and which tensors were skipped.

    Raises:
        SsdliteError: the model cannot be read or is not an SSD MobileNet.
    """
    with open_model(source, reading) as opened:
        model = opened.model
    rows = [
        {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}
        for name, tensor in model.tensors.items()
    ]
    return {"tensors": rows, "skipped": model.skipped}


def tensor_lines(tensors: dict[str, Any]) -> str:
    """The result of `list_tensors` as text, a tensor on each line."""
    width = max(len(row["name"]) for row in tensors["tensors"])
    return "\n".join(
        f"{row['name']:<{width}}  {row['dtype']}  {'x'.join(map(str, row['shape'])) or 'scalar'}"
        for row in tensors["tensors"]
    )
