"""The folder of a training: run.json, metrics.jsonl, loss.png, checkpoints, tensorboard; in the end model.keras.

Every file but the two logs appears whole or not at all; a training that was killed leaves its last checkpoint.

scan.npz is what was found in the images, for the next start; see `scan_file`. A new training keeps it.

run.json holds what the course of the training depends on (its identity), the command's `options`, and in the end
`model_iterations`, those of model.keras. A line of metrics.jsonl has `iteration` and either losses or measures of a
test.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import OutputError, TrainingError
from ssdlite_caffe.files import held_folder, remove_leftovers, write_bytes, write_text

RUN, METRICS, CHECKPOINTS, TENSORBOARD, MODEL = "run.json", "metrics.jsonl", "checkpoints", "tensorboard", "model.keras"
LABEL_MAP, PLOT, SCAN = "labelmap.prototxt", "loss.png", "scan.npz"
_FILES, _FOLDERS = (METRICS, MODEL, LABEL_MAP, PLOT), (CHECKPOINTS, TENSORBOARD)
"""What a new training removes of an earlier one; it writes run.json over."""
_OPTIONS, _MODEL_ITERATIONS = "options", "model_iterations"
_KEPT = 2
OPTIONS = {
    "schedule.base": "--learning-rate", "schedule.iterations": "--iterations", "schedule.kind": "--schedule",
    "schedule.warmup": "--warmup",
    "schedule.drops": "--drops", "step.batch": "--batch-size", "step.optimizer": "--optimizer", "step.ema": "--ema",
    "step.momentum": "--bn-momentum", "step.freeze_batch_norm": "--freeze-bn", "step.dtype": "--precision",
    "step.decay": "--weight-decay", "step.loss.kind": "--loss", "step.loss.alpha": "--alpha",
    "step.loss.gamma": "--gamma", "step.loss.negatives": "--negatives",
    "step.loss.least_negatives": "--min-negatives", "step.loss.by_matches": "--by-matches",
    "step.loss.by_codesize": "--by-codesize", "step.augment.largest": "--zoom",
    "step.augment.crop": "--crop", "step.augment.flip": "--flip", "step.augment.colours": "--colours",
    "seed": "--seed", "log_every": "--log-every", "start": "the file of --from", "arch.family": "--version",
    "arch.width_multiplier": "--width-multiplier", "arch.input_size": "--input-size", "arch.head": "--type",
    "arch.score_converter": "--scores", "labels": "the classes", "data.images": "the number of images",
    "data.annotations": "the annotations", "kernels.tensorflow": "TensorFlow",
}  # fmt: skip
"""The parts of run.json as messages call them."""
_NAME = re.compile(r"iteration-(\d{8,})\.npz")

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RunFolder:
    """A training's folder.

    Attributes:
        path: of the folder.
        writes: whether this process writes; of the processes of several hosts, one does.
    """

    path: Path
    writes: bool = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other trainings out of the folder; make it where there is none.

        Raises:
            OutputError: another training runs there, or the folder cannot be made.
        """
        with held_folder(self.path) if self.writes else contextlib.nullcontext():
            yield

    def check_free(self, *, force: bool, needed: Sequence[Path] = ()) -> None:
        """Refuse a folder in which no new training may start.

        Args:
            force: replace an earlier training.
            needed: files that the new training reads, now and when it is resumed.

        Raises:
            OutputError: the folder holds something else, or a training and `force` is false, or one of `needed` is of
                the training that would be removed.
        """
        if not self.writes or not any(self.path.iterdir()):
            return
        if not (self.path / RUN).is_file():
            raise OutputError(f"{self.path} holds files but no {RUN}, so it is not a training; give another name")
        if not force:
            raise OutputError(f"{self.path} holds a training; --resume continues it, --force replaces it")
        for path in needed:
            if self._is_removed(path):
                raise OutputError(
                    f"{path} is of the training in {self.path} that --force removes; copy it to another folder and "
                    "give the copy"
                )

    def _is_removed(self, path: Path) -> bool:
        """Whether `begin` removes a file, or the link by which it is named."""
        folder = self.path.resolve()
        places = [
            place.relative_to(folder)
            for place in (path.resolve(), path.parent.resolve() / path.name)
            if place.is_relative_to(folder)
        ]
        return any(place.parts and place.parts[0] in (*_FILES, *_FOLDERS) for place in places)

    def begin(self, identity: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Start a new training; an earlier one is removed.

        Args:
            identity: all that the training's course depends on.
            options: of the command, plain values; see `options_of`.

        Raises:
            OutputError: a file cannot be removed or written.
        """
        if not self.writes:
            return
        remove_leftovers(self.path)
        try:
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
            for name in _FOLDERS:
                if (self.path / name).exists():
                    shutil.rmtree(self.path / name)
        except OSError as error:
            raise OutputError(f"cannot empty {self.path}: {error.strerror or error}") from error
        self._write_run({**identity, _OPTIONS: dict(options)})

    def check(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Compare the training with one asked for; the number of iterations may differ.

        Args:
            identity: of the training asked for.

        Returns:
            The identity that the folder had.

        Raises:
            TrainingError: there is no training, or it differs; all differences are listed.
        """
        known = read_run(self.path)
        wanted = json.loads(json.dumps(identity))
        was = {name: value for name, value in known.items() if name not in (_OPTIONS, _MODEL_ITERATIONS)}
        differing = sorted(line for line in _differences(was, wanted) if not line.startswith("--iterations "))
        if differing:
            raise TrainingError(
                f"{self.path} holds another training than was asked for: {'; '.join(differing)}; give what it was "
                "started with, or another folder and --from for a new training"
            )
        return was

    def resume(self, identity: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """Take identity and options of a resumed training into run.json; remove what a killed one left half-written."""
        if self.writes:
            remove_leftovers(self.path)
            remove_leftovers(self.path / CHECKPOINTS)
            self._write_run({**read_run(self.path), **identity, _OPTIONS: dict(options)})

    def finish(self, iterations: int) -> None:
        """Note in run.json that model.keras is written, and after how many iterations."""
        if self.writes:
            self._write_run({**read_run(self.path), _MODEL_ITERATIONS: iterations})

    def is_finished(self, iterations: int) -> bool:
        """Whether model.keras is there, after so many iterations."""
        known = read_run(self.path)
        return (self.path / MODEL).is_file() and known.get(_MODEL_ITERATIONS) == iterations

    def _write_run(self, content: Mapping[str, Any]) -> None:
        write_text(self.path / RUN, json.dumps(content, indent=2) + "\n", force=True)

    def iterations(self) -> list[int]:
        """Iterations after which there is a checkpoint, in rising order."""
        folder = self.path / CHECKPOINTS
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))

    def save(self, iteration: int, arrays: Arrays) -> None:
        """Write a checkpoint, and remove older ones but for the last two.

        Raises:
            OutputError: it cannot be written; the earlier ones are still there.
        """
        if not self.writes:
            return
        stream = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez(stream, **named)
        write_bytes(self._checkpoint(iteration), stream.getvalue(), force=True)
        for old in self.iterations()[:-_KEPT]:
            self._checkpoint(old).unlink(missing_ok=True)

    def load(self, iteration: int, like: Arrays) -> Arrays:
        """Read a checkpoint.

        Args:
            iteration: of which.
            like: arrays of the names, shapes and types that it must have.

        Raises:
            TrainingError: it is damaged, or of another model.
        """
        path = self._checkpoint(iteration)
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise TrainingError(f"{path} is damaged: {error}; remove it to resume from the one before") from error
        wrong = sorted(like.keys() ^ arrays.keys())
        wrong += [
            n for n in like if n in arrays and (like[n].shape, like[n].dtype) != (arrays[n].shape, arrays[n].dtype)
        ]
        if wrong:
            raise TrainingError(f"{path} is of another model: {', '.join(wrong[:5])} differ")
        return arrays

    def _checkpoint(self, iteration: int) -> Path:
        return self.path / CHECKPOINTS / f"iteration-{iteration:08d}.npz"

    def cut_metrics(self, iteration: int) -> None:
        """Remove what was logged after an iteration and will be logged again, and a line that a kill cut short."""
        path = self.path / METRICS
        if self.writes and path.is_file():
            lines = [line for line in path.read_bytes().splitlines() if _iteration_of(line) <= iteration]
            write_bytes(path, b"".join(line + b"\n" for line in lines), force=True)

    def log(self, values: Mapping[str, Any]) -> None:
        """Append a line of JSON to the metrics.

        Raises:
            OutputError: it cannot be written.
        """
        if not self.writes:
            return
        try:
            with (self.path / METRICS).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path / METRICS}: {error.strerror or error}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl."""
        path = self.path / METRICS
        lines = path.read_bytes().splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if math.isfinite(_iteration_of(line))]

    def tested(self, iteration: int) -> bool:
        """Whether the metrics have a test after so many iterations."""
        return any(line["iteration"] == iteration and "loss" not in line for line in self.metrics())

    def last(self) -> dict[str, Any]:
        """The last line of losses, and the measures of the last test; empty where there are none."""
        lines = self.metrics()
        losses: dict[str, Any] = next((line for line in reversed(lines) if "loss" in line), {})
        return {**next((line for line in reversed(lines) if "loss" not in line), {}), **losses}


def read_run(path: Path) -> dict[str, Any]:
    """What run.json of a training's folder holds.

    Raises:
        TrainingError: there is none, or it cannot be read.
    """
    file = path / RUN
    try:
        known = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise TrainingError(f"{path} holds no training to resume: there is no {RUN}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"cannot read {file}: {error}") from error
    if not isinstance(known, dict):
        raise TrainingError(f"cannot read {file}: it must hold an object, got {type(known).__name__}")
    return known


def options_of(path: Path) -> dict[str, Any]:
    """The options of the command that started the training in a folder.

    Raises:
        TrainingError: there is no training, or it keeps no options.
    """
    options = read_run(path).get(_OPTIONS)
    if not isinstance(options, dict):
        raise TrainingError(f"{path / RUN} keeps no options: it was written by another version; start over")
    return options


def _iteration_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return float("inf")


def _differences(known: Any, wanted: Any, name: str = "") -> list[str]:
    if isinstance(known, dict) and isinstance(wanted, dict):
        keys = sorted(known.keys() | wanted.keys())
        return [
            line for key in keys for line in _differences(known.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
        ]
    if known == wanted:
        return []
    was, now = (text if len(text) <= 40 else f"{text[:37]}..." for text in (json.dumps(known), json.dumps(wanted)))
    return [f"{OPTIONS.get(name, name)} was {was} and is {now}"]
