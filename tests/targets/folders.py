"""Folders of `convert --target`, used as their README says: its own commands, started in the program's environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.images import read_image
from ssdlite_caffe.targets.table import TARGETS
from tests.scenes import draw_scene
from tests.targets.cases import MODELS
from tests.targets.workshop import ROOT, Workshop

PROGRAMS = {
    "mnn": "mnn", "openvino": "openvino", "ncnn": "ncnn", "rknn": "rknn", "sophgo": "tpu_mlir", "paddle": "x2paddle",
    "onnx": "caffe2onnx",
}  # fmt: skip
"""Targets whose programs can be had, and the environment of each."""
COMMAND = "      "
"""What a command in a README begins with."""
SHOWN = 2
"""Images that are looked at."""
CALIBRATION = 8
TIMEOUT = 3000.0
_OF_CELLS = ("bccd_v2_ssdlite_3", "zoo2018_v2_ssdlite_90")
_OF_TOOLS = {"headless-int8": "ncnn2int8"}
"""What only a program that may be missing makes."""


@dataclass(frozen=True)
class FolderCase:
    """The folder of a target, of one of MODELS."""

    target: str
    model: str

    @property
    def program(self) -> str:
        """The environment."""
        return PROGRAMS[self.target]

    @property
    def name(self) -> str:
        """For pytest."""
        return f"{self.program}-{self.model}"


def cases() -> Iterator[FolderCase]:
    """Each target with each model that it takes."""
    for target in PROGRAMS:
        for model in MODELS:
            if target != "onnx" or model in _OF_CELLS:  # caffe2onnx takes no V3
                yield FolderCase(target, model)


@dataclass(frozen=True)
class Used:
    """A command of a README that detects, and what came of it.

    Attributes:
        command: as the README has it.
        precision: what it computes in: fp32, fp16 or int8.
        printed: the detections of each image, as printed: scores of at least 0.3.
        dumped: the folder of each image's raw outputs.
    """

    command: str
    precision: str
    printed: Mapping[str, Detections]
    dumped: Mapping[str, Path]


def images_of(model: str, workshop: Workshop, count: int) -> list[np.ndarray]:
    """Images for a model, uint8 (H, W, 3) BGR; fewer than `count` where there are no more."""
    data = workshop.data("bccd")
    if data is not None and model in _OF_CELLS:
        return [read_image(path) for path in sorted((data / "JPEGImages").glob("*.jpg"))[:count]]
    return [draw_scene(seed)[0][..., ::-1] for seed in range(count)]


def converted(model: str, workshop: Workshop) -> Path:
    """A model's folder with all targets that take it, calibration images and expected outputs."""
    out = workshop.folder / f"targets of {model}"
    if not out.exists():
        places = workshop.folder / f"images of {model}"
        places.mkdir(exist_ok=True)
        for number, image in enumerate(images_of(model, workshop, SHOWN + CALIBRATION)):
            group = "expected" if number < SHOWN else "calibration"
            (places / group).mkdir(exist_ok=True)
            cv2.imwrite(str(places / group / f"image{number}.png"), image)
        command = [sys.executable, "-m", "ssdlite_caffe", "convert", workshop.source(model), "-o", out, "-q"]
        command += ["--calibrate", places / "calibration", "--count", CALIBRATION, "--expected", places / "expected"]
        for case in cases():
            command += ["--target", case.target] if case.model == model else []
        subprocess.run(list(map(str, command)), check=True, cwd=ROOT)
    return out


def commands(readme: str) -> list[str]:
    """The commands of a README, in its order."""
    return [line.strip() for line in readme.splitlines() if line.startswith(COMMAND) and line.strip()]


def precision_of(target: str, command: str) -> str:
    """What a command computes in. RKNN's script quantises where it has images, unless it is told not to."""
    if "int8" in command or (target == "rknn" and "--float" not in command):
        return "int8"
    return "fp16" if "f16" in command or "--float" in command else "fp32"


def missing_tool(command: str) -> str:
    """A program that the command's file is made by and that is not on the PATH; '' for none."""
    return next((tool for file, tool in _OF_TOOLS.items() if file in command and not shutil.which(tool)), "")


