"""Training a detector: from the first step or a checkpoint to model.keras."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map
from ssdlite_caffe.errors import TrainingError
from ssdlite_caffe.files import file_sha256, write_text
from ssdlite_caffe.gen_model.arch import ArchSpec, HeadKind, Version
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.imports import import_keras
from ssdlite_caffe.keras.feed import TrainingData, open_training_data
from ssdlite_caffe.keras.names import layer_name
from ssdlite_caffe.keras.run_folder import LABEL_MAP, MODEL, TENSORBOARD, Arrays, RunFolder
from ssdlite_caffe.keras.schedule import Schedule
from ssdlite_caffe.terminal import on_interrupt

if TYPE_CHECKING:
    from ssdlite_caffe.keras.model import DType, KerasModel
    from ssdlite_caffe.keras.trainer import StepOptions, Trainer

Precision = Literal["auto", "float32", "float16", "bfloat16"]
_TENSOR_CORES = (7, 0)
"""Least compute capability of a GPU that is faster in float16."""


@dataclass(frozen=True)
class DataOptions:
    """What to train on; see `data.open_training_data`."""

    data: Path
    split: str = "trainval"
    images: Path | None = None
    label_map: str | None = None


@dataclass(frozen=True)
class NetOptions:
    """What to train.

    Attributes:
        start: Keras model to begin with; its architecture counts then, with the data's classes.
        version: of a new net, as are all below.
        width_multiplier: TensorFlow's depth_multiplier.
        input_size: (height, width); None: the family's.
        scores: what makes scores of logits.
        head: SSDLite or plain SSD; None: SSDLite.
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
        net: what to train.
        step: what a step does; None: the defaults. Its `dtype` is set by `precision`.
        schedule: learning rates, and how many steps.
        seed: of weights, order and augmentation.
        precision: auto takes float16 where all GPUs have tensor cores.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints.
    """

    data: DataOptions
    schedule: Schedule
    net: NetOptions = field(default_factory=NetOptions)
    step: StepOptions | None = None
    seed: int = 0
    precision: Precision = "auto"
    log_every: int = 20
    checkpoint_every: int = 200


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        step: steps done.
        steps: of the training.
        loss: mean since the last line of metrics.
        rate: learning rate of the last step.
        speed: images a second since this process began to train.
        left: seconds.
    """

    step: int
    steps: int
    loss: float
    rate: float
    speed: float
    left: float

    def __str__(self) -> str:
        minutes, seconds = divmod(int(self.left), 60)
        return (
            f"step {self.step}/{self.steps}, loss {self.loss:.4f}, rate {self.rate:.2g}, "
            f"{self.speed:.1f} images a second, {minutes}:{seconds:02d} left"
        )


