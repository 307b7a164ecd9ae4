"""Rendered decoders, ready to call, and outputs of nets that try them."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ssdlite_caffe.gen_model.arch import Nms
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.decode import decode
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.runtimes.resize import WHOLE, window_of
from ssdlite_caffe.targets.decoder import decoder_files

F = np.float32
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
"""Flags with which decode.c must compile."""


def small_net(classes: int, converter: str = "sigmoid", *, letterbox: bool = False, **nms: object) -> NetDesc:
    """A narrow V2-SSDLite of 258 default boxes or, with a letterbox, 318."""
    size = (128, 128) if letterbox else (96, 128)
    options = Nms(**nms)  # type: ignore[arg-type]
    arch = default_arch("v2", classes, input_size=size, score_converter=converter, nms=options)  # type: ignore[arg-type]
    if letterbox:
        resizer = Resizer("keep_aspect_ratio", min_dimension=96, max_dimension=128)
        arch = dataclasses.replace(arch, resizer=resizer)
    return build(arch)


NETS = {
    "sigmoid": small_net(4),
    "softmax": small_net(5, "softmax"),
    "sigmoid above 0.3": small_net(3, score_threshold=0.3, iou_threshold=0.5),
    "softmax above 0.3": small_net(7, "softmax", score_threshold=0.3),
    "clips first": small_net(4, clip_first=True, score_threshold=0.01, max_total=40),
    "few of each class": small_net(4, score_threshold=0.25, max_per_class=3, max_total=7, iou_threshold=0.45),
    "clips first, keeps empty": small_net(
        4, clip_first=True, keep_empty=True, score_threshold=0.01, max_total=12, top_k=20
    ),
    "few candidates": small_net(3, top_k=5, clip_first=True, iou_threshold=0.3),
    "letterbox": small_net(4, letterbox=True, score_threshold=0.1, max_per_class=10, max_total=15),
    "letterbox, softmax, clips first": small_net(9, "softmax", letterbox=True, clip_first=True),
    "no threshold": small_net(3, "softmax", score_threshold=-1.0, max_total=2**31 - 1, max_per_class=2**31 - 1),
    "threshold 0": small_net(2, score_threshold=0.0, iou_threshold=1.0, max_total=500, max_per_class=500),
    "near 1": small_net(3, score_threshold=0.999, iou_threshold=0.0),
    "one of each class": small_net(6, max_per_class=1, max_total=5),
}

Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Box encodings (N, 4), logits (N, C), default boxes (1, 2, N * 4)."""


def random_outputs(net: NetDesc, seed: int) -> tuple[str, Outputs]:
    """Outputs of one of KINDS, in turn, and the kind."""
    random = np.random.default_rng(seed)
    count, classes = net.num_default_boxes, net.arch.num_classes
    centre, size = random.uniform(0, 1, (count, 2)), random.uniform(0.05, 0.5, (count, 2))
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(F)
    loc = random.normal(0, 1, (count, 4)).astype(F)
    typical = 4 if net.arch.nms.score_threshold > 0.9 else -2
    conf = random.normal(typical, 2, (count, classes)).astype(F)
    kind = KINDS[seed % len(KINDS)]
    KINDS_OF_OUTPUTS[kind](random, net, loc, conf, corners)
    variances = np.tile(np.asarray(net.arch.variances, F), count)
    return kind, (loc, conf, np.stack([corners.ravel(), variances])[None])


def _usual(random: np.random.Generator, net: NetDesc, loc: np.ndarray, conf: np.ndarray, corners: np.ndarray) -> None:
    """As a net's."""


def _ties(random: np.random.Generator, net: NetDesc, loc: np.ndarray, conf: np.ndarray, corners: np.ndarray) -> None:
    """Few different scores, equal boxes, overlaps at the threshold."""
    conf[:] = random.integers(-4, 5, conf.shape)
    low = random.integers(-2, 8, (len(loc), 2)) / 8
    corners[:] = np.concatenate([low, low + random.integers(1, 5, (len(loc), 2)) / 8], axis=1)
    loc[:] = random.integers(-1, 2, loc.shape) * [5, 5, 0, 0]


