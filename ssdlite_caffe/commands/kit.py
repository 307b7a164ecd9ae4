"""The command `kit`: a folder ready for Caffe's solver."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ssdlite_caffe.gen_model.arch import HeadKind, Version
from ssdlite_caffe.gen_model.dialect import ActivationDialect, DepthwiseDialect, Dialect, Engine, PaddingDialect

if TYPE_CHECKING:
    from ssdlite_caffe.gen_model.arch import ArchSpec
    from ssdlite_caffe.gen_model.render import Solver

_NET, _DATA, _SOLVER, _FILES = "Net, where --from gives none", "Data and weights", "Solver", "Files"

_MOST = 2**31 - 1
"""Of Caffe's int32."""


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number to go by")
    return value


def kit(
    label_map: Annotated[str, typer.Argument(metavar="LABELMAP", help="coco, voc, or a label map file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to make.", rich_help_panel=_FILES)],
    train: Annotated[
        Path | None, typer.Option(help="LMDB to train on; coco and voc do without.", rich_help_panel=_DATA)
    ] = None,
    test: Annotated[Path | None, typer.Option(help="LMDB to test on.", rich_help_panel=_DATA)] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Converted folder that gives net and first weights.", rich_help_panel=_DATA),
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Start class predictors anew for other classes.", rich_help_panel=_DATA)
    ] = False,
    freeze_bn: Annotated[
        bool,
        typer.Option("--freeze-bn", help="Keep BatchNorm's statistics: for small batches.", rich_help_panel=_DATA),
    ] = False,
    small_boxes: Annotated[
        bool,
        typer.Option("--small-boxes", help="Default boxes as small as TensorFlow's smallest: for small objects.",
                     rich_help_panel=_DATA),
    ] = False,
    zoom: Annotated[
        float,
        typer.Option(min=1, max=16, callback=_finite, help="Most that images shrink; 1: never.",
                     rich_help_panel=_DATA),
    ] = 4.0,
    version: Annotated[
        Version | None, typer.Option("-v", "--version", show_default="2", rich_help_panel=_NET)
    ] = None,
    head: Annotated[
        HeadKind | None, typer.Option("-t", "--type", show_default="ssdlite", rich_help_panel=_NET)
    ] = None,
    size: Annotated[
        float | None, typer.Option("--size", help="Width multiplier.", show_default="1", rich_help_panel=_NET)
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option("--input", metavar="N|HxW", help="Input in pixels.", show_default="300; version 3: 320",
                     rich_help_panel=_NET),
    ] = None,
    score_threshold: Annotated[
        float, typer.Option(min=0, max=1, callback=_finite, help="Least score of a detection.", rich_help_panel=_FILES)
    ] = 0.01,
    activation: Annotated[ActivationDialect, typer.Option(rich_help_panel=_FILES)] = "relu6",
    padding: Annotated[PaddingDialect, typer.Option(rich_help_panel=_FILES)] = "exact",
    depthwise: Annotated[DepthwiseDialect, typer.Option(rich_help_panel=_FILES)] = "Convolution",
    engine: Annotated[Engine, typer.Option(rich_help_panel=_FILES)] = "DEFAULT",
    batch_size: Annotated[int, typer.Option(min=1, max=_MOST, help="Images a step.", rich_help_panel=_SOLVER)] = 24,
    iterations: Annotated[int, typer.Option(min=1, max=_MOST, help="Steps.", rich_help_panel=_SOLVER)] = 120_000,
    rate: Annotated[
        float, typer.Option(min=0, callback=_finite, help="First learning rate.", rich_help_panel=_SOLVER)
    ] = 0.0005,
    steps: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="When the rate drops.", show_default="it falls evenly, to 0 at the end",
                     rich_help_panel=_SOLVER),
    ] = None,
    gamma: Annotated[
        float,
        typer.Option(min=0, max=1, callback=_finite, help="And by what factor, with --steps.",
                     rich_help_panel=_SOLVER),
    ] = 0.1,
    solver: Annotated[
        Literal["Adam", "RMSProp", "SGD", "Nesterov"], typer.Option(rich_help_panel=_SOLVER)
    ] = "Adam",
    weight_decay: Annotated[float, typer.Option(min=0, callback=_finite, rich_help_panel=_SOLVER)] = 0.00005,
    snapshot: Annotated[
        int, typer.Option(min=1, max=_MOST, help="Steps between snapshots.", rich_help_panel=_SOLVER)
    ] = 1000,
    test_interval: Annotated[
        int, typer.Option(min=1, max=_MOST, help="Steps between tests.", rich_help_panel=_SOLVER)
    ] = 10_000,
    display: Annotated[
        int, typer.Option(min=1, max=_MOST, help="Steps between lines in the log.", rich_help_panel=_SOLVER)
    ] = 10,
    seed: Annotated[
        int | None, typer.Option(min=0, max=_MOST, help="Of Caffe's random numbers.", show_default="none",
                                 rich_help_panel=_SOLVER)
    ] = None,
    mode: Annotated[Literal["GPU", "CPU"], typer.Option(rich_help_panel=_SOLVER)] = "GPU",
    force: Annotated[
        bool, typer.Option("--force", help="Replace what an earlier run wrote.", rich_help_panel=_FILES)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=_FILES)] = False,
) -> None:  # fmt: skip
    """Write a folder ready to train and test in: nets, solvers, scripts, label map, first weights."""
    from ssdlite_caffe.gen_model.render import Solver
    from ssdlite_caffe.training.kit import TRAIN, KitOptions, write_kit

    if (train is None) != (test is None):
        raise typer.BadParameter("give --train and --test, both or neither")
    given = (version, head, size, input_size)
    if source is not None and given != (None, None, None, None):
        raise typer.BadParameter("--from gives the net: leave out --version, --type, --size and --input")
    if finetune and source is None:
        raise typer.BadParameter("--finetune goes with --from")
    arch = _arch(*given) if source is None else _source_arch(source)
    arch = dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, score_threshold=score_threshold))
    told = Solver(
        TRAIN, base_lr=rate, gamma=gamma, steps=_steps(steps), max_iter=iterations, display=display,
        weight_decay=weight_decay, type=solver, momentum=0.0 if solver == "RMSProp" else 0.9, snapshot=snapshot,
        test_interval=test_interval, mode=mode, random_seed=seed,
    )  # fmt: skip
    options = KitOptions(
        lmdbs=(train, test) if train and test else None, source=source, finetune=finetune, frozen=freeze_bn,
        small_boxes=small_boxes, batch_size=batch_size, zoom=zoom,
        dialect=Dialect(activation, padding, "fold", depthwise, engine), solver=told,
    )  # fmt: skip
    report = write_kit(label_map, arch, out, options, force=force)
    if as_json:
        print(json.dumps(report, indent=2))
        return
    print(_text(report, out, told))


