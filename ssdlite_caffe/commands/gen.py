"""The command `gen`, for `ssdlite-caffe gen` and `python -m ssdlite_caffe.gen_model`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ssdlite_caffe.commands.app import prints_result
from ssdlite_caffe.commands.dialect_options import (
    Coefficients,
    Fields,
    Gate,
    InputForm,
    Linear,
    Names,
    Outputs,
    Priors,
    given,
)
from ssdlite_caffe.gen_model.arch import CompatName, HeadKind, ScoreConverter, Version
from ssdlite_caffe.gen_model.compat import compat_arch
from ssdlite_caffe.gen_model.compat_options import compat_dialect, with_defaults
from ssdlite_caffe.gen_model.dialect import (
    ActivationDialect,
    BatchNormDialect,
    DataPaths,
    DepthwiseDialect,
    Engine,
    PaddingDialect,
    Stage,
)
from ssdlite_caffe.gen_model.options import (
    BoxOptions,
    ExtraLayers,
    Flags,
    OptionsError,
    SourceName,
    arch_from_options,
    dialect_from_options,
    parse_numbers,
    parse_size,
)

_T = TypeVar("_T")
_NET, _DIALECT, _BOXES, _FILES = "Net", "Dialect", "Boxes and scores", "Files"
_EARLIER = "Earlier scripts"


def _as_usage_error(function: Callable[..., _T]) -> Callable[..., _T]:
    """Raise an OptionsError of `function` as wrong usage, with exit status 2."""

    @functools.wraps(function)
    def checked(*args: object, **kwargs: object) -> _T:
        try:
            return function(*args, **kwargs)
        except OptionsError as error:
            raise typer.BadParameter(str(error)) from error

    return checked


def _size(text: str | None) -> str | None:
    if text is not None:
        _as_usage_error(parse_size)(text)
    return text


def _numbers(text: str | None) -> str | None:
    if text is not None:
        _as_usage_error(parse_numbers)(text)
    return text


@prints_result
def gen(
    class_num: Annotated[
        int,
        typer.Option("-c", "--class-num", help="Number of classes, background included.", rich_help_panel=_NET),
    ],
    stage: Annotated[
        Stage,
        typer.Option(
            "-s", "--stage", help="headless: ends at mbox_loc, mbox_conf and mbox_priorbox.", rich_help_panel=_NET
        ),
    ] = "deploy",
    version: Annotated[
        Version | None,
        typer.Option("-v", "--version", help="MobileNet version.", show_default="2", rich_help_panel=_NET),
    ] = None,
    head: Annotated[
        HeadKind | None,
        typer.Option(
            "-t",
            "--type",
            help="Extra layers and predictors; fpnlite: a feature pyramid, for version 2.",
            show_default="ssdlite",
            rich_help_panel=_NET,
        ),
    ] = None,
    classifier: Annotated[
        bool, typer.Option("--classifier", help="An ImageNet classifier, not a detector.", rich_help_panel=_NET)
    ] = False,
    size: Annotated[
        float,
        typer.Option(
            "--width-multiplier",
            "--size",
            help="Factor of all channel counts, rounded as in TensorFlow.",
            rich_help_panel=_NET,
        ),
    ] = 1.0,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size",
            "--input",
            metavar="N|HxW",
            callback=_size,
            help="Input in pixels, height x width.",
            show_default="300; version 3, fpnlite: 320; classifier: 224",
            rich_help_panel=_NET,
        ),
    ] = None,
    source: Annotated[
        SourceName,
        typer.Option(
            "--source",
            help="torchvision: its ssdlite320_mobilenet_v3_large as it stands, -v 3-large.",
            rich_help_panel=_NET,
        ),
    ] = "tensorflow",
    full_tail: Annotated[
        bool,
        typer.Option(
            "--full-tail", help="The last blocks of a version 3 detector are not halved.", rich_help_panel=_NET
        ),
    ] = False,
    explicit_padding: Annotated[
        bool,
        typer.Option("--explicit-padding", help="As use_explicit_padding in TensorFlow.", rich_help_panel=_NET),
    ] = False,
    head_kernel: Annotated[
        int | None,
        typer.Option("--head-kernel", help="Kernel size of the predictors.", show_default="3", rich_help_panel=_NET),
    ] = None,
    extra_layers: Annotated[
        ExtraLayers | None,
        typer.Option(
            "--extra-layers",
            help="Separable or full convolutions in the extra layers.",
            show_default="as --type",
            rich_help_panel=_NET,
        ),
    ] = None,
    eps: Annotated[
        float | None, typer.Option("--eps", help="BatchNorm's epsilon.", show_default="0.001", rich_help_panel=_NET)
    ] = None,
    activation: Annotated[
        ActivationDialect | None,
        typer.Option(
            "--activation",
            help="Layers for ReLU6. stock: only layers of every Caffe. relu: not exact.",
            show_default="relu6",
            rich_help_panel=_DIALECT,
        ),
    ] = None,
    padding: Annotated[
        PaddingDialect | None,
        typer.Option(
            "--padding",
            help="TensorFlow's SAME padding; symmetric is not exact.",
            show_default="exact",
            rich_help_panel=_DIALECT,
        ),
    ] = None,
    batch_norm: Annotated[
        BatchNormDialect | None,
        typer.Option("--bn", help="BatchNorm layers, or folded.", show_default="keep", rich_help_panel=_DIALECT),
    ] = None,
    depthwise: Annotated[
        DepthwiseDialect,
        typer.Option("--depthwise", help="Layer type of depthwise convolutions.", rich_help_panel=_DIALECT),
    ] = "Convolution",
    engine: Annotated[
        Engine, typer.Option("--engine", help="Engine of depthwise convolutions.", rich_help_panel=_DIALECT)
    ] = "DEFAULT",
    linear: Linear = None,
    gate: Gate = None,
    coefficients: Coefficients = None,
    names: Names = None,
    outputs: Outputs = None,
    fields: Fields = None,
    input_form: InputForm = None,
    priors: Priors = None,
    scores: Annotated[
        ScoreConverter | None,
        typer.Option("--scores", help="Scores from logits.", show_default="sigmoid", rich_help_panel=_BOXES),
    ] = None,
    min_scale: Annotated[
        float | None,
        typer.Option("--min-scale", help="Scale of the first map's boxes.", show_default="0.2", rich_help_panel=_BOXES),
    ] = None,
    max_scale: Annotated[
        float | None,
        typer.Option("--max-scale", help="Scale of the last map's boxes.", show_default="0.95", rich_help_panel=_BOXES),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(
            "--scales",
            metavar="A,B,...",
            callback=_numbers,
            help="Scale of each map's boxes, in place of --min-scale and --max-scale.",
            rich_help_panel=_BOXES,
        ),
    ] = None,
    aspect_ratios: Annotated[
        str | None,
        typer.Option(
            "--aspect-ratios",
            metavar="A,B,...",
            callback=_numbers,
            help="Width / height of the boxes.",
            show_default="1,2,0.5,3,0.3333",
            rich_help_panel=_BOXES,
        ),
    ] = None,
    interpolated_ratio: Annotated[
        float | None,
        typer.Option(
            "--interpolated-ratio",
            help="Aspect ratio of the box with a scale between this map's and the next; 0: no such box.",
            show_default="1",
            rich_help_panel=_BOXES,
        ),
    ] = None,
    reduce_lowest: Annotated[
        bool | None,
        typer.Option(
            "--reduce-lowest/--no-reduce-lowest",
            help="Only three boxes on the first map.",
            show_default="reduce-lowest",
            rich_help_panel=_BOXES,
        ),
    ] = None,
    clip_first: Annotated[
        bool,
        typer.Option(
            "--clip-first",
            help="Clip boxes to the image before NMS, as graphs of early 2018 do.",
            rich_help_panel=_BOXES,
        ),
    ] = False,
    variances: Annotated[
        str | None,
        typer.Option(
            "--variances",
            metavar="X,Y,W,H",
            callback=_numbers,
            help="Variances of the box coder.",
            show_default="0.1,0.1,0.2,0.2",
            rich_help_panel=_BOXES,
        ),
    ] = None,
    nms_threshold: Annotated[
        float | None,
        typer.Option(
            "--nms-threshold", help="IoU above which NMS suppresses.", show_default="0.6", rich_help_panel=_BOXES
        ),
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            "--score-threshold", help="Least score of a detection.", show_default="1e-8", rich_help_panel=_BOXES
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", help="Most candidates of each class before NMS.", show_default="all", rich_help_panel=_BOXES
        ),
    ] = None,
    keep_top_k: Annotated[
        int | None,
        typer.Option("--keep-top-k", help="Most detections in an image.", show_default="100", rich_help_panel=_BOXES),
    ] = None,
    lmdb: Annotated[
        str,
        typer.Option(
            "-d",
            "--data",
            "--lmdb",
            help="Path of the LMDB in train and test nets.",
            show_default="trainval_lmdb, test_lmdb",
            rich_help_panel=_FILES,
        ),
    ] = "",
    label_map: Annotated[
        str, typer.Option("-l", "--label-map", help="Label map in train and test nets.", rich_help_panel=_FILES)
    ] = "labelmap.prototxt",
    name_size_file: Annotated[
        str,
        typer.Option(
            "--name-size-file",
            help="File with the sizes of the test images, for evaluation in pixels.",
            show_default=False,
            rich_help_panel=_FILES,
        ),
    ] = "",
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            min=0,
            max=65536,
            help="Batch size of train and test nets.",
            show_default="train 24, test 8",
            rich_help_panel=_FILES,
        ),
    ] = 0,
    compat: Annotated[
        CompatName | None,
        typer.Option(
            "--compat",
            help="Write the layers of this earlier project, for its caffemodels.",
            show_default="layers of our own",
            rich_help_panel=_EARLIER,
        ),
    ] = None,
    relu6: Annotated[
        bool,
        typer.Option("--relu6", help="--activation relu6. With --compat: ReLU6, not ReLU.", rich_help_panel=_EARLIER),
    ] = False,
    tfpad: Annotated[
        bool,
        typer.Option(
            "--tfpad",
            help="Any exact --padding. With --compat: Slice layers, not symmetric padding.",
            rich_help_panel=_EARLIER,
        ),
    ] = False,
    nobn: Annotated[
        bool,
        typer.Option(
            "--nobn",
            help="--bn fold. With --compat: as that script, which folds V2's body alone.",
            rich_help_panel=_EARLIER,
        ),
    ] = False,
    batchnorm: Annotated[
        bool,
        typer.Option(
            "--batchnorm", help="--bn keep. For --compat mobilenetv2-ssdlite-pinto0309.", rich_help_panel=_EARLIER
        ),
    ] = False,
    no_batchnorm: Annotated[
        bool,
        typer.Option(
            "--no_batchnorm", "--no-batchnorm", help="--nobn, for deploy nets only.", rich_help_panel=_EARLIER
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="File to write, in place of standard output.", rich_help_panel=_FILES),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.", rich_help_panel=_FILES)] = False,
) -> None:
    """Print the prototxt of a MobileNet SSDLite or SSD detector, or of a MobileNet classifier."""
    boxes = BoxOptions(
        min_scale=min_scale,
        max_scale=max_scale,
        scales=_listed(scales),
        aspect_ratios=_listed(aspect_ratios),
        interpolated_ratio=interpolated_ratio,
        reduce_lowest=reduce_lowest,
        variances=_listed(variances),
        scores=scores,
        nms_threshold=nms_threshold,
        score_threshold=score_threshold,
        top_k=top_k,
        keep_top_k=keep_top_k,
        clip_first=clip_first or None,
        head_kernel=head_kernel,
        extra_layers=extra_layers,
    )
    if compat is not None:
        version, head, eps, boxes = _as_usage_error(with_defaults)(
            compat,
            stage,
            version=version,
            head=head,
            classifier=classifier,
            epsilon=eps,
            explicit_padding=explicit_padding,
            boxes=boxes,
        )
    arch = _as_usage_error(arch_from_options)(
        version or ("3-large" if source == "torchvision" else "2"),
        class_num,
        head=head,
        classifier=classifier,
        width_multiplier=size,
        input_size=None if input_size is None else parse_size(input_size),
        epsilon=eps,
        explicit_padding=explicit_padding,
        boxes=boxes,
        source=source,
        full_tail=full_tail,
    )
    flags = Flags(relu6, tfpad, nobn, batchnorm, no_batchnorm)
    more = given(
        linear=linear,
        gate=gate,
        coefficients=coefficients,
        names=names,
        outputs=outputs,
        fields=fields,
        input_form=input_form,
        priors=priors,
    )
    if compat is None:
        dialect = _as_usage_error(dialect_from_options)(
            activation=activation,
            padding=padding,
            batch_norm=batch_norm,
            depthwise=depthwise,
            engine=engine,
            flags=flags,
            stage=stage,
            more=more,
        )
    else:
        arch = compat_arch(arch, compat)
        dialect = _as_usage_error(compat_dialect)(
            compat,
            stage,
            arch.family,
            flags,
            activation=activation,
            padding=padding,
            batch_norm=batch_norm,
            depthwise=depthwise,
            engine=engine,
            more=more,
        )
    # imported here so that --help does not load jinja2
    from ssdlite_caffe.gen_model.build import build
    from ssdlite_caffe.gen_model.render import render

    text = render(build(arch), dialect, stage, DataPaths(lmdb, label_map, name_size_file, batch_size))
    if out is None:
        sys.stdout.write(text)
    else:
        from ssdlite_caffe.files import write_text

        write_text(out, text, force=force)


def _listed(text: str | None) -> tuple[float, ...] | None:
    return None if text is None else parse_numbers(text)
