"""What the cases share: converted models, network inputs, and what OpenCV gives for them, each made once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.runtimes.images import read_image
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet
from ssdlite_caffe.runtimes.resize import caffe_blob, network_input
from tests.scenes import draw_scene

ROOT = Path(__file__).resolve().parents[2]
RAW = ("mbox_loc", "mbox_conf")
IMAGES, CALIBRATION = {"fp32": 2, "fp16": 1, "int8": 1}, 16
"""How many are compared, fewer where a chip is simulated; and how many others a program quantises with."""
_MOST = max(IMAGES.values())
_OF_CELLS = ("bccd_v2_ssdlite_3", "zoo2018_v2_ssdlite_90")
_OF_DETECTIONS = ("--clip", "--score-threshold")
"""Options that change what is detected; all others are other words for the same net."""


def find_shared() -> Path | None:
    """A folder `shared` with real models, above the repository or beside it; None without one."""
    return next((one / "shared" for one in ROOT.parents if (one / "shared" / "models").is_dir()), None)


class Workshop:
    """Makes things in a folder, and keeps them."""

    def __init__(self, folder: Path, shared: Path | None) -> None:
        """Begin with nothing.

        Args:
            folder: an empty folder to work in.
            shared: the folder with models/ and data/; None: there is none, and the example is all.
        """
        self.folder = folder
        self._shared = shared
        self._models: dict[tuple[str, ...], ModelFolder] = {}
        self._references: dict[Path, list[dict[str, FloatArray]]] = {}

    def source(self, model: str) -> Path | None:
        """Where a model of the table lies, None if it is not there."""
        if model == "example":
            return ROOT / "examples" / "frozen_inference_graph.pb"
        return self._shared / "models" / model if self._shared else None

    def data(self, name: str) -> Path | None:
        """A folder of annotated images, None if it is not there."""
        place = self._shared / "data" / name if self._shared else None
        return place if place is not None and place.is_dir() else None

    def converted(self, model: str, options: Sequence[str]) -> ModelFolder:
        """A model, converted with these options of the command.

        Raises:
            CalledProcessError: the command failed.
        """
        key = (model, *options)
        if key not in self._models:
            out = self.folder / f"model{len(self._models)}"
            command = [sys.executable, "-m", "ssdlite_caffe", "convert", self.source(model), "-o", out, "-q", *options]
            subprocess.run(list(map(str, command)), check=True, cwd=ROOT)
            self._models[key] = ModelFolder.open(out)
        return self._models[key]

    def inputs(self, model: str, arch: ArchSpec) -> list[FloatArray]:
        """Network inputs that are compared, float32 (1, 3, height, width) each."""
        return self._blobs(model, arch, 0, _MOST)

    def calibration(self, model: str, arch: ArchSpec) -> list[FloatArray]:
        """Other network inputs, for a program that quantises."""
        return self._blobs(model, arch, _MOST, _MOST + CALIBRATION)

    def _blobs(self, model: str, arch: ArchSpec, start: int, end: int) -> list[FloatArray]:
        data = self.data("bccd")
        if data is not None and model in _OF_CELLS:
            paths = sorted((data / "JPEGImages").glob("*.jpg"))[start:end]
            images = [np.ascontiguousarray(read_image(path)[..., ::-1]) for path in paths]
        else:
            images = [draw_scene(seed)[0] for seed in range(start, end)]
        return [
            caffe_blob(
                network_input(
                    image, arch.input_size, mean=arch.pixel_mean, scale=arch.pixel_scale, resizer=arch.resizer
                )
            )
            for image in images
        ]

    def reference(self, model: str, options: Sequence[str]) -> list[dict[str, FloatArray]]:
        """For each input, what OpenCV gives for the model as it is usually converted, without Winograd's method.

        Args:
            model: of the table.
            options: of `convert`; those that are no matter of dialect are kept.

        Returns:
            mbox_loc, mbox_conf, mbox_priorbox and detection_out.
        """
        pairs = zip(options[::2], options[1::2], strict=True)
        usual = self.converted(model, [part for pair in pairs if pair[0] in _OF_DETECTIONS for part in pair])
        if usual.path not in self._references:
            headless = OpenCvNet(usual.headless_prototxt, usual.deploy_caffemodel)
            deploy = OpenCvNet(usual.deploy_prototxt, usual.deploy_caffemodel)
            self._references[usual.path] = [
                headless.forward(blob, [*RAW, "mbox_priorbox"]) | deploy.forward(blob, ["detection_out"])
                for blob in self.inputs(model, usual.arch)
            ]
        return self._references[usual.path]