def use(target: str, folder: Path, python: Path) -> tuple[list[Used], list[str]]:
    """Run all commands of a target's README in its folder.

    `IMAGE...` becomes images of `expected/`, and their raw outputs are dumped beside what is printed.

    Args:
        target: its name.
        folder: of the target; `expected/` is there.
        python: of the program's environment, whose other programs are found on the PATH.

    Returns:
        What detected; and the commands that were left out, since a program is missing.

    Raises:
        AssertionError: a command failed; with the end of what it said.
    """
    shown = sorted(path.name for path in (folder / "expected").iterdir())
    for name in shown:
        shutil.copy(folder / "expected" / name / "image.png", folder / f"{name}.png")
    used, left = [], []
    for number, command in enumerate(commands((folder / "README.md").read_text("utf-8"))):
        if missing_tool(command):
            left.append(command)
            continue
        dumped = folder / f"dumped{number}"
        images = " ".join(f"{name}.png" for name in shown)
        out = shell(command.replace("IMAGE...", f"{images} --dump {dumped.name}"), folder, python)
        if "IMAGE..." in command:
            printed = {name: parsed(out, f"{name}.png", folder) for name in shown}
            raw = {name: dumped / name for name in shown}
            used.append(Used(command, precision_of(target, command), printed, raw))
    return used, left


def shell(command: str, folder: Path, python: Path) -> str:
    """What a command prints, as a user types it with the program's environment active."""
    home = folder / "home"
    consent = home / "intel" / "openvino_telemetry"  # 0: mo does not report its use
    consent.parent.mkdir(parents=True, exist_ok=True)
    consent.write_text("0")
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    surroundings = {name: value for name, value in os.environ.items() if name not in ours}
    surroundings["PATH"] = os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)])
    nowhere = "http://127.0.0.1:9"  # no program reports what it does
    surroundings |= {"HOME": str(home), "PIP_NO_INDEX": "1", "http_proxy": nowhere, "https_proxy": nowhere}
    with subprocess.Popen(
        ["sh", "-c", command], cwd=folder, env=surroundings, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
    ) as process:  # fmt: skip
        try:
            out = process.communicate(timeout=TIMEOUT)[0]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, f"{command}\n{out[-2000:]}"
    return out


def parsed(out: str, path: str, folder: Path) -> Detections:
    """The detections that detect.py printed of an image: file, class, score and corners in pixels, separated by tabs.

    rknn's script prints the whole path. Programs print other lines, too.
    """
    names = (folder / "labels.txt").read_text("utf-8").split("\n")
    rows = [line.split("\t") for line in out.splitlines()]
    rows = [row for row in rows if len(row) == 7 and row[0] in (path, str(folder / path))]
    height, width = read_image(folder / path).shape[:2]
    boxes = np.asarray([row[3:] for row in rows], np.float32).reshape(-1, 4)
    return Detections(
        np.asarray([names.index(row[1]) for row in rows], np.int64),
        np.asarray([row[2] for row in rows], np.float32),
        boxes / np.asarray([width, height] * 2, np.float32),
    )


def tensorflows(folder: Path, name: str) -> Detections:
    """TensorFlow's detections of an image of `expected/`."""
    found = json.loads((folder / "expected" / name / "detections.json").read_text("utf-8"))
    return from_json(found)


def from_json(found: Sequence[Mapping[str, object]]) -> Detections:
    """Detections as `decode.py --json` prints them, and as `expected/` has them."""
    return Detections(
        np.asarray([one["class"] for one in found], np.int64),
        np.asarray([one["score"] for one in found], np.float32),
        np.asarray([one["box"] for one in found], np.float32).reshape(-1, 4),
    )


def decoded_in_python(folder: Path, raw: Path) -> Detections:
    """What the folder's decode.py prints for raw outputs."""
    command = [sys.executable, folder / "decode.py", raw / "mbox_loc.npy", raw / "mbox_conf.npy", "--json"]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return from_json(json.loads(done.stdout))


def decoded_in_c(folder: Path, raw: Path) -> Detections:
    """What the folder's decode.c prints for raw outputs, compiled as it says itself."""
    program = folder / "decode"
    if not program.exists():
        said = re.search(r"^ \* +(cc .*)$", (folder / "decode.c").read_text("utf-8"), re.MULTILINE)
        assert said is not None
        subprocess.run(["sh", "-c", said[1]], cwd=folder, check=True)
    files = [raw / f"{name}.bin" for name in ("mbox_loc", "mbox_conf")]
    for file in files:
        np.load(file.with_suffix(".npy")).tofile(file)
    done = subprocess.run([program, *files, folder / "priors.bin"], check=True, capture_output=True, text=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return Detections(
        np.asarray([row[0] for row in rows], np.int64),
        np.asarray([row[2] for row in rows], np.float32),
        np.asarray([row[3:] for row in rows], np.float32).reshape(-1, 4),
    )


assert set(PROGRAMS) <= set(TARGETS)
