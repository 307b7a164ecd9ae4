"""The proof that `verify --record` keeps in report.json: its fields, read as what anybody may have written.

A record is a note of what was compared, and not a signature: who can write report.json can write any record.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.runtimes.folder_files import (
    DEPLOY,
    DEPLOY_WEIGHTS,
    HEADLESS,
    LABEL_MAP,
    MOST_TARGET_FILES,
    PRIORS,
    PROOFS,
    TEST,
    TRAIN,
    TRAIN_WEIGHTS,
    is_target_file,
)

FILES = (DEPLOY, DEPLOY_WEIGHTS, HEADLESS, PRIORS, LABEL_MAP, TRAIN, TEST, TRAIN_WEIGHTS)
"""Files of a folder that a record has the hashes of, where the folder has them, with those of its targets."""
NEEDED = (DEPLOY_WEIGHTS, HEADLESS, LABEL_MAP)
"""Files that every folder has."""
FIGURES = ("boxes", "scores", "boxes_in_float64", "scores_in_float64")
"""Largest differences of all boxes and scores; a record without float64 has the first two."""
VERSIONS = ("runtime", "ssdlite-caffe", "tensorflow", "numpy")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATE = "%Y-%m-%dT%H:%M:%SZ"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, what turns the direction of writing, and lone surrogates."""
_LONGEST, _MOST_IMAGES = 4000, 1_000_000


@dataclass(frozen=True)
class AtStage:
    """A figure and the stage that has it; the value is None where it is NaN or Inf."""

    value: float | None
    stage: str


@dataclass(frozen=True)
class ProofRecord:
    """What a comparison found, and of which files.

    Attributes:
        verdict: one sentence, as `verify` prints it.
        equal: whether all stages passed.
        date: when it was written, in UTC.
        source: the model's file: `name`, `form`, `sha256`.
        files: SHA-256 of files of the folder, by name.
        arch: SHA-256 of the architecture in report.json, see `arch_sha256`.
        share: largest difference in float64 over what one rounding of every weight allows; None if not computed.
        ratio: largest rounding error of the runtime as a multiple of the model's; None if not computed.
        figures: see FIGURES; None where a figure is NaN or Inf.
        unproved: why nothing was compared in float64; empty if it was.
        tolerance: the bound of --tolerance; None without.
        images: names and SHA-256.
        drawn: whether the images were drawn, so that the hashes are of their pixels and not of files.
        versions: see VERSIONS.
    """

    verdict: str
    equal: bool
    date: datetime
    source: Mapping[str, str]
    files: Mapping[str, str]
    arch: str
    share: AtStage | None
    ratio: AtStage | None
    figures: Mapping[str, float | None]
    unproved: str
    tolerance: float | None
    images: tuple[tuple[str, str], ...]
    drawn: bool
    versions: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for report.json."""
        return {
            "verdict": self.verdict,
            "equal": self.equal,
            "date": self.date.strftime(_DATE),
            "source": dict(self.source),
            "files": dict(self.files),
            "arch": self.arch,
            "float64": None if self.share is None else {"share": self.share.value, "stage": self.share.stage},
            "rounding": None if self.ratio is None else {"ratio": self.ratio.value, "stage": self.ratio.stage},
            "figures": dict(self.figures),
            "unproved": self.unproved,
            "tolerance": self.tolerance,
            "images": [{"name": name, "sha256": digest} for name, digest in self.images],
            "drawn": self.drawn,
            "versions": dict(self.versions),
        }

    @classmethod
    def from_dict(cls, said: object, where: str) -> ProofRecord:
        """Check a record.

        Args:
            said: what stands in the file.
            where: file and key, for messages.

        Raises:
            PrototxtError: a field is missing or not valid, or two contradict each other.
        """
        fields = _Fields(said, where)
        source, versions = fields.inner("source"), fields.inner("versions")
        record = cls(
            verdict=fields.text("verdict"),
            equal=fields.flag("equal"),
            date=fields.date("date"),
            source={"name": source.text("name"), "form": source.text("form"), "sha256": source.sha256("sha256")},
            files=_files(fields.inner("files")),
            arch=fields.sha256("arch"),
            share=_at_stage(fields, "float64", "share"),
            ratio=_at_stage(fields, "rounding", "ratio"),
            figures=_figures(fields.inner("figures")),
            unproved=fields.text("unproved"),
            tolerance=fields.number("tolerance"),
            images=_images(fields),
            drawn=fields.flag("drawn"),
            versions={name: versions.text(name) for name in VERSIONS},
        )
        contradiction = _contradiction(record)
        if contradiction:
            raise PrototxtError(f"{where} contradicts itself: {contradiction}; record the proof again")
        return record


def arch_sha256(report: Mapping[str, Any]) -> str:
    """SHA-256 of the architecture in a report, hex, however its text is laid out."""
    text = json.dumps(report.get("arch"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def line_of(text: str) -> str:
    """A text as a record may have it: unprintable characters escaped, and not too long."""
    escaped = _UNPRINTABLE.sub(lambda found: ascii(found.group())[1:-1], text)
    return escaped if len(escaped) <= _LONGEST else escaped[: _LONGEST - 3] + "..."


def now() -> datetime:
    """The time in UTC, in whole seconds."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def date_text(date: datetime) -> str:
    """A date for people: `2026-03-01 12:00:00 UTC`."""
    return date.strftime("%Y-%m-%d %H:%M:%S UTC")


