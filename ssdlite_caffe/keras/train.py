"""Training a detector in Keras: from the first iteration or a checkpoint to model.keras."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ssdlite_caffe.coco.label_map import BUILTIN, LabelMap, load_label_map
from ssdlite_caffe.coco.same_classes import match_classes
from ssdlite_caffe.data.annotations import count_text
from ssdlite_caffe.errors import TrainingError
from ssdlite_caffe.files import file_sha256, write_text
from ssdlite_caffe.gen_model.arch import ArchSpec, HeadKind, Version
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.imports import import_keras
from ssdlite_caffe.keras.devices import Precision, default_strategy, describe, dtype_of, is_chief, leave
from ssdlite_caffe.keras.feed import DataSource, TrainingData
from ssdlite_caffe.keras.loop import Intervals, Loop, Measure
from ssdlite_caffe.keras.names import layer_name
from ssdlite_caffe.keras.run_folder import LABEL_MAP, MODEL, SCAN, RunFolder, read_run
from ssdlite_caffe.keras.schedule import Schedule, extension
from ssdlite_caffe.resizer import Resizer

if TYPE_CHECKING:
    from ssdlite_caffe.keras.model import KerasModel
    from ssdlite_caffe.keras.trainer import StepOptions, Trainer


@dataclass(frozen=True)
class DataOptions:
    """What to train on; see `feed.DataSource`."""

    data: Path
    split: str = "trainval"
    images: Path | None = None
    label_map: str | None = None


@dataclass(frozen=True)
class NetOptions:
    """What to train.

    Attributes:
        start: Keras model to begin with; it gives the architecture, the data give the classes.
        version: MobileNet version of a new net; all below are of a new net, too.
        width_multiplier: TensorFlow's depth_multiplier.
        input_size: (height, width); None: the family's.
        scores: score converter.
        head: ssdlite or ssd; None: ssdlite.
    """

    start: Path | None = None
    version: Version = "3-small"
    width_multiplier: float = 1.0
    input_size: tuple[int, int] | None = None
    scores: Literal["sigmoid", "softmax"] = "sigmoid"
    head: HeadKind | None = None


@dataclass(frozen=True)
class TrainOptions:
    """A training.

    Attributes:
        data: what to train on.
        schedule: learning rates, and how many iterations.
        net: what to train.
        step: what an iteration does; None: the defaults. Its `dtype` is set by `precision`.
        seed: of weights, order and augmentation.
        precision: auto takes float16 where all GPUs have tensor cores.
        intervals: of logging, checkpoints and tests.
    """

    data: DataOptions
    schedule: Schedule
    net: NetOptions = field(default_factory=NetOptions)
    step: StepOptions | None = None
    seed: int = 0
    precision: Precision = "auto"
    intervals: Intervals = field(default_factory=Intervals)


def train(
    out: Path,
    options: TrainOptions,
    *,
    resume: bool = False,
    force: bool = False,
    strategy: Any = None,
    kept: Mapping[str, Any] | None = None,
    tests: Callable[[LabelMap], Measure | None] | None = None,
    progress: Callable[[str], None] = lambda _: None,
    problem: Callable[[str], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train, and write `out`/model.keras.

    Args:
        out: the training's folder; see `run_folder`.
        options: the training.
        resume: continue from the last checkpoint there, with the same result as without the stop.
        force: replace an earlier training.
        strategy: tf.distribute.Strategy; None: by the environment (TF_CONFIG) and the GPUs.
        kept: the command's options, kept in run.json for a command that resumes.
        tests: called with the classes before the first iteration; gives what tests a model, None for no tests. Tests do
            not change the result of the training.
        progress: called with what is being done.
        problem: called with what is wrong with the data.
        say: called with lines for the user.

    Returns:
        A report for JSON: iterations, images, how many of them were decoded before the first iteration, classes, the
        class predictors that started anew, seconds, the last losses and measures, path of the model.

    Raises:
        TrainingError: the loss is NaN or Inf, or the folder holds another training.
        KeyboardInterrupt: Ctrl-C or SIGTERM; there is a checkpoint of the last whole iteration.
        SsdliteError: the data or the model to begin with cannot be used, or a file cannot be written.
    """
    # For training oneDNN's kernels are twice as fast; in which order they sum does not matter here.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    _, tf = import_keras()
    tf.config.experimental.enable_op_determinism()
    strategy = strategy or default_strategy(tf)
    from ssdlite_caffe.keras.losses import described, suited
    from ssdlite_caffe.keras.store import load
    from ssdlite_caffe.keras.trainer import StepOptions, Trainer

    folder = RunFolder(out, writes=is_chief(strategy))
    with folder.held():
        if resume:
            read_run(out)  # before the images are looked at
        else:
            folder.check_free(force=force, needed=_files(options))
        labels = load_label_map(options.data.label_map) if options.data.label_map else None
        source = DataSource(
            options.data.data, split=options.data.split, images=options.data.images, labels=labels,
            kept=out / SCAN, say=say, report=lambda what, done, total: progress(f"{what}, {done} of {total}"),
        )  # fmt: skip
        start = load(options.net.start) if options.net.start else None
        arch = _arch(options.net, start, source.labels, say)
        step = options.step or StepOptions()
        step = replace(step, loss=suited(step.loss, arch), dtype=dtype_of(tf, options.precision))
        measure = tests(source.labels) if tests is not None and folder.writes else None
        data = source.scan()
        for item in data.problems:
            problem(str(item))
        if counted := count_text(data.problems):
            say(f"of the data to train on: {counted}")
        identity = {**_identity(options, arch, step, data), "kernels": _kernels(tf)}
        if resume:
            if folder.writes:
                source.keep()
            _check_length(folder, options.schedule, folder.check(identity), say)
            folder.resume(identity, kept or {})
        else:
            folder.begin(identity, kept or {})
            if folder.writes:
                source.keep()
        del source  # the annotations of a large set take much memory
        progress("building the model")
        trainer = Trainer(arch, data.labels, step, data, options.seed, strategy)
        anew = [] if start is None else _begin_with(trainer, start, (lambda _: None) if folder.iterations() else say)
        if resume and not folder.iterations():
            say(f"there is no checkpoint in {out} yet: training from the beginning")
        say(f"training on {describe(tf, strategy)}")
        say(f"the loss is {described(step.loss)}")
        report = Loop(folder, trainer, options.schedule, options.intervals, measure, progress, say).run()
        if folder.writes:
            write_model(trainer.detector(), out)
            folder.finish(options.schedule.iterations)
    leave(strategy)
    return {
        "model": str(out / MODEL), "images": len(data), "images_decoded": data.decoded, "classes": len(data.labels),
        "started_anew": anew, **report,
    }  # fmt: skip


