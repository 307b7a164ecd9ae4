"""Writing what a comparison found into report.json of the folder, so that it can be checked later."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ssdlite_caffe import __version__
from ssdlite_caffe.errors import ImageError, MissingRuntimeError, ModelError, PrototxtError
from ssdlite_caffe.files import file_sha256, held_folder, refuse_unwritable, write_text
from ssdlite_caffe.imports import import_opencv, import_tensorflow
from ssdlite_caffe.runtimes.folder_files import PROOFS, REPORT, read_report, target_files
from ssdlite_caffe.runtimes.images import find_sources
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.net import NetRuntime
from ssdlite_caffe.tools.comparison import Row
from ssdlite_caffe.tools.proof_check import source_sha256
from ssdlite_caffe.tools.proof_record import FILES, AtStage, ProofRecord, arch_sha256, line_of, now, proofs_of
from ssdlite_caffe.tools.verify import VerifyReport
from ssdlite_caffe.tools.verify_report import drawn_images
from ssdlite_caffe.tools.verify_text import verdict


@dataclass(frozen=True)
class Fingerprints:
    """Hashes of everything that a comparison reads.

    Attributes:
        source: of the model; None for dumped weights.
        files: of the folder, by name.
        arch: of the architecture in its report.
        images: of the image files, or of the pixels of drawn images.
    """

    source: str | None
    files: dict[str, str]
    arch: str
    images: tuple[str, ...]

    @classmethod
    def of(cls, source: Path, folder: Path, images: Sequence[Path], limit: int) -> Fingerprints:
        """Read all of it; arguments as of `verify_images`.

        Raises:
            SsdliteError: something is missing, or cannot be read.
        """
        opened = ModelFolder.open(folder)
        names = (*FILES, *target_files(opened.report, str(folder / REPORT)))
        files = {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
        if images:
            hashes = tuple(_image_sha256(found) for found in find_sources(images)[:limit])
        else:
            drawn = drawn_images(opened.arch.input_size, limit)
            hashes = tuple(hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() for _, pixels in drawn)
        return cls(source_sha256(source), files, arch_sha256(opened.report), hashes)


def _image_sha256(found: Any) -> str:
    if isinstance(found, ImageError):
        raise found
    return file_sha256(found.path)


@dataclass(frozen=True)
class ProofWriter:
    """Takes the hashes before a comparison, and writes the proof after it if they are still the same.

    Attributes:
        source, folder, images, limit: as of `verify_images`.
    """

    source: Path
    folder: Path
    images: Sequence[Path]
    limit: int
    before: Fingerprints = field(init=False)

    def __post_init__(self) -> None:
        """Read everything, and refuse a folder that cannot be written, before the slow part.

        Raises:
            SsdliteError: see above.
        """
        object.__setattr__(self, "before", Fingerprints.of(self.source, self.folder, self.images, self.limit))
        refuse_unwritable(self.folder)

    def write(self, report: VerifyReport, runtime: NetRuntime, tolerance: float | None) -> ProofRecord:
        """Put the proof into report.json, in place of an earlier one of the same runtime.

        Args:
            report: what the comparison found.
            runtime: that ran the nets.
            tolerance: that was asked for.

        Raises:
            ModelError: a file has changed since the comparison began.
            OutputError: report.json cannot be written.
        """
        if Fingerprints.of(self.source, self.folder, self.images, self.limit) != self.before:
            raise ModelError(
                f"the model, an image or a file of {self.folder} has changed while they were compared; nothing is "
                "recorded, verify again"
            )
        record = _record(report, self.before, runtime, tolerance, drawn=not self.images)
        path = self.folder / REPORT
        with held_folder(self.folder):
            content = read_report(path)
            said = content.get(PROOFS)
            proofs = {**(said if isinstance(said, dict) else {}), runtime: record.to_dict()}
            write_text(path, json.dumps({**content, PROOFS: proofs}, indent=2) + "\n", force=True)
        return record


def recorded_date(folder: Path, runtime: NetRuntime) -> datetime | None:
    """When the proof of a runtime in a folder was written; None if there is none that can be read."""
    try:
        where = str(folder / REPORT)
        said = proofs_of(read_report(folder / REPORT), where).get(runtime)
        return None if said is None else ProofRecord.from_dict(said, where).date
    except PrototxtError:
        return None


def _record(
    report: VerifyReport, hashes: Fingerprints, runtime: NetRuntime, tolerance: float | None, *, drawn: bool
) -> ProofRecord:
    if hashes.source is None or len(hashes.images) != len(report.names):
        raise ModelError(f"{report.source} cannot be recorded: its hash, or that of an image, is not known")
    rows = {row.stage: row for row in report.rows}
    return ProofRecord(
        verdict=line_of(verdict(report)),
        equal=report.first_failure is None,
        date=now(),
        source={
            "name": line_of(Path(report.source).absolute().name),
            "form": line_of(report.form),
            "sha256": hashes.source,
        },
        files=hashes.files,
        arch=hashes.arch,
        share=_largest(report.rows, {row.stage: row.double.share for row in report.rows if row.double is not None}),
        ratio=_largest(report.rows, {row.stage: row.ratio for row in report.rows if row.ratio is not None}),
        figures={
            name.replace(" ", "_"): _finite(rows[name].absolute)
            for name in ("boxes", "scores", "boxes in float64", "scores in float64")
            if name in rows
        },
        unproved=line_of(report.unproved),
        tolerance=tolerance,
        images=tuple(
            (line_of(name), digest) for name, digest in zip(report.names, hashes.images, strict=True)
        ),
        drawn=drawn,
        versions={
            "runtime": line_of(_runtime_version(runtime)),
            "ssdlite-caffe": __version__,
            "tensorflow": str(import_tensorflow("verify").__version__),
            "numpy": np.__version__,
        },
    )  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _largest(rows: Sequence[Row], values: dict[str, float]) -> AtStage | None:
    """The largest value and its stage; NaN is the largest."""
    if not values:
        return None
    stage = max(values, key=lambda name: math.inf if math.isnan(values[name]) else values[name])
    return AtStage(_finite(values[stage]), line_of(stage))


def _runtime_version(runtime: NetRuntime) -> str:
    """The version of what runs the nets."""
    if runtime == "caffe":
        return _caffe_version()
    return str(import_opencv().__version__) if runtime == "opencv" else f"numpy {np.__version__}"


def _caffe_version() -> str:
    """What the built Caffe was made from: our version, and the beginnings of the hashes of its build and its fork."""
    from ssdlite_caffe.caffe.prefix import STAMP, caffe_prefix

    try:
        stamp = json.loads((caffe_prefix() / STAMP).read_text("utf-8"))
        return f"of ssdlite-caffe {stamp['version']}, fork {stamp['fork'][:12]}, build {stamp['key'][:12]}"
    except (OSError, ValueError, KeyError, TypeError, MissingRuntimeError):
        return "not known"
