"""Running CMake and Ninja: their output goes to a log, progress is reported, an error becomes one line."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdlite_caffe.errors import BuildError


@dataclass(frozen=True)
class Step:
    """Progress of a build.

    Attributes:
        what: what is being done.
        done: files compiled or linked so far.
        total: files to compile or link; 0 while that is not known.
    """

    what: str
    done: int = 0
    total: int = 0


Report = Callable[[Step], None]

_STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_ERROR = re.compile(r"(?P<place>[^\s:(][^:(]*[:(]\d+(?:\):|:\d+:|:)) (?:fatal )?error: (?P<text>.*)")
"""g++ and clang++ print `file:12:3: error: ...`, nvcc prints `file(12): error: ...`."""
_LINK = re.compile(r"(undefined reference to .*|cannot find -l\S+|.*: fatal error: .*|ninja: (?:error|fatal): .*)")
_CMAKE = re.compile(r"CMake Error[^:]*(?::\d+)?(?: \(\w+\))?:\s*(?P<text>.*)")
_MEMORY = ("Killed signal terminated program", "Cannot allocate memory", "virtual memory exhausted", "out of memory")


class Log:
    """A file with the whole output of a build."""

    def __init__(self, path: Path) -> None:
        """Open `path` and empty it."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("w", encoding="utf-8", errors="backslashreplace")

    def write(self, text: str) -> None:
        """Add text and flush it, so that the file has it even if this process is killed."""
        self._stream.write(text)
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def run(command: Sequence[str], log: Log, report: Report, what: str, *, keep_open: int, folder: Path) -> None:
    """Run one command of a build.

    Args:
        command: program and arguments.
        log: takes all that it prints.
        report: called at every `[n/m]` line.
        what: what the command does, for `report` and errors.
        keep_open: file descriptor that the command and its children hold open as long as they run.
        folder: where it runs.

    Raises:
        BuildError: it cannot be started, or fails; the text has the first error and the path of the log.
    """
    report(Step(what))
    log.write(f"$ {' '.join(command)}\n")
    lines: list[str] = []
    try:
        process = subprocess.Popen(  # noqa: S603
            list(command),
            cwd=folder,
            env={**os.environ, "NINJA_STATUS": "[%f/%t] ", "LC_ALL": "C.UTF-8", "CLICOLOR_FORCE": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            pass_fds=(keep_open,),
        )
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be started: {error.strerror or error}") from error
    with process:
        assert process.stdout is not None  # a pipe
        try:
            for line in process.stdout:
                log.write(line)
                step = _STEP.match(line)
                if step:
                    report(Step(_short(step[3]), int(step[1]), int(step[2])))
                elif not line.isspace():
                    lines.append(line.rstrip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise BuildError(f"{what} failed: {first_error(lines)}; the whole log is in {log.path}")


def _short(text: str) -> str:
    """`Building CXX object CMakeFiles/caffe.dir/a/b/c.cpp.o` as `c.cpp`."""
    name = text.rsplit("/", 1)[-1].strip()
    return name.removesuffix(".o")


def first_error(lines: Sequence[str]) -> str:
    """The line that says why a build failed."""
    for line in lines:
        if any(sign in line for sign in _MEMORY):
            return f"not enough memory for the compiler ({line.strip()}); try fewer --jobs"
    for index, line in enumerate(lines):
        error = _ERROR.search(line)
        if error:
            return f"{error['place'].rstrip(':')}: {error['text']}"
        cmake = _CMAKE.match(line)
        if cmake:
            return cmake["text"] or next((text.strip() for text in lines[index + 1 :] if text.strip()), line)
    for line in lines:
        link = _LINK.search(line)
        if link:
            return link[0]
    return lines[-1].strip() if lines else "it printed no error"