def _arch(
    version: Version | None, head: HeadKind | None, size: float | None, input_size: str | None
) -> ArchSpec:  # fmt: skip
    from ssdlite_caffe.gen_model.options import OptionsError, arch_from_options, parse_size

    try:
        return arch_from_options(
            version or "2", 2, head=head, width_multiplier=1.0 if size is None else size,
            input_size=None if input_size is None else parse_size(input_size),
        )  # fmt: skip
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from error


def _source_arch(source: Path) -> ArchSpec:
    from ssdlite_caffe.runtimes.model_folder import ModelFolder

    return ModelFolder.open(source).arch


def _steps(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of steps; write whole numbers with commas, like 20000,40000")
    numbers = tuple(map(int, parts))
    if list(numbers) != sorted(set(numbers)):
        raise typer.BadParameter(f"{text!r} does not rise: each step comes after the one before")
    return numbers


def _text(report: dict[str, Any], out: Path, solver: Solver) -> str:
    arch = report["arch"]
    initial = report.get("initial")
    assert isinstance(arch, dict)
    lines = [f"{out} trains a {arch['family']} {arch['head']} for {arch['num_classes']} classes with background"]
    if isinstance(initial, dict):
        left = len(initial["left_to_fillers"])
        lines.append(f"it starts from {initial['layers']} layers of {initial['source']}" + (
            f"; {left} class predictors start anew" if left else ""
        ))  # fmt: skip
    lines += _unfitting(report)
    if report["train"] is None:
        lines.append(f"put the LMDBs trainval_lmdb and test_lmdb into {out}")
    lines.append(f"next: ssdlite-caffe train {out}, or {out}/train.sh ({solver.max_iter} steps)")
    return "\n".join(lines)


def _unfitting(report: dict[str, Any]) -> list[str]:
    """A line for each class that few default boxes fit."""
    from ssdlite_caffe.training.kit_boxes import FEW

    return [
        f"{one['class']}: {one['share']:.1%} of its objects have a default box that they overlap by half"
        + (f", with --small-boxes {one['share_small']:.1%}" if one["share_small"] > one["share"] else "")
        for one in report.get("default_boxes", ())
        if one["share"] < FEW
    ]
