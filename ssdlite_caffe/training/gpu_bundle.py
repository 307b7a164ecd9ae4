"""What the check of a GPU needs beside the built Caffe: its code, nets with exact outputs, trainings, shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import text_format

import ssdlite_caffe.caffe.check as check_package
from ssdlite_caffe.data.lmdb_write import write_lmdb
from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.render import Solver, render
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import read_net
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.runtimes.reference_net import ReferenceNet
from ssdlite_caffe.training.kit import KitOptions, write_kit

SCENES, SIDE = 64, 300
CHECK_BATCH, CHECK_ITERATIONS = 8, 50
SPEED_BATCH, SPEED_ITERATIONS, SPEED_DISPLAY = 32, 140, 10
OBJECTS = 4
"""Objects of an image in PyTorch's training step: about as many as a scene has."""


def write_check(models: Sequence[Path], folder: Path, progress: Callable[[str], None]) -> dict[str, Path]:
    """Write what the check reads.

    Args:
        models: converted folders, whose nets run on the GPU; may be empty.
        folder: an empty folder.
        progress: called with what is being done.

    Returns:
        What goes into the bundle, by its name there.
    """
    opened = [ModelFolder.open(model) for model in models]
    progress("computing the outputs in float64")
    (folder / "cases").mkdir()
    for number, (path, model) in enumerate(zip(models, opened, strict=True)):
        _write_case(model, folder / "cases" / f"{number}-{path.resolve().name}")
    progress("drawing scenes to train on")
    _write_training(folder)
    text = json.dumps(list(_depthwise_shapes()), indent=1) + "\n"
    (folder / "depthwise.json").write_text(text, encoding="utf-8")
    return {
        **{name: folder / name for name in ("cases", "train", "lmdb", "scenes", "depthwise.json")},
        "check": Path(check_package.__file__).parent,
    }


def _write_case(model: ModelFolder, folder: Path) -> None:
    """A net up to its heads, an input, and what float64 gives for it."""
    (folder / "wanted").mkdir(parents=True)
    net = model.headless_prototxt
    reference = ReferenceNet(net, model.deploy_caffemodel, double=True)
    height, width = model.arch.input_size
    blob = np.random.default_rng(7).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
    wanted = raw_outputs(read_net(net))
    np.save(folder / "input.npy", blob)
    for number, values in enumerate(reference.forward(blob, wanted).values()):
        np.save(folder / "wanted" / f"{number}.npy", values)
    (folder / "net.prototxt").write_bytes(net.read_bytes())
    (folder / "net.caffemodel").write_bytes(model.deploy_caffemodel.read_bytes())
    case = {"input": reference.input, "outputs": wanted}
    (folder / "case.json").write_text(json.dumps(case) + "\n", encoding="utf-8")


def raw_outputs(net: caffe_pb2.NetParameter) -> list[str]:
    """The blobs with box encodings and class scores that a net up to its heads ends in, in any dialect.

    They are what no layer reads, but for the default boxes, which depend on the sizes alone.
    """
    layers = infer(net, phase="TEST").layers
    read = {blob.name for layer in layers for blob in layer.bottoms}
    fixed: set[str] = set()
    for layer in layers:
        if layer.type in ("PriorBox", "Parameter") or (layer.bottoms and {b.name for b in layer.bottoms} <= fixed):
            fixed.update(blob.name for blob in layer.tops)
    ends = (blob.name for layer in layers for blob in layer.tops if blob.name not in read | fixed)
    return list(dict.fromkeys(ends))


def _write_training(folder: Path) -> None:
    """An LMDB of scenes, and two trainings of V2-SSDLite from the fillers' values: one to compare, one to time."""
    scenes = folder / "scenes"
    make_shapes(scenes, ShapesOptions(SCENES, 1, "voc", "trainval", SIDE))
    write_lmdb(open_voc([scenes], "trainval"), folder / "lmdb")
    for name, batch, iterations, display in (
        ("check", CHECK_BATCH, CHECK_ITERATIONS, 1), ("speed", SPEED_BATCH, SPEED_ITERATIONS, SPEED_DISPLAY),
    ):  # fmt: skip
        solver = Solver(
            "", base_lr=0.002, max_iter=iterations, display=display, type="SGD", random_seed=5, test_interval=0,
            snapshot=0,
        )  # fmt: skip
        options = KitOptions(lmdbs=(folder / "lmdb", folder / "lmdb"), batch_size=batch, solver=solver)
        kit = folder / "train" / name
        kit.parent.mkdir(exist_ok=True)
        write_kit(str(folder / "lmdb" / "labelmap.prototxt"), default_arch("v2", 4), kit, options)
        _without_snapshot(kit / "solver_train.prototxt")
    step = {"side": SIDE, "classes": 4, "batch": SPEED_BATCH, "objects": OBJECTS, "iterations": 6}
    (folder / "train" / "step.json").write_text(json.dumps(step) + "\n", encoding="utf-8")


def _without_snapshot(solver: Path) -> None:
    message = text_format.Parse(solver.read_text("utf-8"), caffe_pb2.SolverParameter())
    message.snapshot_after_train = False
    solver.write_text(text_format.MessageToString(message), encoding="utf-8")


def _depthwise_shapes() -> Iterator[dict[str, int]]:
    """Every depthwise convolution of V2 and V3-large with exact and symmetric padding, each shape once."""
    seen = set()
    for name in ("v2", "v3-large"):
        for padding in ("symmetric", "exact"):
            net = render(build(default_arch(name, 4)), Dialect(padding=padding), "headless")
            message = text_format.Parse(net, caffe_pb2.NetParameter())
            for layer, shapes in zip(message.layer, infer(message, phase="TEST").layers, strict=True):
                p = layer.convolution_param
                if layer.type != "Convolution" or p.group == 1 or p.group != p.num_output:
                    continue
                _, channels, height, width = shapes.bottoms[0].shape or ()
                stride = p.stride[0] if p.stride else 1
                pad = p.pad[0] if p.pad else 0
                found = (channels, height, width, p.kernel_size[0], stride, pad)
                if found not in seen:
                    seen.add(found)
                    names = ("channels", "height", "width", "kernel", "stride", "pad")
                    yield {"n": SPEED_BATCH, **dict(zip(names, found, strict=True))}
