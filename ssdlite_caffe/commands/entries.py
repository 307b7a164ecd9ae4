"""All commands, as `--help` lists them. Nothing of a command is imported here, nor what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TITLE = "MobileNet SSD and SSDLite detectors from TensorFlow and PyTorch to Caffe, with the same detections."


class Entry(NamedTuple):
    """A command or group of commands.

    Attributes:
        module: of `ssdlite_caffe.commands`.
        name: in the module: a function, or a typer.Typer with subcommands.
        panel: of `--help`.
        help: its line there; the first sentence of what the command itself says, which a test compares.
    """

    module: str
    name: str
    panel: str
    help: str


_MODEL, _NETS, _TRAINING, _LIBRARIES = (
    "From a model to Caffe", "Nets and weights", "Data and training", "Keras and the Caffe that we build"
)  # fmt: skip

ENTRIES: Mapping[str, Entry] = {
    "convert": Entry("convert", "convert", _MODEL, "Convert a detector into a folder of Caffe files."),
    "verify": Entry(
        "verify", "verify", _MODEL,
        "Run TensorFlow and the converted net on the same inputs and compare them layer by layer.",
    ),
    "detect": Entry(
        "detect", "detect", _MODEL, "Detect objects in images, folders and videos with a converted model."
    ),
    "evaluate": Entry(
        "evaluate", "evaluate", _MODEL,
        "Average precision of a detector on annotated images, as defined by Pascal VOC and by COCO.",
    ),
    "gen": Entry(
        "gen", "gen", _NETS,
        "Print the prototxt of a MobileNet SSDLite or SSD detector, or of a MobileNet classifier.",
    ),
    "dump": Entry("dump", "dump", _NETS, "Write a model's weights as .npy files."),
    "load": Entry("load", "load", _NETS, "Fill a net with dumped weights."),
    "remap": Entry(
        "remap", "remap", _NETS, "Give a converted model other classes, by moving the rows of its class predictors."
    ),
    "merge-bn": Entry(
        "merge_bn", "merge_bn", _NETS, "Fold a trained net's BatchNorms into its convolutions, for deployment."
    ),
    "lint": Entry(
        "lint", "lint", _NETS, "Show shapes, parameters and multiply-adds of a prototxt, and what is wrong with it."
    ),
    "cut": Entry(
        "cut", "cut", _NETS,
        "Cut a net at a blob, to see what a runtime computes there. The caffemodel stays the same file.",
    ),
    "shapes": Entry(
        "shapes", "shapes", _TRAINING,
        "Draw scenes of circles, squares and triangles with annotations, to train and test on.",
    ),
    "kit": Entry(
        "kit", "kit", _TRAINING, "Write a training folder: nets, solvers, scripts, label map, first weights."
    ),
    "train": Entry(
        "train", "train", _TRAINING,
        "Train with Caffe's solver; log, losses and plot are written into the folder meanwhile.",
    ),
    "test": Entry(
        "test", "run_test", _TRAINING, "Average precision of trained weights on the training folder's test LMDB."
    ),
    "lmdb": Entry("lmdb", "app", _TRAINING, "Write the LMDB that Caffe trains on, and check one."),
    "keras": Entry("keras", "app", _LIBRARIES, "The same nets as Keras models: import, export, train, run."),
    "caffe": Entry("caffe", "app", _LIBRARIES, "Build the Caffe that runs and trains our nets."),
}  # fmt: skip
