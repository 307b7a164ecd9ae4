"""The machine: its GPU, CUDA's libraries, and how the built Caffe is started on it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CUDA_LIBRARIES = ("libcudart.so", "libcublas.so", "libcurand.so", "libcudnn.so")
_TOOLKITS = ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/usr/lib/x86_64-linux-gnu")
_SYSTEM_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib")
"""Where containers get the driver's own libraries, if the system does not look there anyway."""


class StepError(Exception):
    """What must hold does not; the text says what was found.

    Attributes:
        output: what the program had said until then.
    """

    def __init__(self, text: str, output: str = "") -> None:
        """Take the text."""
        super().__init__(text)
        self.output = output


class MissingError(Exception):
    """Something that a step needs is not on this machine."""


def cuda_folders() -> list[str]:
    """Folders with CUDA's libraries: first those that pip put beside PyTorch, then toolkits."""
    found: list[Path] = []
    for package in ("nvidia", "torch"):
        spec = None
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            found += [*sorted(Path(place).glob("*/lib")), Path(place) / "lib"]
    found += [Path(name) for name in (*_TOOLKITS, *_SYSTEM_FOLDERS)]
    return [os.fspath(folder) for folder in dict.fromkeys(found) if folder.is_dir() and _has_libraries(folder)]


def _has_libraries(folder: Path) -> bool:
    return any(next(folder.glob(f"{name}*"), None) for name in (*CUDA_LIBRARIES, "libcuda.so"))


class Machine:
    """Starts the programs of a built Caffe here."""

    def __init__(self, prefix: Path, gpu: int | None) -> None:
        """Look for CUDA's libraries.

        Args:
            prefix: where Caffe is.
            gpu: number of the GPU; None: the CPU alone.
        """
        self.prefix, self.gpu = prefix.resolve(), gpu
        self._folders = cuda_folders()

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """That of this process, with CUDA's libraries found."""
        paths = [*self._folders, *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(path for path in paths if path), **(more or {})}

    def run(
        self,
        name: str,
        *arguments: str,
        seconds: float,
        more: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> str:
        """Run a program of `bin`; what it says on both streams.

        Raises:
            StepError: it fails, or takes longer than `seconds`.
        """
        command = [os.fspath(self.prefix / "bin" / name), *arguments]
        seconds = max(1.0, seconds)
        try:
            done = subprocess.run(  # noqa: S603
                command, env=self.environment(more), cwd=folder, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode("utf-8", "replace")
            raise StepError(f"{name} {arguments[0]} was stopped after {seconds:.0f} s", said) from error
        except OSError as error:
            raise MissingError(f"{command[0]} does not start: {error}") from error
        text = done.stdout.decode("utf-8", "replace")
        if done.returncode:
            raise StepError(f"{name} {arguments[0]} ends with {done.returncode}: {_reason(text)}", text)
        return text

    def caffe(self, command: str, *arguments: str, seconds: float, cpu: bool = False, **more: Any) -> str:
        """Run `caffe` on the GPU, or with `cpu` on the CPU."""
        device = () if cpu or self.gpu is None else (f"--gpu={self.gpu}",)
        return self.run("caffe", command, *device, *arguments, seconds=seconds, **more)

    def describe(self) -> dict[str, Any]:
        """What the results are of: processor, GPU, driver, libraries; what is not there is not named."""
        facts: dict[str, Any] = {"system": f"{platform.system()}, {platform.machine()}"}
        facts["processor"] = f"{_processor()}, {len(os.sched_getaffinity(0))} cores"
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
            asked = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
            facts["GPU"] = asked.stdout.strip().splitlines()[self.gpu or 0]
        for name in CUDA_LIBRARIES:
            file = next((path for folder in self._folders for path in sorted(Path(folder).glob(f"{name}.*"))), None)
            if file is not None and self.gpu is not None:
                facts[name] = file.resolve().name
        return facts

    def memory_used(self) -> Iterator[float]:
        """MiB of the GPU in use, as often as asked."""
        query = ["nvidia-smi", f"--id={self.gpu}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while True:
            asked = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
            yield float(asked.stdout.split()[0])


class PeakMemory:
    """Context manager that watches how much memory of the GPU is in use, twice a second."""

    def __init__(self, machine: Machine) -> None:
        """Watch the GPU of `machine`."""
        self._used = machine.memory_used()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.peak = float("nan")

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
            self.before = self.peak = next(self._used)
            self._thread.start()
        return self

    def _watch(self) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
            while not self._end.wait(0.5):
                self.peak = max(self.peak, next(self._used))

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def mebibytes(self) -> float:
        """The most that was in use beyond what was in use at the start; NaN where nvidia-smi does not say."""
        return self.peak - self.before


def python_with(module: str, needs: Sequence[str] = ()) -> str:
    """A Python that has a module, and others that it needs: this one, or that on PATH.

    Raises:
        MissingError: none has.
    """
    names = [module, *needs]
    pythons = dict.fromkeys(path for name in (sys.executable, "python3", "python") if (path := shutil.which(name)))
    for python in pythons:
        code = f"import importlib.util as u, sys; sys.exit(not all(u.find_spec(name) for name in {names!r}))"
        if subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0:  # noqa: S603
            return python
    raise MissingError(f"no Python here has {' and '.join(names)} (looked at {', '.join(pythons)})")


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.machine()


def _reason(text: str) -> str:
    """The line of a log that says why Caffe ended: its first fatal one, else its last."""
    lines = [line for line in text.splitlines() if line.strip()]
    fatal = next((line for line in lines if re.match(r"F\d{4}", line)), None)
    return (fatal or (lines[-1] if lines else "it said nothing")).partition("] ")[2] or (lines[-1] if lines else "")