def train(
    out: Path,
    options: TrainOptions,
    *,
    resume: bool = False,
    force: bool = False,
    strategy: Any = None,
    progress: Callable[[str], None] = lambda _: None,
    problem: Callable[[str], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train, and write `out`/model.keras; a report of what was done.

    Args:
        out: the training's folder; see `run_folder`.
        options: the training.
        resume: go on from the last checkpoint there, as if nothing had happened.
        force: replace an earlier training.
        strategy: tf.distribute.Strategy; None: by the environment (TF_CONFIG) and the GPUs there are.
        progress: told what is being done.
        problem: told what is wrong with the data.
        say: told where the training begins, on what, and where it was stopped.

    Raises:
        TrainingError: the loss is no number, or the folder holds another training.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint of the last whole step is there.
        SsdliteError: the data or the model to begin with cannot be used, or the disk refuses.
    """
    # For training oneDNN's kernels are twice as fast; how they sum does not matter here.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    _, tf = import_keras()
    tf.config.experimental.enable_op_determinism()
    strategy = strategy or _strategy(tf)
    from ssdlite_caffe.keras.losses import suited
    from ssdlite_caffe.keras.store import load
    from ssdlite_caffe.keras.trainer import StepOptions, Trainer

    folder = RunFolder(out, writes=_is_chief(strategy))
    with folder.held():
        if not resume:
            folder.check_free(force=force)
        labels = load_label_map(options.data.label_map) if options.data.label_map else None
        data = open_training_data(
            options.data.data, split=options.data.split, images=options.data.images, labels=labels,
            progress=lambda done, total: progress(f"reading images, {done} of {total}"),
        )  # fmt: skip
        for item in data.problems:
            problem(str(item))
        start = load(options.net.start) if options.net.start else None
        arch = _arch(options.net, start, data.labels)
        step = options.step or StepOptions()
        loss = suited(step.loss, arch.score_converter)
        step = replace(step, loss=loss, dtype=_dtype(tf, options.precision))
        identity = {**_identity(options, arch, step, data), "kernels": _kernels(tf)}
        folder.check(identity) if resume else folder.begin(identity)
        progress("building the model")
        trainer = Trainer(arch, data.labels, step, data, options.seed, strategy)
        if start is not None:
            _begin_with(trainer, start)
        if resume and not folder.steps():
            say(f"there is no checkpoint in {out} yet: from the beginning")
        say(f"training on {_devices(tf, strategy)}")
        report = _run(folder, trainer, options, progress, say)
        if folder.writes:
            write_model(trainer.detector(), out)
    _leave(strategy)
    return {"model": str(out / MODEL), "images": len(data), "classes": len(data.labels), **report}


def write_model(detector: KerasModel, folder: Path) -> None:
    """Write model.keras and its class names into a training's folder."""
    from ssdlite_caffe.keras.store import save

    write_text(folder / LABEL_MAP, detector.labels.to_prototxt(), force=True)
    save(detector, folder / MODEL, force=True)


def _run(
    folder: RunFolder, trainer: Trainer, options: TrainOptions, progress: Callable[[str], None],
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """All steps that are left."""
    from ssdlite_caffe.keras.tensorboard import Board

    schedule, batch = options.schedule, trainer.options.batch
    first, window = 0, np.zeros(4)
    known = folder.steps()
    if known:
        first = known[-1]
        if first > schedule.steps:
            raise TrainingError(f"{folder.path} has a checkpoint of step {first}, behind the last, {schedule.steps}")
        state = {**trainer.state(), "window": window}
        arrays = folder.load(first, like=state)
        window = arrays.pop("window")
        trainer.restore(arrays)
        say(f"going on from step {first}")
    folder.cut_metrics(first)
    progress("tracing the first step")
    batches = trainer.batches(first) if first < schedule.steps else None
    began = time.monotonic()
    logged: dict[str, Any] = {}
    stop = threading.Event()
    with contextlib.ExitStack() as opened:
        board = opened.enter_context(Board(folder.path / TENSORBOARD if folder.writes else None))
        if _hosts(trainer.strategy) < 2:  # a host that ends early would leave the others waiting
            opened.enter_context(on_interrupt(stop.set))
        for step in range(first, schedule.steps):
            rate = schedule.at(step)
            window += 1.0, *trainer.step(batches, step, rate)
            done = step + 1
            speed = (done - first) * batch / (time.monotonic() - began)
            mean = (window[1:] / window[0]).tolist()
            left = (schedule.steps - done) * batch / speed
            progress(str(Progress(done, schedule.steps, sum(mean), rate, speed, left)))
            if done % options.log_every == 0 or done == schedule.steps:
                names = ("localisation", "classification", "regularisation")
                values = {"loss": sum(mean), **dict(zip(names, mean, strict=True)), "rate": rate}
                logged = {"step": done, **values, "images_per_second": round(speed, 2)}
                folder.log(logged)
                board.write(done, {**values, "images_per_second": speed})
                window = np.zeros(4)
            if done % options.checkpoint_every == 0 or done == schedule.steps or stop.is_set():
                folder.save(done, {**_finite(trainer.state(), done), "window": window})
            if stop.is_set() and done < schedule.steps:
                say(f"stopped after step {done} of {schedule.steps}; the same command with --resume goes on")
                raise KeyboardInterrupt
    return {"steps": schedule.steps, "resumed_at": first, "seconds": round(time.monotonic() - began, 1), **logged}


def _finite(state: Arrays, steps: int) -> Arrays:
    """Refuse weights of which the next step's loss would be no number."""
    wrong = sum(not np.isfinite(values).all() for values in state.values())
    if wrong:
        raise TrainingError(f"{wrong} variables are no numbers after {steps} steps; lower --lr")
    return state


def _strategy(tf: Any) -> Any:
    """MultiWorkerMirrored where TF_CONFIG names hosts, Mirrored on several GPUs, else one device."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _devices(tf: Any, strategy: Any) -> str:
    """What computes, for a person."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    here = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else "the CPU"
    hosts = _hosts(strategy)
    return f"{here}, one of {hosts} hosts" if hosts > 1 else here


def _hosts(strategy: Any) -> int:
    resolver = strategy.cluster_resolver
    spec = {} if resolver is None else resolver.cluster_spec().as_dict()
    return sum(map(len, spec.values()))


def _leave(strategy: Any) -> None:
    """End the thread that watches the other hosts: it would keep a worker that is done from exiting."""
    stop = getattr(strategy.extended, "_stop_check_health_thread", None)
    if stop is not None:
        stop()


def _is_chief(strategy: Any) -> bool:
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec().as_dict():
        return True
    kind, number = resolver.task_type, resolver.task_id
    return kind == "chief" or (kind == "worker" and number == 0 and "chief" not in resolver.cluster_spec().jobs)


def _dtype(tf: Any, precision: Precision) -> DType:
    if precision == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        found = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
        return "mixed_float16" if found and min(found) >= _TENSOR_CORES else "float32"
    if precision == "float16":
        return "mixed_float16"
    return "mixed_bfloat16" if precision == "bfloat16" else "float32"


def _arch(net: NetOptions, start: KerasModel | None, labels: LabelMap) -> ArchSpec:
    if start is not None:
        return replace(start.arch, num_classes=len(labels))
    from ssdlite_caffe.gen_model.options import BoxOptions, arch_from_options

    return arch_from_options(
        net.version, len(labels), width_multiplier=net.width_multiplier, input_size=net.input_size,
        head=net.head, boxes=BoxOptions(scores=net.scores),
    )  # fmt: skip


def _begin_with(trainer: Trainer, start: KerasModel) -> None:
    """Take over a detector's weights; where its classes are others, all but those of the class predictors."""
    from ssdlite_caffe.keras.weights import get_values, set_values

    same = start.labels.entries == trainer.labels.entries
    reset = tuple(
        f"{layer_name(conv.tf_scope)}/"
        for feature_map in build(trainer.arch).feature_maps
        for conv in feature_map.conf
        if conv.role == "class_predictor"
    )
    kept = {n: v for n, v in get_values(start.model).items() if same or not n.startswith(reset)}
    set_values(trainer.model, {**get_values(trainer.model), **kept})
    trainer.restart_averages()


def _kernels(tf: Any) -> dict[str, str]:
    """What computes: others give the same numbers but for rounding, which a training soon makes more of."""
    return {"tensorflow": tf.__version__, "onednn": os.environ["TF_ENABLE_ONEDNN_OPTS"]}


def _identity(options: TrainOptions, arch: ArchSpec, step: StepOptions, data: TrainingData) -> dict[str, Any]:
    """All that the course of a training depends on; where files lie does not matter, what is in them does."""
    digest = hashlib.sha256()
    for name, objects in zip(data.names, data.objects, strict=True):
        digest.update(name.encode("utf-8", "surrogateescape"))
        for values in objects:
            digest.update(np.ascontiguousarray(values).tobytes())
    return {
        "seed": options.seed,
        "schedule": asdict(options.schedule),
        "step": asdict(step),
        "log_every": options.log_every,
        "arch": arch.to_dict(),
        "labels": list(data.labels.display_names),
        "start": file_sha256(options.net.start) if options.net.start else None,
        "data": {"images": len(data), "annotations": digest.hexdigest()},
    }
