"""Running the `caffe` tool and reading its log while it runs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from ssdlite_caffe.caffe.log import reason
from ssdlite_caffe.errors import CaffeError

_KEPT_LINES = 20000
"""Last lines of the log that are kept to find out why Caffe stopped; a net written out takes a few thousand."""
_PR_SET_PDEATHSIG = 1


class CaffeProcess:
    """A running `caffe`, in a process group of its own, so that Ctrl-C reaches it only through `interrupt`.

    It is killed when this process ends, in whatever way: an orphan would go on writing into the training folder, where
    the next run writes its own snapshots.
    """

    def __init__(
        self,
        prefix: Path,
        arguments: list[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        keep_open: int | None = None,
    ) -> None:
        """Start it.

        Args:
            prefix: where Caffe is installed.
            arguments: of the tool.
            folder: where it runs.
            environment: variables to add to those of this process.
            keep_open: a file descriptor that it holds open as long as it runs, such as that of a lock.
        """
        self.arguments = arguments
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

        def tie() -> None:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        self._process = subprocess.Popen(  # noqa: S603
            [os.fspath(prefix / "bin" / "caffe"), *arguments],
            cwd=folder, env={**os.environ, **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True, preexec_fn=tie, pass_fds=() if keep_open is None else (keep_open,),
        )  # fmt: skip

    def __enter__(self) -> CaffeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def lines(self) -> Iterator[str]:
        """Its log, line by line as it is written, until it ends."""
        stream: IO[bytes] | None = self._process.stderr
        assert stream is not None
        for line in stream:
            text = line.decode("utf-8", "replace")
            self._last.append(text)
            yield text

    def interrupt(self) -> None:
        """Ask it to end after this iteration."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it now."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def finish(self, what: str) -> None:
        """Wait for its end.

        Raises:
            CaffeError: it failed; the text has the failed check.
        """
        status = self._process.wait()
        if status:
            raise CaffeError(f"Caffe stops at {what}: {reason(self._last, status=status)}")
