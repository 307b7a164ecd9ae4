"""Where a training runs: devices, hosts and the dtype that suits them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ssdlite_caffe.keras.model import DType

Precision = Literal["auto", "float32", "float16", "bfloat16"]
_TENSOR_CORES = (7, 0)
"""Lowest compute capability of a GPU that is faster in float16."""


def default_strategy(tf: Any) -> Any:
    """MultiWorkerMirrored where TF_CONFIG names hosts, Mirrored on several GPUs, else one device."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def describe(tf: Any, strategy: Any) -> str:
    """The devices, for a message."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    here = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "the CPU"
    count = hosts(strategy)
    return f"{here}, one of {count} hosts" if count > 1 else here


def hosts(strategy: Any) -> int:
    """Number of hosts, 0 where there is no cluster."""
    resolver = strategy.cluster_resolver
    spec = {} if resolver is None else resolver.cluster_spec().as_dict()
    return sum(map(len, spec.values()))


def leave(strategy: Any) -> None:
    """End the thread that watches the other hosts; it would keep the process of a finished worker alive."""
    stop = getattr(strategy.extended, "_stop_check_health_thread", None)
    if stop is not None:
        stop()


def is_chief(strategy: Any) -> bool:
    """Whether this process writes the files: of several hosts, one does."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec().as_dict():
        return True
    kind, number = resolver.task_type, resolver.task_id
    return kind == "chief" or (kind == "worker" and number == 0 and "chief" not in resolver.cluster_spec().jobs)


def dtype_of(tf: Any, precision: Precision) -> DType:
    """Keras' dtype policy; auto takes float16 where all GPUs have tensor cores."""
    if precision == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        found = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
        return "mixed_float16" if found and min(found) >= _TENSOR_CORES else "float32"
    if precision == "float16":
        return "mixed_float16"
    return "mixed_bfloat16" if precision == "bfloat16" else "float32"
