"""The files of a converted folder, and its report.json as plain data; without libraries that take long to load."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
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

EXPECTED, EXPECTED_IMAGE = "expected", "image.png"
"""Folder with one folder an image, and the image in it; see `tools/expected.py`."""
_EXPECTED_FILES = frozenset(
    {EXPECTED_IMAGE, "image.bin", "input.npy", "input.bin", "mbox_loc.npy", "mbox_conf.npy", "mbox_conf_flatten.npy",
     "mbox_priorbox.npy", "detections.json"}
)  # fmt: skip

PROOFS = "proofs"
"""Key in report.json of what `verify --record` found, by runtime."""
PROOF_DROPPED = "a proof that `verify --record` wrote was of other files, and is not carried along"

_MAX_REPORT_BYTES = 64 << 20
MOST_TARGET_FILES = 100_000
"""More than anybody calibrates with."""
_TARGET_FILE = re.compile(
    r"[a-z][a-z0-9_-]{0,40}/[^\\:\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]{1,400}"
)


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


def is_expected_file(name: PurePosixPath) -> bool:
    """Whether a path in a converted folder is one that `convert --expected` writes; its report does not name these."""
    if not name.parts or name.parts[0] != EXPECTED:
        return False
    return name.parts[1:] == ("README.md",) or (len(name.parts) == 3 and name.name in _EXPECTED_FILES)


def targets_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a report says of each folder that `convert --target` wrote, by name; empty without such folders."""
    found = report.get("targets")
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)} if isinstance(found, dict) else {}


def is_target_file(name: str) -> bool:
    """Whether a name, such as `mnn/headless.prototxt`, can only be that of a file inside a target's folder."""
    return bool(_TARGET_FILE.fullmatch(name)) and ".." not in name.split("/") and str(PurePosixPath(name)) == name


def target_files(report: Mapping[str, Any], where: str) -> dict[str, str]:
    """The files in the folders that `convert --target` wrote, with their SHA-256, as a report says it.

    Args:
        report: which anybody may have written.
        where: its path, for messages.

    Returns:
        `mnn/headless.prototxt` -> hex digits.

    Raises:
        PrototxtError: the names are not those of files inside the folder of their target, or there are too many.
    """
    found: dict[str, str] = {}
    for target, entry in targets_of(report).items():
        files = entry.get("files", {})
        if not isinstance(files, dict):
            raise PrototxtError(f"{where}: 'files' of the target {target[:80]!a} must be an object; convert again")
        for file, digest in files.items():
            name = f"{target}/{file}"
            if not is_target_file(name):
                raise PrototxtError(
                    f"{where}: {file[:80]!a} of the target {target[:80]!a} is no name of a file inside its folder; "
                    "convert again"
                )
            found[name] = str(digest)
    if len(found) > MOST_TARGET_FILES:
        raise PrototxtError(
            f"{where} names {len(found)} files of targets, more than {MOST_TARGET_FILES}; convert again"
        )
    return found