def _none(random: np.random.Generator, net: NetDesc, loc: np.ndarray, conf: np.ndarray, corners: np.ndarray) -> None:
    """No score above any threshold but the lowest."""
    conf[:] = -200
    conf[:, 0] = 200


def _all(random: np.random.Generator, net: NetDesc, loc: np.ndarray, conf: np.ndarray, corners: np.ndarray) -> None:
    """All scores the same, above most thresholds."""
    conf[:] = 7.5
    conf[:, 0] = -30


def _huge(random: np.random.Generator, net: NetDesc, loc: np.ndarray, conf: np.ndarray, corners: np.ndarray) -> None:
    """Box encodings of which exp overflows, and logits of any size."""
    loc *= F(10.0) ** random.choice([0, 0, 1, 2, 3, 30], loc.shape)
    conf *= F(10.0) ** random.choice([0, 1, 3, 30], conf.shape)


def _not_finite(
    random: np.random.Generator, net: NetDesc, loc: np.ndarray, conf: np.ndarray, corners: np.ndarray
) -> None:
    """NaN and infinity in all outputs."""
    for values in (loc, conf, corners):
        hit = random.uniform(size=values.shape) < 0.1
        values[hit] = random.choice(np.asarray([np.nan, np.inf, -np.inf], F), hit.sum())


def _no_area(random: np.random.Generator, net: NetDesc, loc: np.ndarray, conf: np.ndarray, corners: np.ndarray) -> None:
    """Boxes outside of the image, of no width, and inside out."""
    loc[::3, :2] *= 20
    corners[1::3, 2] = corners[1::3, 0]
    corners[2::6] = corners[2::6][:, [2, 3, 0, 1]]
    corners[5::6] = corners[5::6][:, [2, 1, 0, 3]]


def _at_the_threshold(
    random: np.random.Generator, net: NetDesc, loc: np.ndarray, conf: np.ndarray, corners: np.ndarray
) -> None:
    """Logits within a few units of the last place of the threshold's."""
    threshold = min(max(net.arch.nms.score_threshold, 1e-6), 0.999999)
    exact = F(math.log(threshold / (1 - threshold)))
    conf[:] = -100
    conf[:, 1] = exact + random.integers(-5, 6, len(conf)) * np.spacing(exact)
    conf[:, 0] = 0  # so softmax of these two is the sigmoid


def _one_class(
    random: np.random.Generator, net: NetDesc, loc: np.ndarray, conf: np.ndarray, corners: np.ndarray
) -> None:
    """All boxes of the first class with one score, and a few of the last class that are just better."""
    conf[:] = -5
    conf[:, 0] = 0
    conf[:, 1] = 3
    conf[::50, 1] = -5
    conf[::50, -1] = 3.001


KINDS_OF_OUTPUTS: dict[
    str, Callable[[np.random.Generator, NetDesc, np.ndarray, np.ndarray, np.ndarray], None]
] = {
    "usual": _usual, "ties": _ties, "none": _none, "all": _all, "huge": _huge, "not finite": _not_finite,
    "no area": _no_area, "at the threshold": _at_the_threshold, "one class": _one_class,
}  # fmt: skip
KINDS = tuple(KINDS_OF_OUTPUTS)

IMAGES = ((100, 200), (333, 97), (128, 128), (480, 640), (37, 36), (128, 82), (1000, 372))
"""(height, width) of images for letterboxes."""


def image_of(net: NetDesc, seed: int) -> tuple[int, int] | None:
    """An image's size for the letterbox of a net; None if it has none."""
    return IMAGES[seed % len(IMAGES)] if net.arch.resizer.letterboxes else None