def proofs_of(report: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The records of a report by runtime, not yet checked; empty if there is none.

    Raises:
        PrototxtError: what stands there is no object.
    """
    said = report.get(PROOFS)
    if said is None:
        return {}
    if not isinstance(said, dict):
        raise PrototxtError(f"{where}: {PROOFS!r} must be an object, got {_shown(said)}; record the proof again")
    return said


class _Fields:
    """The fields of an object in a file; each is asked for once, by its type."""

    def __init__(self, said: object, where: str) -> None:
        if not isinstance(said, dict):
            raise PrototxtError(f"{where} must be an object, got {_shown(said)}; record the proof again")
        self.said, self.where = said, where

    def of(self, key: str) -> object:
        if key not in self.said:
            raise PrototxtError(f"{self.where} has no {key!r}; record the proof again")
        return self.said[key]

    def wrong(self, key: str, wanted: str) -> PrototxtError:
        return PrototxtError(
            f"{self.where}: {key!r} must be {wanted}, got {_shown(self.said[key])}; record the proof again"
        )

    def inner(self, key: str) -> _Fields:
        return _Fields(self.of(key), f"{self.where}.{key}")

    def text(self, key: str) -> str:
        value = self.of(key)
        if not isinstance(value, str) or len(value) > _LONGEST or _UNPRINTABLE.search(value):
            raise self.wrong(key, f"a line of text of at most {_LONGEST} characters")
        return value

    def flag(self, key: str) -> bool:
        value = self.of(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def sha256(self, key: str) -> str:
        value = self.of(key)
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            raise self.wrong(key, "a SHA-256 of 64 hex digits")
        return value

    def number(self, key: str) -> float | None:
        """A number from 0, or None."""
        value = self.of(key)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number) and number >= 0:
                return number
        raise self.wrong(key, "a finite number from 0, or null")

    def date(self, key: str) -> datetime:
        value = self.of(key)
        try:
            return datetime.strptime(str(value), _DATE).replace(tzinfo=timezone.utc)
        except ValueError:
            raise self.wrong(key, "a date in UTC such as 2026-03-01T12:00:00Z") from None


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # thousands of digits, of brackets
        return f"a {type(value).__name__} that is too large"
    return text if len(text) <= 80 else text[:77] + "..."


def _files(fields: _Fields) -> dict[str, str]:
    targets = [name for name in fields.said if name not in FILES and is_target_file(name)]
    other = next((name for name in fields.said if name not in FILES and not is_target_file(name)), None)
    if other is not None:
        raise PrototxtError(
            f"{fields.where} names {_shown(other)}, which is no file of a converted folder ({', '.join(FILES)}); "
            "record the proof again"
        )
    if len(targets) > MOST_TARGET_FILES:
        raise PrototxtError(
            f"{fields.where} names {len(targets)} files of targets, more than {MOST_TARGET_FILES}; "
            "record the proof again"
        )
    names = [*(name for name in FILES if name in fields.said or name in NEEDED), *targets]
    return {name: fields.sha256(name) for name in names}


def _at_stage(fields: _Fields, key: str, value: str) -> AtStage | None:
    if fields.of(key) is None:
        return None
    inner = fields.inner(key)
    return AtStage(inner.number(value), inner.text("stage"))


def _figures(fields: _Fields) -> dict[str, float | None]:
    return {name: fields.number(name) for name in FIGURES if name in fields.said or name in FIGURES[:2]}


def _images(fields: _Fields) -> tuple[tuple[str, str], ...]:
    said = fields.of("images")
    if not isinstance(said, list) or not 0 < len(said) <= _MOST_IMAGES:
        raise fields.wrong("images", "a list of at least one image")
    each = [_Fields(one, f"{fields.where}.images[{number}]") for number, one in enumerate(said)]
    return tuple((one.text("name"), one.sha256("sha256")) for one in each)


def _contradiction(record: ProofRecord) -> str:
    """What cannot be true together; empty if all can."""
    if record.equal != record.verdict.startswith("equal"):
        return f"'equal' is {str(record.equal).lower()}, and the verdict is {_shown(record.verdict)}"
    if bool(record.unproved) != (record.share is None):
        return "'unproved' must be empty where, and only where, there are figures of float64"
    if record.equal and record.share is not None and (record.share.value is None or record.share.value > 1):
        return f"'equal' is true, and in float64 {record.share.stage} differs more than rounding allows"
    if record.equal and None in record.figures.values():
        return "'equal' is true, and a figure is null"
    return ""