def _files(options: TrainOptions) -> list[Path]:
    """Files that the training is made from, but for its data."""
    label_map = options.data.label_map
    named = (options.net.start, None if label_map in BUILTIN else label_map)
    return [Path(path) for path in named if path is not None]


def _check_length(folder: RunFolder, schedule: Schedule, was: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Compare the number of iterations with those that are done, and say what a new number changes.

    Raises:
        TrainingError: more are done than are asked for.
    """
    done = next(reversed(folder.iterations()), 0)
    if done > schedule.iterations:
        raise TrainingError(
            f"iterations must be at least {done}, for which there is a checkpoint, got {schedule.iterations}; give "
            "--iterations"
        )
    if was["schedule"]["iterations"] != schedule.iterations:
        say(extension(replace(schedule, iterations=was["schedule"]["iterations"]), schedule, done))


def write_model(detector: KerasModel, folder: Path) -> None:
    """Write model.keras and its label map into a training's folder."""
    from ssdlite_caffe.keras.store import save

    write_text(folder / LABEL_MAP, detector.labels.to_prototxt(), force=True)
    save(detector, folder / MODEL, force=True)


def _arch(net: NetOptions, start: KerasModel | None, labels: LabelMap, say: Callable[[str], None]) -> ArchSpec:
    if start is not None:
        resizer = start.arch.resizer
        if not resizer.plain:
            say(
                f"images of {net.start} are resized by {resizer.text()}; this training squashes them to the input "
                "size, bilinearly, and so will detectors of the trained model"
            )
        return replace(start.arch, num_classes=len(labels), resizer=Resizer())
    from ssdlite_caffe.gen_model.options import BoxOptions, arch_from_options

    return arch_from_options(
        net.version, len(labels), width_multiplier=net.width_multiplier, input_size=net.input_size,
        head=net.head, boxes=BoxOptions(scores=net.scores),
    )  # fmt: skip


def _begin_with(trainer: Trainer, start: KerasModel, say: Callable[[str], None]) -> list[str]:
    """Start from a detector's weights; with other classes than the data's, from all but its class predictors.

    Returns:
        The layers of the class predictors that start anew.
    """
    from ssdlite_caffe.keras.weights import get_values, set_values, with_moved_classes

    match = match_classes(start.labels, trainer.labels)
    predictors = [
        layer_name(conv.tf_scope)
        for feature_map in build(trainer.arch).feature_maps
        for conv in feature_map.conf
        if conv.role == "class_predictor"
    ]
    values = get_values(start.model)
    for line in match.remarks("the model to start from"):
        say(line)
    anew = [] if match.same else predictors
    if anew:
        why = match.difference("the model to start from")
        say(f"{len(anew)} class predictors start anew, since {why}: {', '.join(anew)}")
    elif match.moved is not None:
        values = with_moved_classes(values, predictors, match.moved)
    kept = {n: v for n, v in values.items() if n.rpartition("/")[0] not in anew}
    set_values(trainer.model, {**get_values(trainer.model), **kept})
    trainer.restart_averages()
    return anew


def _kernels(tf: Any) -> dict[str, str]:
    """What computes: other kernels round differently, and a training soon makes larger differences of that."""
    return {"tensorflow": tf.__version__, "onednn": os.environ["TF_ENABLE_ONEDNN_OPTS"]}


def _identity(options: TrainOptions, arch: ArchSpec, step: StepOptions, data: TrainingData) -> dict[str, Any]:
    """All that the course of a training depends on: of files their content, not their place."""
    digest = hashlib.sha256()
    for name, objects in zip(data.names, data.objects, strict=True):
        digest.update(name.encode("utf-8", "surrogateescape"))
        for values in objects:
            digest.update(np.ascontiguousarray(values).tobytes())
    return {
        "seed": options.seed,
        "schedule": asdict(options.schedule),
        "step": asdict(step),
        "log_every": options.intervals.log,
        "arch": arch.to_dict(),
        "labels": list(data.labels.display_names),
        "start": file_sha256(options.net.start) if options.net.start else None,
        "data": {"images": len(data), "annotations": digest.hexdigest()},
    }