def reference(net: NetDesc, outputs: Outputs, image: tuple[int, int] | None = None) -> Detections:
    """What the package's own decoder makes of outputs."""
    arch = net.arch
    window = WHOLE if image is None else window_of(image, arch.resizer)
    with np.errstate(all="ignore"):
        return decode(*outputs, arch.nms, converter=arch.score_converter, window=window)


def names_of(net: NetDesc) -> list[str]:
    return ["background", *(f"class {number}" for number in range(1, net.arch.num_classes))]


def load_module(folder: Path, name: str = "decode") -> ModuleType:
    """decode.py of a folder as a module."""
    return load_file(folder / "decode.py", name)


def load_file(path: Path, name: str = "script") -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_decoder(net: NetDesc, folder: Path) -> ModuleType:
    """decode.py of a net, written into a folder."""
    (folder / "decode.py").write_text(decoder_files(net, names_of(net))["decode.py"], "utf-8")
    return load_module(folder)


def compiler() -> str:
    """gcc; without it, the test is skipped."""
    found = shutil.which("gcc")
    if found is None:
        pytest.skip("gcc is not installed, so decode.c cannot be compiled")
    return found


def compile_c(folder: Path, *flags: str, output: str) -> Path:
    """Compile decode.c of a folder."""
    command = [compiler(), *STRICT, *flags, "decode.c", "-o", output, "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return folder / output


class _Detection(ctypes.Structure):
    _fields_ = (
        ("class_id", ctypes.c_int), ("score", ctypes.c_float), ("box", ctypes.c_float * 4), ("index", ctypes.c_int),
    )  # fmt: skip


_Exp = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)


@dataclasses.dataclass
class Library:
    """decode.c of a net, compiled and loaded.

    Attributes:
        net: whose it is.
        library: its functions.
    """

    net: NetDesc
    library: ctypes.CDLL
    _callback: object = None

    def __call__(self, outputs: Outputs, image: tuple[int, int] | None = None) -> Detections:
        """Detections of one image; `image` is its size for a letterbox."""
        single = [np.ascontiguousarray(values, F).ravel() for values in outputs]
        pointers = [values.ctypes.data_as(ctypes.c_void_p) for values in single]
        room = 1 + min(self.net.arch.nms.max_total, self.net.num_default_boxes * (self.net.arch.num_classes - 1))
        found = (_Detection * room)()
        found[room - 1].index = -7  # must stay
        if image is None:
            count = self.library.ssd_decode(*pointers, found)
        else:
            count = self.library.ssd_decode_image(*pointers, *image, found)
        assert 0 <= count < room
        assert found[room - 1].index == -7
        rows = found[:count]
        boxes = np.asarray([list(one.box) for one in rows], F).reshape(-1, 4)
        return Detections(
            np.asarray([r.class_id for r in rows], np.int64), np.asarray([r.score for r in rows], F), boxes
        )

    def take_numpys_exp(self) -> None:
        """Use numpy's exp in place of the compiler's expf, which gives other last bits here and there."""

        def exp(value: float) -> float:
            with np.errstate(all="ignore"):
                return float(np.exp(F(value)))

        self._callback = _Exp(exp)  # kept, since the library has its address
        ctypes.c_void_p.in_dll(self.library, "used_exp").value = ctypes.cast(self._callback, ctypes.c_void_p).value


_MATH = "#include <math.h>\n"


def c_decoder(net: NetDesc, folder: Path) -> Library:
    """decode.c of a net, written into a folder, compiled and loaded; its expf can be replaced."""
    source = decoder_files(net, names_of(net))["decode.c"]
    assert source.count(_MATH) == 1
    source = source.replace(_MATH, f"{_MATH}float (*used_exp)(float) = expf;\n#define expf used_exp\n")
    (folder / "decode.c").write_text(source, "utf-8")
    return Library(net, ctypes.CDLL(str(compile_c(folder, "-O2", "-shared", "-fPIC", output="decode.so"))))
