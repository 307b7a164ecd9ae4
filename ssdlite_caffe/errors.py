"""Every error a user can cause, in one tree; the command prints each as one line and exits with status 1.

SsdliteError
├── ModelError        a TensorFlow model that cannot be read, or is not an SSD MobileNet
├── TensorError       a tensor that is missing or unused, or has the wrong shape, dtype or values
├── ArchError         an architecture that cannot be built (unknown family, class count below 2, ...)
├── PrototxtError     a prototxt or caffemodel that cannot be parsed, or whose layers do not fit together
├── LabelMapError     a label map or class mapping that contradicts itself or the model
├── ImageError        an image or video that cannot be read or written
├── DatasetError      images with annotations, or an LMDB of them, that cannot be read or contradict themselves
├── TrainingError     a training that cannot continue, or does not match the files in its folder
├── CaffeError        a net, solver or training that the built Caffe rejects
├── DeviceError       a board's or program's outputs that cannot be read, or a program that fails
├── BuildError        a Caffe that cannot be built
├── MissingRuntimeError    an optional library (TensorFlow, OpenCV) that a command needs and is not installed
└── OutputError       a file or folder that exists already, or cannot be written
"""

from __future__ import annotations


class SsdliteError(Exception):
    """Base of all errors that input can cause. The text is one sentence for the user: what is wrong and what to do."""


class ModelError(SsdliteError):
    """A TensorFlow model that cannot be read, or that is not an SSD MobileNet."""


class TensorError(SsdliteError):
    """A tensor that is missing or unused, or has the wrong shape, dtype or values."""


class ArchError(SsdliteError):
    """An architecture that cannot be built."""


class PrototxtError(SsdliteError):
    """A prototxt or caffemodel that cannot be parsed, or whose layers do not fit together."""


class LabelMapError(SsdliteError):
    """A label map or class mapping that contradicts itself or the model."""


class ImageError(SsdliteError):
    """An image or video that cannot be read or written."""


class TrainingError(SsdliteError):
    """A training that cannot continue, or does not match the files in its folder."""


class CaffeError(SsdliteError):
    """A net, solver or training that the built Caffe rejects."""


class DatasetError(SsdliteError):
    """Images with annotations, or an LMDB of them, that cannot be read or contradict themselves."""


class DeviceError(SsdliteError):
    """Outputs of a board or another program that cannot be read or do not fit, or a program that fails."""


class BuildError(SsdliteError):
    """A Caffe that cannot be built: something is missing, the sources are not Caffe's, or they do not compile."""


class MissingRuntimeError(SsdliteError):
    """An optional library that a command needs and that is not installed."""


class OutputError(SsdliteError):
    """An output file or folder that exists already, or cannot be written."""
