"""Whether the files of a folder are still those that `verify --record` compared: hashes alone, nothing is run."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssdlite_caffe.errors import ModelError, OutputError, PrototxtError
from ssdlite_caffe.files import file_sha256
from ssdlite_caffe.runtimes.folder_files import DEPLOY, PROOFS, REPORT, read_report, target_files
from ssdlite_caffe.tools.proof_record import ProofRecord, arch_sha256, date_text, proofs_of

State = Literal["unchanged", "changed", "missing", "not given"]
_RUNTIME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
ARCH = f"{REPORT}: arch"
"""What the architecture in report.json is called among the files."""


@dataclass(frozen=True)
class CheckedProof:
    """A record, and what has become of its files.

    Attributes:
        runtime: that ran the nets.
        record: what report.json says.
        files: state of each file of the folder that has a hash, and of the architecture in report.json.
        model: state of the model's file.
    """

    runtime: str
    record: ProofRecord
    files: dict[str, State]
    model: State

    @property
    def changed(self) -> list[str]:
        """`deploy.caffemodel changed`, `test.prototxt missing`, ..."""
        states = [(self.record.source["name"], self.model), *self.files.items()]
        return [f"{name} {state}" for name, state in states if state in ("changed", "missing")]

    @property
    def ok(self) -> bool:
        """Whether nothing has changed and the sides were equal."""
        return not self.changed and self.record.equal


@dataclass(frozen=True)
class ProofCheck:
    """All records of a folder that were asked for.

    Attributes:
        folder: the converted model.
        proofs: at least one.
    """

    folder: str
    proofs: tuple[CheckedProof, ...]

    @property
    def ok(self) -> bool:
        """Whether every record holds."""
        return all(proof.ok for proof in self.proofs)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "folder": self.folder,
            "ok": self.ok,
            "proofs": {
                proof.runtime: {
                    "ok": proof.ok,
                    "unchanged": not proof.changed,
                    "files": proof.files,
                    "model": proof.model,
                    "record": proof.record.to_dict(),
                }
                for proof in self.proofs
            },
        }


def source_sha256(path: Path) -> str | None:
    """SHA-256 of a model's files, hex, without reading the model; None for dumped weights.

    Raises:
        SsdliteError: there is no model, or a file of it cannot be read.
    """
    from ssdlite_caffe.dump.fingerprint import model_sha256  # with protobuf, which takes as long as all the rest
    from ssdlite_caffe.runtimes.keras_file import keras_file

    keras = keras_file(path)
    return model_sha256(path) if keras is None else file_sha256(keras)


def check_proof(folder: Path, source: Path | None = None, *, runtime: str | None = None) -> ProofCheck:
    """Compare the files of a folder with the hashes that `verify --record` wrote.

    Args:
        folder: the converted model.
        source: the model, whose hash is then compared too.
        runtime: the record to check; None: all of them.

    Raises:
        SsdliteError: there is no record, one is not valid, or `source` is no model.
    """
    path = folder / REPORT
    if not path.is_file():
        what = (
            f"has no {REPORT}" if folder.is_dir() else f"is a file, not a folder with {REPORT}" if folder.exists()
            else "does not exist"
        )  # fmt: skip
        raise PrototxtError(f"{folder} {what}; give a folder that `ssdlite-caffe convert` wrote")
    report = read_report(path)
    said = proofs_of(report, str(path))
    wanted = list(said) if runtime is None else [name for name in said if name == runtime]
    if not wanted:
        other = f" with {runtime}, but one with {', '.join(map(_name, said))}" if said else ""
        raise PrototxtError(
            f"{folder} has no proof{other}; verify it and record one: ssdlite-caffe verify MODEL "
            f"{shlex.quote(str(folder))} --record{'' if runtime is None else f' --runtime {runtime}'}"
        )
    unknown = next((name for name in wanted if not _RUNTIME.fullmatch(name)), None)
    if unknown is not None:
        raise PrototxtError(
            f"{path}: {_name(unknown)} under {PROOFS!r} is no name of a runtime; record the proof again"
        )
    records = {name: ProofRecord.from_dict(said[name], f"{path}: {PROOFS}.{name}") for name in wanted}
    needed = [file for file in (DEPLOY, *target_files(report, str(path))) if (folder / file).is_file()]
    for name, record in records.items():
        bare = next((file for file in needed if file not in record.files), None)
        if bare is not None:
            raise PrototxtError(f"{path}: {PROOFS}.{name}.files has no {bare!r}; record the proof again")
    digest = None if source is None else source_sha256(source)
    if source is not None and digest is None:
        raise ModelError(f"{source} holds dumped weights, which have no graph to verify; give the model")
    hashes = {name: _sha256(folder / name) for name in {n for record in records.values() for n in record.files}}
    arch = arch_sha256(report)
    return ProofCheck(
        str(folder),
        tuple(
            CheckedProof(
                name,
                record,
                {
                    **{file: _state(hashes[file], known) for file, known in record.files.items()},
                    ARCH: _state(arch, record.arch),
                },
                "not given" if digest is None else _state(digest, record.source["sha256"]),
            )
            for name, record in records.items()
        ),
    )


def _name(text: str) -> str:
    return ascii(text) if len(text) <= 40 else ascii(text[:40]) + "..."


def _state(found: str | None, known: str) -> State:
    return "missing" if found is None else "unchanged" if found == known else "changed"


def _sha256(path: Path) -> str | None:
    """None where there is no such file."""
    if not path.is_file():
        return None
    try:
        return file_sha256(path)
    except OutputError as error:
        raise PrototxtError(str(error)) from error


def check_text(check: ProofCheck) -> str:
    """What was checked, in lines of text."""
    return "\n".join(line for proof in check.proofs for line in _lines(proof))


def _lines(proof: CheckedProof) -> list[str]:
    record = proof.record
    count = len(record.images)
    names = ", ".join(name for name, _ in record.images[:4]) + (", ..." if count > 4 else "")
    images = "1 image" if count == 1 else f"{count} images"
    lines = [
        f"{proof.runtime}: {_some(proof.changed)} since this was recorded: {record.verdict}"
        if proof.changed
        else f"{proof.runtime}: unchanged, and {record.verdict}",
        f"  recorded {date_text(record.date)} with ssdlite-caffe {record.versions['ssdlite-caffe']}, TensorFlow "
        f"{record.versions['tensorflow']}, numpy {record.versions['numpy']}",
        f"  run by {proof.runtime} {record.versions['runtime']}, on {images}: {names}",
    ]
    if record.share is not None:
        share, stage = _figure(record.share.value, ".3g"), record.share.stage
        lines.append(f"  in float64: at most {share} of what is allowed, at {stage}")
    if record.ratio is not None:
        ratio, stage = _figure(record.ratio.value, ".1f"), record.ratio.stage
        lines.append(f"  rounding errors in float32: at most {ratio} times the model's, at {stage}")
    lines += [f"  {name.replace('_', ' ')}: largest difference {_figure(value, '.2e')}"
              for name, value in record.figures.items()]  # fmt: skip
    if record.tolerance is not None:
        lines.append(f"  with --tolerance {record.tolerance:g}")
    model = f"{record.source['form']} {record.source['name']}", _model(proof.model)
    targets = {name.partition("/")[0]: 0 for name in proof.files if "/" in name}
    states = [model]
    for name, state in proof.files.items():  # a target may have thousands of images
        if "/" in name and state == "unchanged":
            targets[name.partition("/")[0]] += 1
        else:
            states.append((name, state))
    states += [
        (f"{name}/", f"unchanged, {count} {'file' if count == 1 else 'files'}")
        for name, count in targets.items()
        if count
    ]
    width = max(len(name) for name, _ in states)
    return [*lines, *(f"  {name:{width}}  {state}" for name, state in states)]


def _some(names: list[str]) -> str:
    more = len(names) - 8
    return ", ".join(names[:8]) + (f" and {more} more" if more > 0 else "")


def _model(state: State) -> str:
    return "not checked; give MODEL too" if state == "not given" else state


def _figure(value: float | None, form: str) -> str:
    return "NaN or Inf" if value is None else format(value, form)
