"""A Python environment for each program, made once: `python -m tests.targets.environments [NAME ...]`.

The programs' requirements contradict each other and ours, so each gets an environment of its own. Every package is
pinned and installed without its dependencies: the lists in requirements/ are complete, and leave out what a program
names and never uses (GPU libraries, mostly).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

FOLDER_VARIABLE = "SSDLITE_TARGETS"
"""Environment variable with the folder of all environments."""
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"


class UnavailableError(Exception):
    """A program's environment cannot be had; the message says why."""


@dataclass(frozen=True)
class Environment:
    """What a program needs.

    Attributes:
        name: short, in file names.
        title: as its makers write it.
        python: the version of Python that its packages are made for.
        modules: that must be importable afterwards.
        programs: that must be on the PATH.
        removed: files of a package that must not be there, below site-packages.
    """

    name: str
    title: str
    python: str
    modules: tuple[str, ...]
    programs: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        """All packages, pinned; from the file `requirements/<name>.txt`."""
        lines = (REQUIREMENTS / f"{self.name}.txt").read_text("utf-8").splitlines()
        return tuple(line for line in lines if line and not line.startswith("#"))

    @property
    def key(self) -> str:
        """The name of its folder, another for other requirements."""
        text = "\n".join((self.python, *self.requirements, *self.modules, *self.removed))
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


ENVIRONMENTS = {
    one.name: one
    for one in (
        Environment("mnn", "MNN", "3.11", ("MNN", "_tools")),
        Environment("openvino", "OpenVINO", "3.11", ("openvino.tools.mo", "openvino.runtime", "google.protobuf")),
        # With Python 3.10 torch 1.12 works, the last that needs no packages of GPU libraries.
        Environment("rknn", "RKNN-Toolkit2", "3.10", ("rknn.api",)),
        Environment(
            "tpu_mlir",
            "tpu-mlir",
            "3.10",
            ("tpu_mlir",),
            # The wheel has the C library of one Linux, which stops every program of another.
            removed=tuple(f"tpu_mlir/lib/third_party/lib{name}" for name in ("c.so.6", "m.so.6", "pthread.so.0")),
        ),
        # Its onnx 1.6 has no packages for later Pythons.
        Environment("caffe2onnx", "caffe2onnx", "3.7", ("caffe2onnx.convert", "onnxruntime")),
        Environment("x2paddle", "X2Paddle", "3.11", ("x2paddle.convert", "paddle")),
        Environment("ncnn", "ncnn", "3.11", ("ncnn",), ("caffe2ncnn",)),
    )
}


def targets_folder() -> Path:
    """The folder of all environments: SSDLITE_TARGETS, else in the user's cache."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("ssdlite-caffe", appauthor=False)) / "targets"


@functools.cache
def environment(name: str) -> Path:
    """The Python of a program's environment, which is made if it is not there.

    Raises:
        UnavailableError: it cannot be had on this machine.
    """
    return make(ENVIRONMENTS[name], targets_folder())


def make(wanted: Environment, folder: Path) -> Path:
    """Make an environment in `folder`, unless it is there, and return its Python.

    It is made beside its place and then renamed: what is there is whole. Only one process makes it; others wait.

    Raises:
        UnavailableError: a Python, a package or a program is missing. The log beside the environment has the rest.
    """
    missing = next((program for program in wanted.programs if shutil.which(program) is None), None)
    if missing:
        raise UnavailableError(f"{wanted.name}: no {missing} on the PATH, and no Python package has it")
    place = folder / wanted.key
    python = place / "bin" / "python"
    if python.exists():
        return python
    base = find_python(wanted.python)
    if base is None:
        raise UnavailableError(f"{wanted.name}: its packages are for Python {wanted.python}, which is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder / f"{wanted.key}.lock"):
        if not python.exists():
            _install(wanted, base, place)
    return python


def find_python(version: str) -> Path | None:
    """An installed Python `3.x`: this one, one on the PATH, or one of pyenv's; None without one."""
    roots = [Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()]
    found = [Path(sys.executable).resolve(), shutil.which(f"python{version}")]
    for root in roots:
        found += sorted((root / "versions").glob(f"{version}.*/bin/python"))
    return next((Path(one) for one in found if one and _version(Path(one)) == version), None)


def _version(python: Path) -> str:
    """`3.x` of a Python that can make environments, '' for one that does not run, as pyenv's shims may not."""
    script = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock; it ends with the process that holds it."""
    import fcntl

    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _install(wanted: Environment, base: Path, place: Path) -> None:
    part, log = place.with_name(place.name + ".part"), place.with_name(place.name + ".log")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    python = part / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--no-input", "--no-deps", "--prefer-binary"]
    imports = "; ".join(f"import {module}" for module in wanted.modules)
    log.unlink(missing_ok=True)
    try:
        _step(wanted, log, "the environment", [base, "-m", "venv", part])
        _step(wanted, log, "the packages", [*pip, *wanted.requirements])
        for name in wanted.removed:
            for file in (part / "lib").glob(f"python*/site-packages/{name}"):
                file.unlink()
        _step(wanted, log, "an import", [python, "-c", imports])
        _move_scripts(part, place)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _step(wanted: Environment, log: Path, what: str, command: list[Path | str]) -> None:
    with log.open("a") as file:
        file.write(f"$ {' '.join(map(str, command))}\n")
        file.flush()
        status = subprocess.call(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    if status:
        lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise UnavailableError(f"{wanted.name}: {what} failed: {errors[-1][:200]} (see {log})")


def _move_scripts(part: Path, place: Path) -> None:
    """Let the scripts in bin/ name the Python where it will be."""
    for script in (part / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            content = script.read_bytes()
            if content.startswith(b"#!") or script.name.startswith(("activate", "Activate")):
                script.write_bytes(content.replace(os.fsencode(part), os.fsencode(place)))


def main(names: list[str]) -> int:
    """Make the named environments, or all; say of each what became of it."""
    unknown = sorted(set(names) - set(ENVIRONMENTS))
    if unknown:
        print(f"no environment is named {', '.join(unknown)}; there are {', '.join(ENVIRONMENTS)}", file=sys.stderr)
        return 2
    for name in names or ENVIRONMENTS:
        try:
            print(f"{name}: {environment(name)}", flush=True)
        except UnavailableError as error:
            print(f"not to be had: {error}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
