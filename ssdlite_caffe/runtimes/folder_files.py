"""The files of a converted folder, and its report.json as plain data; without libraries that take long to load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.terminal import size_text

DEPLOY, HEADLESS, TRAIN, TEST = "deploy.prototxt", "headless.prototxt", "train.prototxt", "test.prototxt"
DEPLOY_WEIGHTS, TRAIN_WEIGHTS = "deploy.caffemodel", "train.caffemodel"
"""Weights of the deploy and headless nets, and of the train and test nets."""
LABEL_MAP, REPORT = "labelmap.prototxt", "report.json"
PRIORS = "priors.npy"
"""Default boxes and variances, float32 (N, 8), of a folder whose headless net has none, and which has no deploy net."""
NEEDED = (DEPLOY, DEPLOY_WEIGHTS, HEADLESS, LABEL_MAP, REPORT)
"""Files of every converted folder; those of the train and test nets may be missing."""

PROOFS = "proofs"
"""Key in report.json of what `verify --record` found, by runtime."""
PROOF_DROPPED = "a proof that `verify --record` wrote was of other files, and is not carried along"

_MAX_REPORT_BYTES = 64 << 20


def without_proofs(report: dict[str, Any]) -> dict[str, Any]:
    """A report for a folder made from this one: without proofs, which are of other files; a note says so."""
    notes = report.get("notes")
    others = [note for note in notes if note != PROOF_DROPPED] if isinstance(notes, list) else []
    dropped = [PROOF_DROPPED] if PROOFS in report else []
    kept = {key: value for key, value in report.items() if key != PROOFS}
    return {**kept, "notes": [*others, *dropped]} if others or dropped or isinstance(notes, list) else kept


def read_report(path: Path) -> dict[str, Any]:
    """The content of a report.json.

    Raises:
        PrototxtError: it cannot be read, or has no architecture.
    """
    try:
        if path.stat().st_size > _MAX_REPORT_BYTES:
            raise PrototxtError(f"{path} is larger than {size_text(_MAX_REPORT_BYTES)}, the limit for a report")
        report = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PrototxtError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PrototxtError(f"{path} is not JSON: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("arch"), dict):
        raise PrototxtError(f"{path} has no architecture under the key 'arch'; convert the model again")
    return report
