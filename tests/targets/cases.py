"""Which program takes which model, and what it needs for that: the one table of the tests and of docs/runtimes.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.real_models import LARGE

MODELS = {
    "example": "V3-small, the example",
    "bccd_v2_ssdlite_3": "V2",
    "zoo2018_v2_ssdlite_90": "V2 of 2018, clips first",
    "shapes_v3_small_3": "V3-small",
    "random_v3_large_90": "V3-large, random",
}
"""Folders of shared/models, and the example; each with what the page calls it."""
TRAINED = frozenset(MODELS) - {"random_v3_large_90"}

BOUNDS = {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.06}
"""Largest difference of an output divided by the largest value of OpenCV's, of trained nets, by what is computed in.

Measured: 1.7e-6, 1.2e-3 and 5.3e-2."""
RANDOM_BOUND = 2e-2
"""The same of the net with random weights: a change of its input in the last bit moves its outputs by 1.2e-2.

Measured: 1.5e-2."""
PAIRED = {"fp32": 1.0, "fp16": 1.0, "int8": 1.0}
"""Least share of OpenCV's detections that the program has too, of trained nets."""
RANDOM_PAIRED = 0.97
"""The same of the net with random weights. Measured: 0.98."""


@dataclass(frozen=True)
class Case:
    """One program and one net.

    Attributes:
        program: a script `runners/run_<program>.py`, and an environment.
        model: one of MODELS.
        net: `deploy` or `headless`.
        options: of `convert`.
        precision: what the program computes in: fp32, fp16 or int8.
        least: least score of the detections that are compared.
        fails: text in the message or log of a program that does not take this net; '' where it does.
        wrong: the program takes this net, and computes something else.
    """

    program: str
    model: str
    net: str
    options: tuple[str, ...] = ()
    precision: str = "fp32"
    least: float = 0.0
    fails: str = ""
    wrong: bool = False

    @property
    def name(self) -> str:
        """For pytest, and the key of a result."""
        parts = (self.program, self.precision, self.model, self.net, *self.options)
        return "-".join(part.strip("-") for part in parts)

    @property
    def bound(self) -> float:
        """Largest relative difference of an output."""
        return BOUNDS[self.precision] if self.model in TRAINED else RANDOM_BOUND

    @property
    def paired(self) -> float:
        """Least share of OpenCV's detections that the program has too."""
        return PAIRED[self.precision] if self.model in TRAINED else RANDOM_PAIRED


def marks(program: str, model: str, group: str) -> list[pytest.MarkDecorator]:
    """Of a test: one process runs a group; large models are stories, which continuous integration leaves out.

    OpenVINO's converter is slow, and the example is a V3-small, too.
    """
    found = [pytest.mark.xdist_group(group)]
    if model in LARGE:
        found.append(pytest.mark.story)
    if program == "openvino" and model == "shapes_v3_small_3":
        found.append(pytest.mark.rare)
    return found


V2 = ("bccd_v2_ssdlite_3", "zoo2018_v2_ssdlite_90")
V3 = ("example", "shapes_v3_small_3", "random_v3_large_90")
LATE = ("--clip", "late")
NO_PRIORS = ("--priors", "none")


def _cases() -> Iterator[Case]:
    """By program: first what works, then what does not."""
    yield from _mnn()
    yield from _openvino()
    yield from _ncnn()
    yield from _rknn()
    yield from _tpu_mlir()
    yield from _caffe2onnx()
    yield from _x2paddle()


def _both(program: str, models: tuple[str, ...], *options: str) -> Iterator[Case]:
    for model in models:
        yield Case(program, model, "headless", options)
        yield Case(program, model, "deploy", options)


def _mnn() -> Iterator[Case]:
    yield from _both("mnn", V2, *LATE)
    yield from _both("mnn", V3, *LATE, "--gate", "interp")
    yield Case("mnn", V3[0], "deploy", ("--gate", "deconvolution"))
    yield Case("mnn", V2[1], "deploy", fails="no output")
    yield Case("mnn", V2[1], "deploy", ("--coefficients", "power"), wrong=True)  # it takes corners for codes
    yield Case("mnn", V3[0], "headless", ("--gate", "eltwise"), wrong=True)
    yield Case("mnn", V3[0], "headless", fails="SIGSEGV")


def _openvino() -> Iterator[Case]:
    yield from _both("openvino", (*V2, *V3), *LATE)
    yield Case("openvino", V2[1], "deploy", fails="does not support this layer")


def _ncnn() -> Iterator[Case]:
    options = (*LATE, "--score-threshold", "0.001")
    yield from _both("ncnn", (V2[0], *V3), *options)
    yield Case("ncnn", V2[1], "headless", options)
    # Boxes of which ncnn finds the background certain are left undefined, and here some of them have classes, too.
    yield Case("ncnn", V2[1], "deploy", options, least=0.3)


def _rknn() -> Iterator[Case]:
    for model in (*V2, *V3[:2]):  # what random weights make of fp16 says nothing
        yield Case("rknn", model, "headless", precision="fp16")
    for model in (V2[0], V3[0]):
        yield Case("rknn", model, "headless", precision="int8")


def _tpu_mlir() -> Iterator[Case]:
    for model in V2:
        yield Case("tpu_mlir", model, "headless", NO_PRIORS)
        yield Case("tpu_mlir", model, "deploy", LATE)
    for model in V3:
        yield Case("tpu_mlir", model, "headless", (*NO_PRIORS, "--linear", "scale"))
        yield Case("tpu_mlir", model, "deploy", ("--linear", "scale"))
    for precision in ("fp16", "int8"):
        yield Case("tpu_mlir", V2[0], "headless", NO_PRIORS, precision=precision)
        yield Case("tpu_mlir", V3[0], "headless", (*NO_PRIORS, "--linear", "scale"), precision=precision)
    yield Case("tpu_mlir", V3[0], "headless", NO_PRIORS, fails="not implemented")


def _caffe2onnx() -> Iterator[Case]:
    for model in V2:
        yield Case("caffe2onnx", model, "headless", NO_PRIORS)
    yield Case("caffe2onnx", V3[0], "headless", NO_PRIORS, fails="'int' object is not subscriptable")


def _x2paddle() -> Iterator[Case]:
    for model in V2:
        yield Case("x2paddle", model, "headless", NO_PRIORS)
    for model in V3:
        yield Case("x2paddle", model, "headless", (*NO_PRIORS, "--gate", "eltwise"))
    yield Case("x2paddle", V3[0], "headless", NO_PRIORS, fails="Couldn't find conv_squeeze_excite_cparam1")


CASES = tuple(_cases())
