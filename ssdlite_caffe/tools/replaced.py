"""What a command with --force must not delete: files that it reads, and files that it did not write.

A folder that is replaced loses all that was in it, once the new files are complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ssdlite_caffe.errors import OutputError, PrototxtError
from ssdlite_caffe.files import refuse_folder
from ssdlite_caffe.runtimes.folder_files import REPORT, is_expected_file, read_report, target_files

Inputs = Iterable[tuple[str, Path]]
"""What a file or folder is, for messages, and its path."""
_BY_THE_WAY = frozenset({"__pycache__", ".DS_Store", "Thumbs.db", ".ipynb_checkpoints"})
"""What Python and file managers leave in folders: nobody misses it."""
_SHOWN = 3


def refuse_losses(out: Path, inputs: Inputs, *, within: Path | None = None, marker: str = REPORT, force: bool) -> None:
    """Check what can be replaced, before anything is read.

    Args:
        out: the folder that will be written.
        inputs: what is read; none of it may lie inside `out`.
        within: a converted folder that is read; it may be `out` itself, whose files are then exchanged.
        marker: as of `new_folder`.
        force: replace an earlier folder.

    Raises:
        OutputError: `out` exists and may not be replaced, one of `inputs` lies inside it, or it has files that were
            not written by us.
    """
    refuse_folder(out, marker=marker, force=force)
    if not out.is_dir():
        return
    inputs = [*inputs]
    if within is not None and os.path.realpath(within) != os.path.realpath(out):
        inputs.append(("the folder", within))
    for what, path in inputs:
        if is_inside(path, out):
            raise OutputError(f"{what} {path} lies inside {out}, which is replaced; move it, or write another folder")
    unknown = _unknown_files(out)
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise OutputError(
            f"{out} holds files that convert did not write: {', '.join(unknown[:_SHOWN])}{more}; they would be "
            "deleted: move them, or write another folder"
        )


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or below it, as it is written or as its links lead."""
    return any(
        wanted == place or wanted in place.parents
        for resolve in (os.path.abspath, os.path.realpath)
        for wanted, place in [(Path(resolve(folder)), Path(resolve(path)))]
    )


def _unknown_files(out: Path) -> list[str]:
    """Files that are not in the folder's report; none if that cannot be read, or is of an earlier version."""
    try:
        report = read_report(out / REPORT)
        known = {*target_files(report, str(out / REPORT))}
    except PrototxtError:
        return []
    entries = report.get("files")
    if not isinstance(entries, dict):
        return []
    known |= {REPORT, *map(str, entries)}
    found = []
    for place, folders, names in os.walk(out):
        folders[:] = sorted(set(folders) - _BY_THE_WAY)
        inside = [PurePosixPath((Path(place) / name).relative_to(out)) for name in sorted(set(names) - _BY_THE_WAY)]
        found += [str(name) for name in inside if str(name) not in known and not is_expected_file(name)]
    return [ascii(name)[1:-1] for name in found]
