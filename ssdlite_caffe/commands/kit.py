"""The command `kit`: writes a training folder for Caffe's solver."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ssdlite_caffe.commands.numbers import finite, int32, learning_rate_drops
from ssdlite_caffe.gen_model.arch import HeadKind, Version
from ssdlite_caffe.gen_model.dialect import ActivationDialect, DepthwiseDialect, Dialect, Engine, PaddingDialect
from ssdlite_caffe.terminal import note

if TYPE_CHECKING:
    from ssdlite_caffe.gen_model.arch import ArchSpec
    from ssdlite_caffe.gen_model.render import Solver

_DATA, _NET, _SOLVER = "Data and first weights", "Net, without --from", "Solver"
_DIALECT, _OUTPUT = "How the nets are written", "Output"
_OF_FROM = "with --from: the folder's"


def kit(
    label_map: Annotated[str, typer.Argument(metavar="LABELMAP", help="coco, voc, or a label map file.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Training folder to write.", rich_help_panel=_OUTPUT)
    ],
    train: Annotated[
        Path | None,
        typer.Option(help="LMDB to train on; needed for label maps other than coco and voc.",
                     rich_help_panel=_DATA),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="LMDB to test on.", rich_help_panel=_DATA)
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Converted folder that gives the net and its first weights.",
                     rich_help_panel=_DATA),
    ] = None,
    finetune: Annotated[
        bool,
        typer.Option("--finetune", help="With --from: start the class predictors anew for other classes.",
                     rich_help_panel=_DATA),
    ] = False,
    freeze_bn: Annotated[
        bool,
        typer.Option("--freeze-bn", help="With --from: keep BatchNorm's statistics, better for small batches.",
                     rich_help_panel=_DATA),
    ] = False,
    small_boxes: Annotated[
        bool,
        typer.Option("--small-boxes", help="Default boxes as small as TensorFlow's smallest: for small objects.",
                     rich_help_panel=_DATA),
    ] = False,
    zoom: Annotated[
        float,
        typer.Option(min=1, max=16, callback=finite, help="Training shrinks images up to X times; 1: never.",
                     rich_help_panel=_DATA),
    ] = 4.0,
    version: Annotated[
        Version | None,
        typer.Option("-v", "--version", metavar="VERSION", show_default="2", rich_help_panel=_NET,
                     help="MobileNet version: 1, 2, 3-small, 3-large, 3-small-minimalistic, 3-large-minimalistic."),
    ] = None,
    head: Annotated[
        HeadKind | None,
        typer.Option("-t", "--type", metavar="TYPE", help="ssdlite or ssd.", show_default="ssdlite",
                     rich_help_panel=_NET),
    ] = None,
    width_multiplier: Annotated[
        float | None,
        typer.Option(help="Multiplier of all channel counts.", show_default="1", rich_help_panel=_NET),
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Input in pixels: HxW, or N for a square.", show_default="300; V3: 320",
                     rich_help_panel=_NET),
    ] = None,
    score_threshold: Annotated[
        float,
        typer.Option(min=0, max=1, callback=finite, help="Detections with a lower score are skipped.",
                     rich_help_panel=_DIALECT),
    ] = 0.01,
    activation: Annotated[
        ActivationDialect | None,
        typer.Option(metavar="KIND", show_default=f"relu6; {_OF_FROM}", rich_help_panel=_DIALECT,
                     help="Layers for ReLU6: relu6, clip, stock, relu (relu is not exact)."),
    ] = None,
    padding: Annotated[
        PaddingDialect | None,
        typer.Option(metavar="KIND", show_default=f"exact; {_OF_FROM}", rich_help_panel=_DIALECT,
                     help="Padding as TensorFlow's SAME: exact, slice, pad-layer, tf_pad, symmetric (not exact)."),
    ] = None,
    depthwise: Annotated[
        DepthwiseDialect | None,
        typer.Option(metavar="KIND", show_default=f"Convolution; {_OF_FROM}", rich_help_panel=_DIALECT,
                     help="Layers of depthwise convolutions: Convolution, ConvolutionDepthwise or "
                     "DepthwiseConvolution."),
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(metavar="KIND", show_default=f"DEFAULT; {_OF_FROM}", rich_help_panel=_DIALECT,
                     help="Engine of depthwise convolutions: DEFAULT, CAFFE or CUDNN."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, callback=int32, help="Images of an iteration.", rich_help_panel=_SOLVER)
    ] = 24,
    iterations: Annotated[
        int, typer.Option(min=1, callback=int32, help="Iterations in all.", rich_help_panel=_SOLVER)
    ] = 120_000,
    learning_rate: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="First learning rate.", rich_help_panel=_SOLVER),
    ] = 0.0005,
    drops: Annotated[
        str,
        typer.Option(metavar="N,N", help="Iterations at which the learning rate drops; without, it falls evenly, to 0 "
                     "at the end.", rich_help_panel=_SOLVER),
    ] = "",
    gamma: Annotated[
        float,
        typer.Option(min=0, max=1, callback=finite, help="Factor of each of --drops.",
                     rich_help_panel=_SOLVER),
    ] = 0.1,
    solver: Annotated[
        Literal["Adam", "RMSProp", "SGD", "Nesterov"],
        typer.Option(metavar="KIND", help="Adam, RMSProp, SGD or Nesterov.", rich_help_panel=_SOLVER),
    ] = "Adam",
    weight_decay: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="L2 regularisation of the weights.",
                     rich_help_panel=_SOLVER),
    ] = 0.00005,
    loc_weight: Annotated[
        float,
        typer.Option(min=0, max=1000, callback=finite, help="Factor of the loss of the boxes; 0.25 is TensorFlow's "
                     "normalize_loc_loss_by_codesize.", rich_help_panel=_SOLVER),
    ] = 1.0,
    snapshot: Annotated[
        int,
        typer.Option(min=1, callback=int32, help="Iterations between snapshots.", rich_help_panel=_SOLVER),
    ] = 1000,
    test_interval: Annotated[
        int | None,
        typer.Option(min=0, callback=int32, help="Iterations between tests; 0: no tests.",
                     show_default="up to 10 tests, the last at the end", rich_help_panel=_SOLVER),
    ] = None,
    display: Annotated[
        int,
        typer.Option(min=1, callback=int32, help="Iterations between lines in the log.",
                     rich_help_panel=_SOLVER),
    ] = 10,
    seed: Annotated[
        int | None,
        typer.Option(min=0, callback=int32, help="Seed of all random numbers.",
                     show_default="another one each time", rich_help_panel=_SOLVER),
    ] = None,
    mode: Annotated[
        Literal["auto", "CPU", "GPU"],
        typer.Option(metavar="MODE", help="auto, CPU or GPU; auto: a GPU where Caffe can use one, decided at the start "
                     "of each training.", rich_help_panel=_SOLVER),
    ] = "auto",
    force: Annotated[
        bool, typer.Option("--force", help="Replace what an earlier run wrote.", rich_help_panel=_OUTPUT)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=_OUTPUT)] = False,
) -> None:  # fmt: skip
    """Write a training folder: nets, solvers, scripts, label map, first weights."""
    from ssdlite_caffe.commands.swapped import named_for_each_other
    from ssdlite_caffe.gen_model.render import Solver
    from ssdlite_caffe.training.intervals import default_test_interval
    from ssdlite_caffe.training.kit import TRAIN, KitOptions, write_kit

    if (train is None) != (test is None):
        raise typer.BadParameter("give both --train and --test, or neither")
    if train is not None and test is not None and named_for_each_other(train, test):
        note(
            f"--train {train} and --test {test} are swapped, by their names; if they are, type: --train {test} "
            f"--test {train}"
        )
    net = (version, head, width_multiplier, input_size)
    if source is not None and net != (None, None, None, None):
        raise typer.BadParameter(
            "--from gives the net; leave out --version, --type, --width-multiplier and --input-size"
        )
    if finetune and source is None:
        raise typer.BadParameter("--finetune needs --from")
    if freeze_bn and source is None:
        raise typer.BadParameter("--freeze-bn keeps the BatchNorm statistics of the first weights: it needs --from")
    arch = _arch(*net) if source is None else _source_arch(source)
    arch = dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, score_threshold=score_threshold))
    settings = Solver(
        TRAIN, base_lr=learning_rate, gamma=gamma, steps=learning_rate_drops(drops, iterations), max_iter=iterations,
        display=display, weight_decay=weight_decay, type=solver, momentum=0.0 if solver == "RMSProp" else 0.9,
        snapshot=snapshot, mode=mode, random_seed=seed,
        test_interval=default_test_interval(iterations) if test_interval is None else test_interval,
    )  # fmt: skip
    options = KitOptions(
        lmdbs=(train, test) if train and test else None, source=source, finetune=finetune, frozen=freeze_bn,
        small_boxes=small_boxes, batch_size=batch_size, zoom=zoom, loc_weight=loc_weight,
        dialect=_dialect(source, activation=activation, padding=padding, depthwise=depthwise, engine=engine),
        solver=settings,
    )  # fmt: skip
    report = write_kit(label_map, arch, out, options, force=force, say=note)
    if "resizer_before" in report:
        note(
            f"images of {source} are resized by {report['resizer_before']}; this training squashes them to the input "
            "size, and so will the trained detector"
        )
    print(json.dumps(report, indent=2) if as_json else _text(report, out, settings))


def _arch(
    version: Version | None, head: HeadKind | None, width_multiplier: float | None, input_size: str | None
) -> ArchSpec:
    from ssdlite_caffe.gen_model.options import OptionsError, arch_from_options, parse_size

    try:
        return arch_from_options(
            version or "2", 2, head=head, width_multiplier=1.0 if width_multiplier is None else width_multiplier,
            input_size=None if input_size is None else parse_size(input_size),
        )  # fmt: skip
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from error


def _dialect(source: Path | None, **given: str | None) -> Dialect:
    """What is given, the dialect of the converted folder, or the default, in this order."""
    from ssdlite_caffe.runtimes.model_folder import DEPLOY, TRAIN, ModelFolder

    folder = None if source is None else ModelFolder.open(source)
    written = None if folder is None else folder.written_as(DEPLOY) or folder.written_as(TRAIN)
    chosen = {name: value for name, value in given.items() if value is not None}
    own = written[0] if written else Dialect()
    if folder is not None and own.priors == "none":  # a training folder tests with its deploy net
        own = dataclasses.replace(own, priors="constant" if folder.arch.irregular_boxes else "layer")
    return dataclasses.replace(own, batch_norm="fold", **chosen)  # type: ignore[arg-type]


def _source_arch(source: Path) -> ArchSpec:
    from ssdlite_caffe.runtimes.model_folder import ModelFolder

    return ModelFolder.open(source).arch


def _text(report: dict[str, Any], out: Path, solver: Solver) -> str:
    arch, initial = report["arch"], report.get("initial")
    lines = [f"{out}: a {arch['family']} {arch['head']} for {arch['num_classes']} classes, background included"]
    if initial is not None:
        lines.append(f"first weights: {initial['layers']} layers of {initial['source']}")
        if initial["left_to_fillers"]:
            anew = initial["left_to_fillers"]
            lines.append(
                f"{len(anew)} class predictors start anew, since {initial['other_classes']}: {', '.join(anew)}"
            )
    lines += _unfitting(report)
    if report["train"] is None:
        lines.append(f"put the LMDBs trainval_lmdb and test_lmdb into {out}")
    lines.append(f"next: ssdlite-caffe train {out}, or {out}/train.sh ({solver.max_iter} iterations)")
    return "\n".join(lines)


def _unfitting(report: dict[str, Any]) -> list[str]:
    """A line for each class that few default boxes fit."""
    from ssdlite_caffe.training.kit_boxes import FEW

    return [
        f"{one['class']}: only {one['share']:.1%} of the objects match a default box (IoU 0.5 or more)"
        + (f"; {one['share_small']:.1%} with --small-boxes" if one["share_small"] > one["share"] else "")
        for one in report.get("default_boxes", ())
        if one["share"] < FEW
    ]
