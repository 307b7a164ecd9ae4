"""MobileNet SSD and SSDLite detectors from TensorFlow to Caffe, with the same detections.

`from ssdlite_caffe import Detector, convert, evaluate, remap, verify`; see `ssdlite_caffe.api` and docs/api.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssdlite_caffe.api import check_proof, convert, evaluate, remap, verify
    from ssdlite_caffe.runtimes.detector import Detector

__version__ = "0.2.0"
__all__ = ["Detector", "check_proof", "convert", "evaluate", "remap", "verify"]


def __getattr__(name: str) -> Any:
    """Load a function of the API when it is first asked for, so that `ssdlite-caffe --help` loads none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    place = "ssdlite_caffe.runtimes.detector" if name == "Detector" else "ssdlite_caffe.api"
    return getattr(import_module(place), name)
