"""Options of `gen` and `convert` for layers that a runtime takes and others do not; see `gen_model/rewrites`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ssdlite_caffe.gen_model.dialect import (
    CoefficientsDialect,
    FieldsDialect,
    GateDialect,
    InputDialect,
    LinearDialect,
    NamesDialect,
    OutputsDialect,
    PriorsDialect,
)

PANEL = "Dialect for other runtimes: the same results, other layers"

Linear = Annotated[
    LinearDialect | None,
    typer.Option(
        "--linear",
        help="scale * x + shift: Power layers, or Scale layers with constant weights.",
        show_default="power",
        rich_help_panel=PANEL,
    ),
]
Gate = Annotated[
    GateDialect | None,
    typer.Option(
        "--gate",
        help="V3's squeeze-excite: a Scale layer of two bottoms, or a product with a map that a Deconvolution or an "
        "Interp makes. eltwise: a product that repeats values, which Caffe does not run.",
        show_default="scale",
        rich_help_panel=PANEL,
    ),
]
Coefficients = Annotated[
    CoefficientsDialect | None,
    typer.Option(
        "--coefficients",
        help="Factors of a sum: in the Eltwise layer, or Power layers before it.",
        show_default="eltwise",
        rich_help_panel=PANEL,
    ),
]
Names = Annotated[
    NamesDialect | None,
    typer.Option(
        "--names",
        help="tops: no layer is in place, and each writes a blob of its own name.",
        show_default="in-place",
        rich_help_panel=PANEL,
    ),
]
Outputs = Annotated[
    OutputsDialect | None,
    typer.Option(
        "--outputs",
        help="Of the headless net: joined, or those of each feature map, for int8.",
        show_default="joined",
        rich_help_panel=PANEL,
    ),
]
Fields = Annotated[
    FieldsDialect | None,
    typer.Option(
        "--fields",
        help="all: pad, stride, dilation and group of each convolution, Caffe's defaults too.",
        show_default="needed",
        rich_help_panel=PANEL,
    ),
]
Priors = Annotated[
    PriorsDialect | None,
    typer.Option(
        "--priors",
        help="Default boxes: PriorBox layers; constant: numbers in the weights, for any boxes; none: in priors.npy, "
        "beside a headless net.",
        show_default="layer",
        rich_help_panel=PANEL,
    ),
]
InputForm = Annotated[
    InputDialect | None,
    typer.Option(
        "--input-form",
        help="The input: an Input layer, or `input` and `input_shape` of the net, for older Caffe forks.",
        show_default="layer",
        rich_help_panel=PANEL,
    ),
]


def given(**choices: str | None) -> dict[str, Any]:
    """The choices that were made."""
    return {field: choice for field, choice in choices.items() if choice is not None}
