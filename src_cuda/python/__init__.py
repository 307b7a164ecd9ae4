"""pycaffe that needs numpy and protobuf alone: modules of the fork that need SciPy load when they are used."""

from __future__ import annotations

import importlib

from ._caffe import (
    Layer,
    __version__,
    get_solver,
    layer_type_list,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_random_seed,
)
from .proto.caffe_pb2 import TEST, TRAIN
from .pycaffe import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    Net,
    RMSPropSolver,
    SGDSolver,
)

_LATER = {
    "Classifier": "classifier",
    "Detector": "detector",
    "NetSpec": "net_spec",
    "layers": "net_spec",
    "params": "net_spec",
    "to_proto": "net_spec",
}
"""Names of the package that live in modules which need more than numpy."""

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Layer",
    "NesterovSolver",
    "Net",
    "RMSPropSolver",
    "SGDSolver",
    "__version__",
    "get_solver",
    "layer_type_list",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
]


def __getattr__(name: str) -> object:
    """Load what stands in `_LATER`, and `caffe.io` and the like, at first use."""
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    if name in ("classifier", "coord_map", "detector", "draw", "io", "net_spec"):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'caffe' has no attribute {name!r}")
