"""A headless Chromium, driven over a pipe with the DevTools protocol: pages at any size, in light or dark.

Source: https://chromedevtools.github.io/devtools-protocol/, and Chromium's option --remote-debugging-pipe: it reads
messages from the file descriptor 3 and writes to 4, JSON with a zero byte behind each.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT = 60.0
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # the sandbox needs rights that containers do not give; only our own pages are opened
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--no-first-run",
)


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome, None without one."""
    return next((path for path in map(shutil.which, _NAMES) if path), None)


class Page:
    """A tab of the browser."""

    def __init__(self, commands: int, replies: int) -> None:
        self._commands, self._replies = commands, replies
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._loaded = False
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, width: int, height: int, *, dark: bool = False) -> None:
        """Load a file in a window of this size in CSS pixels, and wait until it is loaded.

        `errors` then holds the texts of exceptions, of console errors and of failed requests.
        """
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.errors.clear()
        self._loaded = False
        failed = self.call("Page.navigate", url=path.resolve().as_uri()).get("errorText")
        if failed:
            raise OSError(f"Chromium cannot open {path}: {failed}")
        end = time.monotonic() + _TIMEOUT
        while not self._loaded:
            self._read(end)

    def resize(self, width: int, height: int) -> None:
        """Change the window's size in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )  # fmt: skip

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; it must be plain data."""
        reply = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in reply:
            raise ValueError(f"{script}: {reply['exceptionDetails']}")
        return reply["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its reply.

        Raises:
            TimeoutError: none comes.
            OSError: the browser has ended.
            ValueError: the browser refuses the command.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        end = time.monotonic() + _TIMEOUT
        while True:
            reply = self._read(end)
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise ValueError(f"{method}: {reply['error']['message']}")
                return dict(reply["result"])

    def _read(self, end: float) -> dict[str, Any]:
        """The next message, noting what the page reports."""
        while b"\0" not in self._buffer:
            if not select.select([self._replies], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium did not answer within {_TIMEOUT:.0f} s")
            data = os.read(self._replies, 1 << 16)
            if not data:
                raise OSError("Chromium has ended")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(argument.get("value")) for argument in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])


@contextlib.contextmanager
def open_browser(program: str) -> Iterator[Page]:
    """Start the browser with an empty profile and end it afterwards.

    Args:
        program: path of Chromium.
    """
    with tempfile.TemporaryDirectory(prefix="ssdlite-caffe.") as profile:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Above 9, so that neither is overwritten when they become 3 and 4.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (theirs_in, theirs_out)]
        actions = [(os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)]
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
        arguments = [program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        process = os.posix_spawn(program, arguments, os.environ, file_actions=[*quiet, *actions], setpgroup=0)
        for fd in (theirs_in, theirs_out, *high):
            os.close(fd)
        try:
            yield Page(ours_out, ours_in)
        finally:
            for fd in (ours_out, ours_in):  # Chromium ends when its pipe does
                os.close(fd)
            _wait(process)


def _wait(process: int) -> None:
    """Wait until the browser has ended; kill it and its children where it takes too long."""
    end = time.monotonic() + 10
    while os.waitpid(process, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            break
        time.sleep(0.05)
