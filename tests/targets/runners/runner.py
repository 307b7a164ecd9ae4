"""Starts a script, and what the scripts share; Python 3.7 and numpy are enough: `python runner.py run_mnn FOLDER`."""

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np

LAST_LINES = 15


class Job:
    """A folder with a net and its inputs."""

    def __init__(self, folder, stdout):
        self.folder = folder
        self.prototxt, self.caffemodel = folder / "net.prototxt", folder / "net.caffemodel"
        settings = json.loads((folder / "job.json").read_text("utf-8"))
        self.precision = settings["precision"]
        self.outputs = settings["outputs"]
        self.mean, self.scale = settings["mean"], settings["scale"]
        self.inputs = _arrays(folder / "inputs.npz")
        self._stdout = stdout
        self._found = {}

    def tell(self, **event):
        self._stdout.write(json.dumps(event) + "\n")
        self._stdout.flush()

    def versions(self, *packages):
        """Tell the versions of Python packages."""
        try:
            from importlib import metadata
        except ImportError:  # Python 3.7
            import importlib_metadata as metadata

        self.tell(versions={name: metadata.version(name) for name in packages})

    @contextlib.contextmanager
    def step(self, name):
        """Tell whether a step went well, and how long it took."""
        start = time.time()
        print("== " + name, flush=True)
        self.tell(start=name)
        try:
            yield
        except BaseException as error:
            self.tell(step=name, ok=False, message=_one_line(error))
            raise
        self.tell(step=name, ok=True, seconds=round(time.time() - start, 1))

    def save(self, number, name, array):
        """Keep an output for the input of this number."""
        self._found[f"{number}/{name}"] = np.asarray(array, np.float32)

    def pixels(self, number, name="inputs"):
        """The image (height, width, 3) in values of 0 to 255, BGR, that becomes this input; not rounded."""
        blob = self.inputs[number] if name == "inputs" else _arrays(self.folder / (name + ".npz"))[number]
        return blob[0].transpose(1, 2, 0) / np.float32(self.scale) + np.float32(self.mean)

    def calibration(self):
        """The same for every input of calibration.npz, rounded, uint8."""
        count = len(_arrays(self.folder / "calibration.npz"))
        return [np.rint(self.pixels(n, "calibration")).clip(0, 255).astype(np.uint8) for n in range(count)]

    def finish(self):
        np.savez(str(self.folder / "outputs.npz"), **self._found)


def call(*command, **options):
    """Run a program; its output goes to the log."""
    print("$ " + " ".join(map(str, command)), flush=True)
    status = subprocess.call([str(part) for part in command], **options)
    if status:
        raise RuntimeError(f"{Path(str(command[0])).name} ended with {status}")


def with_image(rows):
    """DetectionOutput's rows of 7 from rows without the image's number: class, score, corners."""
    rows = np.asarray(rows, np.float32).reshape(-1, 6)
    return np.pad(rows, ((0, 0), (1, 0)), "constant")


def without_pip(folder):
    """A PATH on which a program finds no pip to start."""
    empty = folder / "path"
    empty.mkdir(exist_ok=True)
    os.environ["PATH"] = str(empty)
    assert not shutil.which("pip")


def main(script, folder):
    """Run a script on a folder. What is printed goes to the log from the first import on."""
    stdout, stderr = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w")
    log = os.open(str(folder / "log.txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.chdir(str(folder))
    try:
        job = Job(folder, stdout)
        importlib.import_module(script).run(job)
        job.finish()
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        lines = (folder / "log.txt").read_text("utf-8", "replace").splitlines()
        stderr.write("\n".join(lines[-LAST_LINES:]) + "\n")
        stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # some programs crash in their own clean-up, after all is done


def _arrays(path):
    with np.load(str(path)) as file:
        return [file[str(number)] for number in range(len(file.files))]


def _one_line(error):
    text = str(error).strip()
    if text.startswith("Traceback"):  # RKNN's errors hold one
        text = text.splitlines()[-1]
    return " ".join((text or type(error).__name__).split())[:300]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
