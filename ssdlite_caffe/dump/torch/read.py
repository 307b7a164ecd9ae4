"""Reading a detector from a state_dict of PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.model import ConvUnit, DumpedModel
from ssdlite_caffe.dump.torch.other_models import known_model
from ssdlite_caffe.dump.torch.state_dict import Tensor, read_state_dict
from ssdlite_caffe.dump.torch.torchvision import (
    BOXES_PER_CELL,
    CONSTANTS,
    MARK,
    TITLE,
    Layer,
    layers,
    settings_of,
    tensorflow_layout,
    unit_of,
)
from ssdlite_caffe.errors import ModelError, TensorError

_BESIDE = ("num_batches_tracked", "n_averaged")
"""Ends of names that count steps of training."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "ema.", "ema_model.", "net.", "detector.")
_MOST_LISTED = 4


def read_torch_model(path: Path, *, ema: bool = False) -> DumpedModel:
    """Read torchvision's ssdlite320_mobilenet_v3_large.

    Args:
        path: a file of torch.save with a state_dict or a training checkpoint, or a .safetensors file.
        ema: take the moving averages of a training checkpoint.

    Raises:
        ModelError: the file is damaged, of another kind or of another model, or has other tensors than the model.
        TensorError: a tensor reaches beyond its storage, is of another type or shape, or holds NaN or Inf.
        MissingRuntimeError: it is a .safetensors file, and the library safetensors is not installed.
    """
    found = read_state_dict(path, ema=ema)
    tensors, prefix = without_prefix(found.tensors)
    wanted = layers()
    skipped = _checked(path, tensors, wanted, prefix)
    sizes = [tensors[name].nbytes for layer in wanted for name in layer.parts.values()]
    total = sum(size for size in sizes if size <= found.size)  # reading a larger one says what is wrong with it
    if total > found.size:  # each would be copied
        raise TensorError(
            f"the tensors of {path} have {total} bytes together, more than the file, which has {found.size}: they lie "
            "over each other"
        )
    values: dict[str, FloatArray] = {}
    for layer in wanted:
        for part, name in layer.parts.items():
            values[name] = tensorflow_layout(layer, part, _float32(path, name, tensors[name]))
    units = tuple(_units(wanted, values))
    classes = _classes(path, values)
    doubles = sum(tensors[name].dtype == "f8" for name in values)
    notes = (
        *found.notes,
        *([f"names without {prefix!r} before them"] if prefix else []),
        *([f"{doubles} tensors of float64 are rounded to float32"] if doubles else []),
        f"a state_dict does not say its settings: those of torchvision's {TITLE} are used",
    )
    return DumpedModel(
        str(path),
        "state_dict",
        found.sha256,
        values,
        units,
        settings_of(classes),
        skipped,
        constants=CONSTANTS,
        notes=notes,
    )


def without_prefix(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The tensors without what a wrapper put before their names (`module.`), and what that is."""
    marked = [name.removesuffix(MARK) for name in tensors if name.endswith(MARK)]
    prefix = marked[0] if marked and (not marked[0] or marked[0].endswith(".")) else ""
    if not marked:
        prefix = _usual_prefix(tensors)
    return {name.removeprefix(prefix): one for name, one in tensors.items()}, prefix


def _usual_prefix(names: Iterable[str]) -> str:
    """What usual wrappers put before all names."""
    listed, prefix = [name for name in names if not name.endswith(_BESIDE)], ""
    while listed:
        one = next((p for p in _PREFIXES if all(name.startswith(prefix + p) for name in listed)), None)
        if one is None or (one == "model." and all(_after(name, prefix + one).isdigit() for name in listed)):
            return prefix  # YOLO's names are model.0, model.1, ...
        prefix += one
    return prefix


def _after(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).split(".")[0]


def _checked(path: Path, tensors: dict[str, Tensor], wanted: tuple[Layer, ...], prefix: str) -> dict[str, str]:
    """Name -> reason of each tensor that is not needed.

    Raises:
        ModelError: tensors are missing, or there are others; it is another model.
    """
    names = {name for layer in wanted for name in layer.parts.values()}
    missing = [name for name in names if name not in tensors]
    beside = {name for name in tensors if name.endswith(_BESIDE)}
    extra = [name for name in tensors if name not in names and name not in beside]
    if not missing and not extra:
        return {prefix * (name != "n_averaged") + name: "counts steps of training" for name in sorted(beside)}
    other = known_model(tensors.keys()) if missing else ""
    if other:
        raise ModelError(f"{path} is the state_dict of {other}; of PyTorch, torchvision's {TITLE} is read")
    if len(missing) > len(names) // 2:
        raise ModelError(
            f"{path} is not the state_dict of torchvision's {TITLE}, which is the model of PyTorch that is read: it "
            f"has {len(tensors)} tensors ({_listed(list(tensors))}), and {len(missing)} of {len(names)} that are "
            f"needed are missing ({_listed(sorted(missing))})"
        )
    said = [f"{len(missing)} tensors are missing ({_listed(sorted(missing))})"] if missing else []
    said += [f"{len(extra)} are not in the model ({_listed(sorted(extra))})"] if extra else []
    raise ModelError(f"{path} is not quite the state_dict of torchvision's {TITLE}: {', and '.join(said)}")


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_LISTED
    shown = ", ".join(ascii(name[:80])[1:-1] for name in names[:_MOST_LISTED])
    return shown + (f" and {more} more" if more > 0 else "")


def _float32(path: Path, name: str, tensor: Tensor) -> FloatArray:
    if not tensor.is_float:
        raise TensorError(f"tensor {name!r} in {path} holds no floating-point numbers, but {tensor.dtype}")
    values = tensor.as_float32()
    wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
    if wrong:
        raise TensorError(f"tensor {name!r} in {path} holds {wrong} values that are NaN or Inf")
    return values


def _units(wanted: tuple[Layer, ...], values: dict[str, FloatArray]) -> Iterator[ConvUnit]:
    for index, layer in enumerate(wanted):
        numbered = wanted[index + 1] if layer.scope.endswith("_depthwise") else layer
        yield unit_of(layer, values[numbered.parts["weights"]].shape[-1])


def _classes(path: Path, values: dict[str, FloatArray]) -> int:
    """The class count with background, from the class predictors' outputs."""
    predictors = [
        f"head.{kind}_head.module_list.{index}.1.weight"
        for kind in ("regression", "classification")
        for index in range(6)
    ]
    outputs = [int(values[name].shape[-1]) for name in predictors]
    if outputs[:6] != [4 * BOXES_PER_CELL] * 6 or len(set(outputs[6:])) > 1 or outputs[6] % BOXES_PER_CELL:
        raise ModelError(
            f"{path} has predictors with {outputs[:6]} outputs for boxes and {outputs[6:]} for classes; torchvision's "
            f"{TITLE} has {BOXES_PER_CELL} boxes in each cell of every map, with 4 and one for each class"
        )
    return outputs[6] // BOXES_PER_CELL
