"""The folder of a training: run.json, metrics.jsonl, checkpoints, tensorboard; at the end model.keras, and its classes.

Every file but the two logs appears whole or not at all; a training that was killed leaves its last checkpoint.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdlite_caffe.errors import OutputError, TrainingError
from ssdlite_caffe.files import held_folder, remove_leftovers, write_bytes, write_text

RUN, METRICS, CHECKPOINTS, TENSORBOARD, MODEL = "run.json", "metrics.jsonl", "checkpoints", "tensorboard", "model.keras"
LABEL_MAP = "labelmap.prototxt"
_KEPT = 2
OPTIONS = {
    "schedule.base": "--lr", "schedule.steps": "--steps", "schedule.kind": "--schedule", "schedule.warmup": "--warmup",
    "schedule.drops": "--drops", "step.batch": "--batch-size", "step.optimizer": "--optimizer", "step.ema": "--ema",
    "step.momentum": "--bn-momentum", "step.freeze_batch_norm": "--freeze-bn", "step.dtype": "--precision",
    "step.decay": "--weight-decay", "step.loss.kind": "--loss", "step.loss.alpha": "--alpha",
    "step.loss.gamma": "--gamma", "step.loss.negatives": "--negatives", "step.augment.largest": "--zoom",
    "step.augment.crop": "--crop", "step.augment.mirror": "--mirror", "step.augment.colours": "--colours",
    "seed": "--seed", "log_every": "--log-every", "start": "the file of --from", "arch.family": "--version",
    "arch.width_multiplier": "--size", "arch.input_size": "--input", "arch.head": "--type",
    "arch.score_converter": "--scores", "labels": "the classes", "data.images": "the number of images",
    "data.annotations": "the annotations", "kernels.tensorflow": "TensorFlow",
}  # fmt: skip
"""What a person calls the parts of run.json."""
_NAME = re.compile(r"step-(\d{8,})\.npz")

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class RunFolder:
    """A training's folder.

    Attributes:
        path: of the folder.
        writes: whether this process writes; of several, one does.
    """

    path: Path
    writes: bool = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other trainings out of the folder, which is made where there is none.

        Raises:
            OutputError: another one is in there, or the disk refuses.
        """
        with held_folder(self.path) if self.writes else contextlib.nullcontext():
            yield

    def check_free(self, *, force: bool) -> None:
        """Refuse a folder that is not for a new training.

        Raises:
            OutputError: it holds something else, or a training and `force` is false.
        """
        if not self.writes or not any(self.path.iterdir()):
            return
        if not (self.path / RUN).is_file():
            raise OutputError(f"{self.path} holds files but no {RUN}, so no training goes there; give another name")
        if not force:
            raise OutputError(f"{self.path} holds a training already: --resume goes on with it, --force begins anew")

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Make the folder that of a new training; an earlier one is removed.

        Args:
            identity: all that the training's course depends on.

        Raises:
            OutputError: the disk refuses.
        """
        if not self.writes:
            return
        remove_leftovers(self.path)
        try:
            for name in (METRICS, MODEL, LABEL_MAP):
                (self.path / name).unlink(missing_ok=True)
            for name in (CHECKPOINTS, TENSORBOARD):
                if (self.path / name).exists():
                    shutil.rmtree(self.path / name)
        except OSError as error:
            raise OutputError(f"cannot empty {self.path}: {error.strerror or error}") from error
        write_text(self.path / RUN, json.dumps(identity, indent=2) + "\n", force=True)

    def check(self, identity: Mapping[str, Any]) -> None:
        """Refuse to go on with a training that was another; of one that was killed, remove what is half-written.

        Raises:
            TrainingError: there is none, or it differs; what differs is listed.
        """
        file = self.path / RUN
        try:
            known = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            raise TrainingError(f"{self.path} holds no training to go on with: there is no {RUN}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise TrainingError(f"cannot read {file}: {error}") from error
        if not isinstance(known, dict):
            raise TrainingError(f"cannot read {file}: it is no training's")
        wanted = json.loads(json.dumps(identity))
        differing = sorted(_differences(known, wanted))
        if differing:
            raise TrainingError(
                f"{self.path} is another training than was asked for: {'; '.join(differing)}; give what it began with, "
                "or another folder and --from for a new training"
            )
        if self.writes:
            remove_leftovers(self.path)
            remove_leftovers(self.path / CHECKPOINTS)

    def steps(self) -> list[int]:
        """Those of which there is a checkpoint, the last one last."""
        folder = self.path / CHECKPOINTS
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))

    def save(self, step: int, arrays: Arrays) -> None:
        """Write a checkpoint, and remove the oldest ones.

        Raises:
            OutputError: the disk refuses; the earlier ones are still there.
        """
        if not self.writes:
            return
        stream = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez(stream, **named)
        write_bytes(self._checkpoint(step), stream.getvalue(), force=True)
        for old in self.steps()[:-_KEPT]:
            self._checkpoint(old).unlink(missing_ok=True)

    def load(self, step: int, like: Arrays) -> Arrays:
        """Read a checkpoint.

        Args:
            step: of which.
            like: arrays of the names, shapes and types that it must have.

        Raises:
            TrainingError: it is damaged, or of another model.
        """
        path = self._checkpoint(step)
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, EOFError, ValueError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise TrainingError(f"{path} is damaged: {error}; remove it to go on from the one before") from error
        wrong = sorted(like.keys() ^ arrays.keys())
        wrong += [
            n for n in like if n in arrays and (like[n].shape, like[n].dtype) != (arrays[n].shape, arrays[n].dtype)
        ]
        if wrong:
            raise TrainingError(f"{path} is of another model: {', '.join(wrong[:5])} differ")
        return arrays

    def _checkpoint(self, step: int) -> Path:
        return self.path / CHECKPOINTS / f"step-{step:08d}.npz"

    def cut_metrics(self, step: int) -> None:
        """Drop what was logged after a step, which will be logged again; a line cut short by a kill goes too."""
        path = self.path / METRICS
        if self.writes and path.is_file():
            lines = [line for line in path.read_bytes().splitlines() if _step_of(line) <= step]
            write_bytes(path, b"".join(line + b"\n" for line in lines), force=True)

    def log(self, values: Mapping[str, Any]) -> None:
        """Append a line of JSON to the metrics.

        Raises:
            OutputError: the disk refuses.
        """
        if not self.writes:
            return
        try:
            with (self.path / METRICS).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {self.path / METRICS}: {error.strerror or error}") from error


def _step_of(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
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
