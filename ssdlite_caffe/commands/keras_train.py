"""The command `keras train`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ssdlite_caffe.commands import keras_train_values
from ssdlite_caffe.commands.numbers import finite, int32
from ssdlite_caffe.gen_model.arch import HeadKind, Version
from ssdlite_caffe.terminal import note, status

if TYPE_CHECKING:
    from ssdlite_caffe.coco.label_map import LabelMap
    from ssdlite_caffe.keras.loop import Measure
    from ssdlite_caffe.keras.train import TrainOptions

_RUN, _DATA, _TEST, _NET = "Run", "Data", "Tests during the training", "Net"
_ITERATIONS, _LOSS, _IMAGES = "Iterations", "Loss", "Augmentation"
_TEST_OPTIONS = ("test_data", "test_split", "test_images", "test_every")
"""Each asks for tests, so that one without images to test on is an error."""
_SHOWN = 20
"""Problems of the data that are printed."""


def train(
    context: typer.Context,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", help="Folder of the training; gets model.keras at the end.",
                     rich_help_panel=_RUN),
    ],
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the training in the folder, with the options that it was started with.",
                     rich_help_panel=_RUN),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier training.", rich_help_panel=_RUN)
    ] = False,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Seed of weights, order and augmentation.", rich_help_panel=_RUN),
    ] = 0,
    log_every: Annotated[
        int,
        typer.Option(min=1, help="Iterations between lines of metrics.jsonl.", rich_help_panel=_RUN),
    ] = 20,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Iterations between checkpoints.", rich_help_panel=_RUN)
    ] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=_RUN)] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder in VOC's layout, COCO's instances_*.json, or an LMDB; needed without "
                     "--resume.", show_default=False, rich_help_panel=_DATA),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="List in ImageSets/Main of VOC data.", rich_help_panel=_DATA)
    ] = "trainval",
    images: Annotated[
        Path | None, typer.Option(help="Folder of COCO's images.", rich_help_panel=_DATA)
    ] = None,
    label_map: Annotated[
        str | None,
        typer.Option("-l", "--label-map", metavar="LABELMAP", help="coco, voc, or a label map file.",
                     show_default="the data's own", rich_help_panel=_DATA),
    ] = None,
    test_every: Annotated[
        int | None,
        typer.Option(min=0, help="Iterations between tests; 0: no tests.",
                     show_default="a tenth of all", rich_help_panel=_TEST),
    ] = None,
    test_data: Annotated[
        Path | None,
        typer.Option(help="Data to test on, in any of the forms of --data.",
                     show_default="another list of VOC data; else no tests",
                     rich_help_panel=_TEST),
    ] = None,
    test_split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="List in ImageSets/Main of VOC data to test on.",
                     show_default="test; with --split train val, else test", rich_help_panel=_TEST),
    ] = None,
    test_images: Annotated[
        Path | None,
        typer.Option(help="Folder of COCO's images to test on.", show_default="--images",
                     rich_help_panel=_TEST),
    ] = None,
    test_limit: Annotated[
        int, typer.Option(min=1, help="The first N images are tested.", rich_help_panel=_TEST)
    ] = 500,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Keras model to fine-tune; with other classes than the data's its "
                     "class predictors start anew.", rich_help_panel=_NET),
    ] = None,
    version: Annotated[
        Version,
        typer.Option("-v", "--version", metavar="VERSION", rich_help_panel=_NET,
                     help="MobileNet version: 1, 2, 3-small, 3-large, 3-small-minimalistic, 3-large-minimalistic."),
    ] = "3-small",
    head: Annotated[
        HeadKind | None,
        typer.Option("-t", "--type", metavar="TYPE", help="ssdlite or ssd.", show_default="ssdlite",
                     rich_help_panel=_NET),
    ] = None,
    width_multiplier: Annotated[
        float, typer.Option(help="Multiplier of all channel counts.", rich_help_panel=_NET)
    ] = 1.0,
    input_size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Input in pixels: HxW, or N for a square.", show_default="300; V3: 320",
                     rich_help_panel=_NET),
    ] = None,
    scores: Annotated[
        Literal["sigmoid", "softmax"],
        typer.Option(metavar="KIND", help="Score converter: sigmoid or softmax.", rich_help_panel=_NET),
    ] = "sigmoid",
    iterations: Annotated[
        int,
        typer.Option(min=1, help="Iterations in all; more with --resume extend a finished training.",
                     rich_help_panel=_ITERATIONS),
    ] = 10000,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images of an iteration, over all devices.",
                          rich_help_panel=_ITERATIONS)
    ] = 32,
    optimizer: Annotated[
        Literal["sgd", "rmsprop", "adam"],
        typer.Option(metavar="KIND", help="sgd, rmsprop or adam.", rich_help_panel=_ITERATIONS),
    ] = "sgd",
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Highest learning rate.", show_default="sgd 0.02, rmsprop 0.004, adam 0.001",
                     rich_help_panel=_ITERATIONS),
    ] = None,
    schedule: Annotated[
        Literal["cosine", "step", "constant"],
        typer.Option(metavar="KIND", help="Learning rates: cosine, step or constant.", rich_help_panel=_ITERATIONS),
    ] = "cosine",
    warmup: Annotated[
        int | None,
        typer.Option(min=0, help="Iterations over which the learning rate rises.",
                     show_default="100, at most a tenth of all", rich_help_panel=_ITERATIONS),
    ] = None,
    drops: Annotated[
        str,
        typer.Option(metavar="N,N", help="With --schedule step: iterations at which the rate drops to a tenth.",
                     rich_help_panel=_ITERATIONS),
    ] = "",
    ema: Annotated[
        float,
        typer.Option(min=0, max=0.999999, callback=finite, rich_help_panel=_ITERATIONS,
                     help="Decay of the moving average of the weights; 0: no average."),
    ] = 0.999,
    bn_momentum: Annotated[
        float,
        typer.Option(min=0, max=0.999999, callback=finite, rich_help_panel=_ITERATIONS,
                     help="Decay of BatchNorm's statistics."),
    ] = 0.97,
    freeze_bn: Annotated[
        bool,
        typer.Option("--freeze-bn", help="Keep BatchNorm as it is: better for small batches, needs --from.",
                     rich_help_panel=_ITERATIONS),
    ] = False,
    precision: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        typer.Option(metavar="DTYPE", help="float32, float16, bfloat16, or auto: float16 on GPUs that are faster with "
                     "it.", rich_help_panel=_ITERATIONS),
    ] = "auto",
    loss: Annotated[
        Literal["focal", "hard-negatives"] | None,
        typer.Option(metavar="KIND", help="Of the classes: focal or hard-negatives.",
                     show_default="focal; for softmax hard-negatives", rich_help_panel=_LOSS),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(min=0, max=1, callback=finite, help="Alpha of the focal loss.",
                     rich_help_panel=_LOSS),
    ] = 0.75,
    gamma: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="Gamma of the focal loss.", rich_help_panel=_LOSS),
    ] = 2.0,
    negatives: Annotated[
        float,
        typer.Option(min=0, callback=finite, rich_help_panel=_LOSS,
                     help="Background boxes for each matched box, with hard-negatives."),
    ] = 3.0,
    min_negatives: Annotated[
        int | None,
        typer.Option(min=0, callback=int32, help="Lowest number of background boxes of an image, with hard-negatives.",
                     show_default="3; V1: 0", rich_help_panel=_LOSS),
    ] = None,
    by_matches: Annotated[
        bool,
        typer.Option("--by-matches/--no-by-matches", rich_help_panel=_LOSS,
                     help="Divide both losses by the number of matched boxes."),
    ] = True,
    by_codesize: Annotated[
        bool | None,
        typer.Option("--by-codesize/--no-by-codesize", rich_help_panel=_LOSS,
                     help="Divide the loss of the boxes by 4, the numbers of an encoding.",
                     show_default="as in the zoo: V3 yes; V1, V2 no"),
    ] = None,
    weight_decay: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="L2 regularisation of the kernels.",
                     rich_help_panel=_LOSS),
    ] = 4e-5,
    zoom: Annotated[
        float,
        typer.Option(min=1, max=16, callback=finite, help="Images are shrunk up to X times; 1: never.",
                     rich_help_panel=_IMAGES),
    ] = 4.0,
    crop: Annotated[
        float,
        typer.Option(min=0, max=1, callback=finite, help="Probability of a crop.",
                     rich_help_panel=_IMAGES),
    ] = 1.0,
    flip: Annotated[
        float,
        typer.Option(min=0, max=1, callback=finite, help="Probability of a horizontal flip.",
                     rich_help_panel=_IMAGES),
    ] = 0.5,
    colours: Annotated[
        float,
        typer.Option(min=0, max=1, callback=finite, help="Probability of each change of colour.",
                     rich_help_panel=_IMAGES),
    ] = 0.5,
) -> None:  # fmt: skip
    """Train a detector, new or from an imported model.

    On several GPUs all are used. On several hosts, start the same command on each, with TF_CONFIG saying which it is.
    """
    if resume and force:
        raise typer.BadParameter("--resume continues a training and --force replaces it: give one of them")
    # Read from the context, so that a resumed training's own options stand in for those that are not given.
    values = keras_train_values.settled(context, out, resume=resume)
    alone = "TF_CONFIG" not in os.environ  # of several hosts, only one may hold the folder
    if resume and alone and _is_finished(out, values, as_json=as_json):
        return
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # before the options' modules import TensorFlow
    from ssdlite_caffe.imports import import_keras

    import_keras()
    from ssdlite_caffe.keras.train import train as run

    problems: list[str] = []

    def problem(line: str) -> None:
        problems.append(line)
        if len(problems) <= _SHOWN:
            note(line)
        elif len(problems) == _SHOWN + 1:
            note("... and more")

    if values["start"] is None and values["freeze_bn"]:
        note("--freeze-bn without --from keeps the BatchNorm of a new net, which has learned nothing")
    with status() as progress:
        report = run(
            out, _options(values), resume=resume, force=force, kept=keras_train_values.kept(values),
            tests=_tests(values, progress), progress=progress, problem=problem, say=note,
        )  # fmt: skip
    if as_json:
        print(json.dumps({**report, "problems": problems}, indent=2))
        return
    print(
        f"{report['iterations']} iterations on {report['images']} images of {report['classes'] - 1} classes in "
        f"{report['seconds']:.0f} s, {_measures(report)}; the model is {report['model']}"
    )


def _is_finished(out: Path, values: dict[str, Any], *, as_json: bool) -> bool:
    """Whether nothing is left to do, which is said."""
    from ssdlite_caffe.keras.run_folder import MODEL, RunFolder

    folder, iterations = RunFolder(out), values["iterations"]
    with folder.held():
        if not folder.is_finished(iterations):
            return False
        last = folder.last()
    note(f"already at {iterations} of {iterations} iterations")
    report = {"model": str(out / MODEL), **last, "iterations": iterations, "resumed_at": iterations, "seconds": 0.0}
    if as_json:
        print(json.dumps({**report, "problems": []}, indent=2))
    else:
        print(f"{iterations} iterations are done, {_measures(report)}; the model is {out / MODEL}")
    return True


def _measures(report: dict[str, Any]) -> str:
    """The last loss, and what the last test gave."""
    shown = [f"loss {report['loss']:.4f}"] if "loss" in report else []
    shown += [f"{name} {report[name]:.4f}" for name in ("ap", "ap50") if report.get(name) is not None]
    return ", ".join(shown) or "no loss logged"


def _options(values: dict[str, Any]) -> TrainOptions:
    from ssdlite_caffe.commands.numbers import learning_rate_drops
    from ssdlite_caffe.gen_model.options import OptionsError, parse_size
    from ssdlite_caffe.keras.augment import AugmentOptions
    from ssdlite_caffe.keras.loop import Intervals
    from ssdlite_caffe.keras.losses import LossOptions
    from ssdlite_caffe.keras.schedule import Schedule
    from ssdlite_caffe.keras.train import DataOptions, NetOptions, TrainOptions
    from ssdlite_caffe.keras.trainer import StepOptions

    v = values
    try:
        size = parse_size(v["input_size"]) if v["input_size"] else None
    except OptionsError as error:
        raise typer.BadParameter(str(error)) from error
    total = v["iterations"]
    return TrainOptions(
        DataOptions(Path(v["data"]), v["split"], _path(v["images"]), v["label_map"]),
        Schedule(v["learning_rate"], total, v["schedule"], v["warmup"], learning_rate_drops(v["drops"], total)),
        NetOptions(_path(v["start"]), v["version"], v["width_multiplier"], size, v["scores"], v["head"]),
        StepOptions(
            v["batch_size"], v["optimizer"],
            LossOptions(v["loss"], v["alpha"], v["gamma"], v["negatives"], v["min_negatives"],
                        by_matches=v["by_matches"], by_codesize=v["by_codesize"]),
            AugmentOptions(v["colours"], expand=0.5 if v["zoom"] > 1 else 0.0, largest=v["zoom"], crop=v["crop"],
                           flip=v["flip"]),
            v["weight_decay"], v["ema"], v["bn_momentum"], v["freeze_bn"],
        ),
        v["seed"], v["precision"],
        Intervals(v["log_every"], v["checkpoint_every"], _test_every(v)),
    )  # fmt: skip


def _test_every(values: dict[str, Any]) -> int:
    every = values["test_every"]
    return math.ceil(values["iterations"] / 10) if every is None else int(every)


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _tests(
    values: dict[str, Any], progress: Callable[[str], None]
) -> Callable[[LabelMap], Measure | None] | None:  # fmt: skip
    """What opens the images to test on; None without tests."""
    from ssdlite_caffe.errors import SsdliteError
    from ssdlite_caffe.evaluation.held_out import open_held_out

    if not _test_every(values):
        return None
    named = [f"--{name.replace('_', '-')}" for name in _TEST_OPTIONS if values[name] is not None]
    data = Path(values["test_data"] or values["data"])
    split = (
        values["test_split"] or "test"
        if values["test_data"]
        else _held_out(data, values["split"], values["test_split"])
    )
    if split is None and named and data.exists():  # else the training says what is wrong
        raise typer.BadParameter(
            f"{', '.join(named)} needs --test-data: {data} has no list of other images; --test-every 0: no tests"
        )

    def opened(labels: LabelMap) -> Measure | None:
        if split is None:
            note(f"no tests during the training: {data} has no list of other images; name some with --test-data")
            return None
        try:
            return open_held_out(
                data, labels, split=split, images=_path(values["test_images"] or values["images"]),
                limit=values["test_limit"], progress=lambda done, total: progress(f"testing, {done} of {total} images"),
                problem=lambda line: note(f"test data: {line}"),
            )  # fmt: skip
        except SsdliteError as error:
            if named:
                raise
            note(f"no tests during the training: {error}")
            return None

    return opened


def _held_out(data: Path, split: str, named: str | None) -> str | None:
    """The list of VOC data to test on.

    Args:
        data: what is trained on.
        split: the list of it that is trained on.
        named: the list to test on; None: one whose images are not in `split`.

    Returns:
        None where there is no such list, or data of another kind, which hold no images but those that are trained on.
    """
    from ssdlite_caffe.data.voc_lists import SPLITS

    if named is not None and (data / SPLITS).is_dir():
        return named
    others = ("val", "test") if split == "train" else ("test",)
    return next((name for name in others if name != split and (data / SPLITS / f"{name}.txt").is_file()), None)
