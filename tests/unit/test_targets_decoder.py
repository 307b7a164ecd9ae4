"""decode.py and decode.c against the package's own decoder."""

from __future__ import annotations

import ast
import ctypes
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.errors import ArchError, LabelMapError, TensorError
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.runtimes.decode import convert_scores, decode_boxes, split_priors
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.targets.decoder import decoder_files, least_logit
from ssdlite_caffe.tools.detection_check import choose, compare
from tests.decoders import (
    NETS,
    F,
    c_decoder,
    compile_c,
    image_of,
    load_module,
    names_of,
    python_decoder,
    random_outputs,
    reference,
    small_net,
)

SEEDS = range(80)
"""For each of 14 nets, so that there are more than 1000 outputs."""


def same_bits(got: Detections, expected: Detections) -> bool:
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in ((got.classes, expected.classes), (got.scores, expected.scores), (got.boxes, expected.boxes))
    )


@pytest.mark.parametrize("name", NETS)
def test_python_equals_the_reference_bit_for_bit(name: str, tmp_path: Path) -> None:
    net = NETS[name]
    module = python_decoder(net, tmp_path)
    found = 0
    for seed in SEEDS:
        kind, outputs = random_outputs(net, seed)
        image = image_of(net, seed)
        expected = reference(net, outputs, image)
        got = Detections(*module.decode(*outputs, image))
        assert same_bits(got, expected), (kind, seed)
        found += len(got)
    assert found > 30


def near(got: Detections, expected: Detections) -> bool:
    """Whether the detections are the same in the same order, up to the last bits of exp."""
    return got.classes.tolist() == expected.classes.tolist() and all(
        np.allclose(a, b, rtol=0, atol=atol)
        for a, b, atol in ((got.scores, expected.scores, 3e-7), (got.boxes, expected.boxes, 1e-6))
    )


@pytest.mark.parametrize("name", NETS)
def test_c_equals_python(name: str, tmp_path: Path) -> None:
    """The same detections bit for bit with numpy's exp. With the compiler's, where last bits decide, others as right.

    They decide where a score is at the threshold, two scores are equal, an overlap is at the limit, or exp overflows.
    Then what is detected however they fall must be among the detections, and nothing that never is.
    """
    net = NETS[name]
    module, library = python_decoder(net, tmp_path), c_decoder(net, tmp_path)
    same = 0
    for seed in SEEDS:
        kind, outputs = random_outputs(net, seed)
        image = image_of(net, seed)
        got = library(outputs, image)
        if near(got, Detections(*module.decode(*outputs, image))):
            same += 1
            continue
        assert kind not in ("usual", "none"), seed
        if image is not None or kind in ("huge", "not finite", "no area"):
            continue  # what rounding may do here is not worked out; below, it has numpy's exp
        corners, variances = split_priors(outputs[2])
        boxes = decode_boxes(outputs[0], corners, variances).astype(np.float64)
        scores = convert_scores(outputs[1], net.arch.score_converter).astype(np.float64)
        wanted = choose(boxes, scores, net.arch.nms, box_noise=1e-6, score_noise=3e-7)
        difference = compare(got, wanted, box_noise=1e-6, score_noise=3e-7)
        assert not difference.unpaired, (kind, seed, difference.unpaired[:3])
    assert same >= len(SEEDS) // 2

    library.take_numpys_exp()
    add_in_double(module)
    found = 0
    for seed in SEEDS[:32]:
        kind, outputs = random_outputs(net, seed)
        image = image_of(net, seed)
        expected = Detections(*module.decode(*outputs, image))
        got = library(outputs, image)
        for boxes in (got.boxes, expected.boxes):
            boxes[boxes == 0] = 0  # -0 is as right
        assert same_bits(got, expected), (kind, seed)
        found += len(got)
    assert found > 16


def add_in_double(module: ModuleType) -> None:
    """decode.c adds in float64 what softmax divides by, decode.py as numpy does."""
    if module.SCORES == "softmax":
        source = inspect.getsource(module._scores)
        exact = source.replace("powers.sum(axis=1, keepdims=True)", "powers.sum(1, float, keepdims=True).astype('f4')")
        assert exact != source
        exec(exact, module.__dict__)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["few of each class", "letterbox, softmax, clips first", "no threshold"])
def test_c_is_clean_under_the_sanitizers(name: str, tmp_path: Path) -> None:
    """As a command, whose detections are those of decode.py as a command."""
    net = NETS[name]
    for file, text in decoder_files(net, names_of(net)).items():
        (tmp_path / file).write_text(text, "utf-8")
    program = compile_c(
        tmp_path, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DSSD_DECODE_MAIN",
        output="decode",
    )  # fmt: skip
    image = image_of(net, 0) or (480, 640)
    shown = 0
    for seed in (0, 1, 2, 3, 6, 8):
        _, outputs = random_outputs(net, seed)
        for file, values in zip(("loc", "conf", "priors"), outputs, strict=True):
            values.tofile(tmp_path / f"{file}.bin")
        files = ["loc.bin", "conf.bin", "priors.bin"]
        done = subprocess.run(
            [program, *files, *map(str, image)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        height, width = image
        size = f"{height}x{width}"
        ours = run_python(tmp_path, "loc.bin", "conf.bin", "--priors", "priors.bin", "--image-size", size)
        theirs = [line.split("\t") for line in ours.stdout.splitlines()]
        assert len(lines) == len(theirs)
        if seed in (0, 8):  # where no two scores are equal
            assert [line[:2] for line in lines] == [line[:2] for line in theirs]
            np.testing.assert_allclose(
                np.asarray([line[2:] for line in lines], float), np.asarray([line[2:] for line in theirs], float),
                atol=0.011, rtol=0,
            )  # fmt: skip
        shown += len(lines)
    assert shown > 10


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "decode.py", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """decode.py of a net of 4 classes with loc.npy, conf.npy and priors.npy."""
    net = NETS["sigmoid"]
    names = ["background", "räd", "two words", 'a "b" \\ \U0001f600']
    (tmp_path / "decode.py").write_text(decoder_files(net, names)["decode.py"], "utf-8")
    _, outputs = random_outputs(net, 0)
    for name, values in zip(("loc", "conf", "priors"), outputs, strict=True):
        np.save(tmp_path / name, values)
    return tmp_path


def test_the_command_prints_what_decode_returns(folder: Path) -> None:
    module = load_module(folder)
    classes, scores, boxes = module.decode(*(np.load(folder / f"{n}.npy") for n in ("loc", "conf", "priors")))
    done = run_python(folder, "loc.npy", "conf.npy", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert len(rows) == 100
    assert [row["class"] for row in rows] == classes.tolist()
    assert [row["name"] for row in rows] == [module.NAMES[number] for number in classes]
    assert np.asarray([row["score"] for row in rows], F).tolist() == scores.tolist()
    assert np.asarray([row["box"] for row in rows], F).tolist() == boxes.tolist()
    lines = run_python(folder, "loc.npy", "conf.npy").stdout.splitlines()
    first = lines[0].split("\t")
    assert (first[0], first[2:]) == (str(classes[0]), [f"{v:.6f}" for v in (scores[0], *boxes[0])])
    pixels = run_python(folder, "loc.npy", "conf.npy", "--image-size", "100x200", "--score-threshold", "0.9")
    shown = [line.split("\t") for line in pixels.stdout.splitlines()]
    assert len(shown) == (scores >= F(0.9)).sum() > 0
    scale = np.asarray([200, 100, 200, 100], F)
    assert [row[3:] for row in shown] == [[f"{v:.2f}" for v in box * scale] for box in boxes[: len(shown)]]


def test_names_that_a_terminal_cannot_show_are_escaped(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "decode.py", "loc.npy", "conf.npy"], cwd=folder, capture_output=True, check=True,
        env={"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert b"r\\xe4d" in done.stdout
    assert b"\\U0001f600" in done.stdout


def per_map(net: object, values: np.ndarray, layout: str) -> list[np.ndarray]:
    """The blob of each feature map, from (N, V)."""
    blobs, start = [], 0
    for one in net.feature_maps:  # type: ignore[attr-defined]
        rows, columns = one.size
        boxes = len(one.tf_boxes)
        part = values[start : start + rows * columns * boxes].reshape(1, rows, columns, -1)
        start += rows * columns * boxes
        blobs.append({"nchw": part.transpose(0, 3, 1, 2), "nhwc": part, "flat": part.reshape(1, -1)}[layout])
    return blobs


@pytest.mark.parametrize("layout", ["nchw", "nhwc", "flat"])
def test_outputs_of_each_feature_map(layout: str, folder: Path) -> None:
    net, module = NETS["sigmoid"], load_module(folder)
    _, (loc, conf, priors) = random_outputs(net, 0)
    expected = Detections(*module.decode(loc, conf, priors))
    locs, confs = per_map(net, loc, layout), per_map(net, conf, layout)
    assert same_bits(Detections(*module.decode(locs, confs, priors)), expected)
    assert same_bits(Detections(*module.decode(loc[None, ..., None], confs, priors.ravel())), expected)
    files = []
    for name, blobs in (("loc", locs), ("conf", confs)):
        for number, blob in enumerate(blobs):
            np.save(folder / f"{name}{number}.npy", blob)
            files.append(f"{name}{number}.npy")
    split, whole = run_python(folder, *files), run_python(folder, "loc.npy", "conf.npy")
    assert split.returncode == 0
    assert split.stdout == whole.stdout != ""


def test_a_blob_that_may_have_either_layout_goes_by_the_others(tmp_path: Path) -> None:
    """A map of 12x12 with 3 boxes a cell: its box encodings are 12x12x12 in both layouts."""
    arch = default_arch("v2", 6, input_size=(192, 192))
    net = build(arch)
    assert net.feature_maps[0].size == (12, 12)
    module = python_decoder(net, tmp_path)
    _, (loc, conf, priors) = random_outputs(net, 0)
    expected = Detections(*module.decode(loc, conf, priors))
    for layout in ("nchw", "nhwc"):
        got = module.decode(per_map(net, loc, layout), per_map(net, conf, layout), priors)
        assert same_bits(Detections(*got), expected)


def test_integers_and_half_floats(folder: Path) -> None:
    module = load_module(folder)
    loc, conf, priors = (np.load(folder / f"{name}.npy") for name in ("loc", "conf", "priors"))
    stored = np.clip(np.rint(conf / 0.1) - 3, -128, 127).astype(np.int8)
    values = module.dequantised(stored, 0.1, -3)
    assert values.dtype == F
    np.testing.assert_array_equal(values, (stored.astype(F) + 3) * F(0.1))
    expected = Detections(*module.decode(loc.astype(np.float16).astype(F), values, priors))
    np.save(folder / "loc.npy", loc.astype(np.float16))
    np.save(folder / "conf.npy", stored)
    done = run_python(folder, "loc.npy", "conf.npy", "--json", "--conf-scale", "0.1,-3")
    rows = json.loads(done.stdout)
    assert np.asarray([row["score"] for row in rows], F).tolist() == expected.scores.tolist()
    refused = run_python(folder, "loc.npy", "conf.npy")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "conf.npy has int8 values; give their scale: --conf-scale SCALE,ZERO" in refused.stderr
    with pytest.raises(ValueError, match="class logits are of the type int8"):
        module.decode(loc, stored, priors)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        pytest.param(1, "loc.npy has 1 values that are NaN or infinite, the first at place 7", id="nan"),
        pytest.param(1, "conf.npy has 2 values that are NaN or infinite, the first at place 0", id="inf"),
        pytest.param(1, "box encodings have the shape (257, 4), which is not 258 x 4", id="short"),
        pytest.param(1, "class logits have the shape (4, 258), which is not 258 x 4", id="transposed"),
        pytest.param(
            1, "default boxes must have the shape (258, 8) or PriorBox's (1, 2, 1032), got (8, 258)", id="priors"
        ),
        pytest.param(1, "cannot read none.npy: No such file or directory", id="missing"),
        pytest.param(1, "cannot read priors.npy: No such file or directory", id="no priors"),
        pytest.param(1, "loc.npy is no .npy file", id="text"),
        pytest.param(1, "cannot read loc.npy: ", id="truncated"),
        pytest.param(1, "cannot read loc.npy: Object arrays cannot be loaded", id="pickle"),
        pytest.param(1, "loc.npy is no .npy file", id="npz"),
        pytest.param(1, "loc.bin has 5 bytes, which are no float32 values", id="bytes"),
        pytest.param(1, "loc.npy has values of the type <U1; floats are needed", id="words"),
        pytest.param(1, "loc.npy has float32 values, which have no --loc-scale", id="scale of floats"),
        pytest.param(2, "3 files; give 2, or 12 for the feature maps", id="three"),
        pytest.param(2, "must be HEIGHTxWIDTH in pixels, such as 480x640, got '480'", id="size"),
        pytest.param(2, "must be SCALE,ZERO, such as 0.0471,-3, got '0'", id="scale"),
        pytest.param(2, "must be a number, such as 0.3, got 'nan'", id="score"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    status: int, said: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    case = request.node.callspec.id
    loc, conf = np.load(folder / "loc.npy"), np.load(folder / "conf.npy")
    files, options = ["loc.npy", "conf.npy"], []
    if case == "nan":
        loc[1, 3] = np.nan
        np.save(folder / "loc", loc)
    elif case == "inf":
        conf[0, 0], conf[5, 1] = np.inf, -np.inf
        np.save(folder / "conf", conf)
    elif case == "short":
        np.save(folder / "loc", loc[1:])
    elif case == "transposed":
        np.save(folder / "conf", conf.T)
    elif case == "priors":
        np.save(folder / "priors", np.load(folder / "priors.npy").reshape(8, 258))
    elif case == "missing":
        files[0] = "none.npy"
    elif case == "no priors":
        (folder / "priors.npy").unlink()
        options = ["--priors", "priors.npy"]
    elif case == "text":
        (folder / "loc.npy").write_text("0.1 0.2")
    elif case == "truncated":
        (folder / "loc.npy").write_bytes((folder / "loc.npy").read_bytes()[:-9])
    elif case == "pickle":
        np.save(folder / "loc", np.asarray([{}], object), allow_pickle=True)
    elif case == "npz":
        with (folder / "loc.npy").open("wb") as stream:
            np.savez(stream, loc=loc)
    elif case == "bytes":
        (folder / "loc.bin").write_bytes(b"12345")
        files[0] = "loc.bin"
    elif case == "words":
        np.save(folder / "loc", np.full((258, 4), "x"))
    elif case == "scale of floats":
        options = ["--loc-scale", "0.1"]
    elif case == "three":
        files.append("conf.npy")
    elif case == "size":
        options = ["--image-size", "480"]
    elif case == "score":
        options = ["--score-threshold", "nan"]
    else:
        options = ["--conf-scale", "0"]
    done = run_python(folder, *files, *options)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert status == 2 or (done.stderr.startswith("decode.py: ") and done.stderr.count("\n") == 1)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_has_had_enough(options: list[str], folder: Path) -> None:
    """As in `decode.py ... | head`."""
    closed, pipe = os.pipe()
    os.close(closed)
    command = [sys.executable, "decode.py", "loc.npy", "conf.npy", *options]
    done = subprocess.run(command, cwd=folder, stdout=pipe, stderr=subprocess.PIPE, check=False)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_letterbox_needs_the_size_of_the_image(tmp_path: Path) -> None:
    net = NETS["letterbox"]
    module = python_decoder(net, tmp_path)
    _, outputs = random_outputs(net, 0)
    for name, values in zip(("loc", "conf", "priors"), outputs, strict=True):
        np.save(tmp_path / name, values)
    with pytest.raises(ValueError, match="letterboxes images"):
        module.decode(*outputs)
    with pytest.raises(ValueError, match="an image of 1x9000 pixels is too narrow"):
        module.decode(*outputs, (1, 9000))
    with pytest.raises(ValueError, match="must be positive"):
        module.decode(*outputs, (0, 9000))
    done = run_python(tmp_path, "loc.npy", "conf.npy")
    assert done.returncode == 1
    assert done.stderr == "decode.py: this detector letterboxes images; give the image's size with --image-size HxW\n"
    assert run_python(tmp_path, "loc.npy", "conf.npy", "--image-size", "100x200").stdout


def test_errors_of_the_c_command(tmp_path: Path) -> None:
    net = NETS["sigmoid"]
    (tmp_path / "decode.c").write_text(decoder_files(net, names_of(net))["decode.c"])
    program = compile_c(tmp_path, "-DSSD_DECODE_MAIN", output="decode")
    _, outputs = random_outputs(net, 0)
    names = ("loc.bin", "conf.bin", "priors.bin")
    for name, values in zip(names, outputs, strict=True):
        values.tofile(tmp_path / name)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    status, shown, said = run(*names)
    assert (status, said) == (0, "")
    assert len(shown.splitlines()) == 100
    assert run(*names[:2])[0] == run(*names, "480")[0] == run(*names, "480", "x")[0] == run(*names, "0", "1")[0] == 2
    assert run("none.bin", *names[1:]) == (1, "", "decode: cannot read none.bin: No such file or directory\n")
    assert run(".", *names[1:]) == (1, "", "decode: cannot read .: Is a directory\n")
    needed = "needed are 1032 float32 values, 4128 bytes\n"
    assert run("priors.bin", *names[1:]) == (1, "", f"decode: priors.bin has more than 4128 bytes; {needed}")
    (tmp_path / "loc.bin").write_bytes(b"\0" * 4127)
    assert run(*names) == (1, "", f"decode: loc.bin has 4127 bytes; {needed}")
    outputs[0][1, 1] = np.nan
    outputs[0].tofile(tmp_path / "loc.bin")
    assert run(*names) == (1, "", "decode: loc.bin has a value that is NaN or infinite, at place 5\n")


def test_c_takes_blobs_of_feature_maps_and_integers(tmp_path: Path) -> None:
    net = NETS["sigmoid"]
    library = c_decoder(net, tmp_path).library
    _, (loc, conf, _) = random_outputs(net, 0)
    for values in (loc, conf):
        for nchw, layout in ((1, "nchw"), (0, "nhwc")):
            joined = np.full(values.shape, np.nan, F)
            for number, blob in enumerate(per_map(net, values, layout)):
                single = np.ascontiguousarray(blob)
                library.ssd_put_map(
                    number, single.ctypes.data_as(ctypes.c_void_p), nchw, values.shape[1],
                    joined.ctypes.data_as(ctypes.c_void_p),
                )  # fmt: skip
            np.testing.assert_array_equal(joined, values)
    module = python_decoder(net, tmp_path)
    for dtype, function in ((np.int8, library.ssd_dequantize_int8), (np.uint8, library.ssd_dequantize_uint8)):
        stored = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)
        out = np.empty(len(stored), F)
        function(
            stored.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(len(stored)), ctypes.c_float(0.0471), -3,
            out.ctypes.data_as(ctypes.c_void_p),
        )  # fmt: skip
        np.testing.assert_array_equal(out, module.dequantised(stored, 0.0471, -3))


def test_names_are_the_same_text_everywhere(tmp_path: Path) -> None:
    net = NETS["sigmoid"]
    names = ["background", 'räd "quoted" \\n ??= ??/', "{{ x }} {% raw %} 'é'", "\U0001f600 1\u2028"]
    for file, text in decoder_files(net, names).items():
        assert text.isascii()
        (tmp_path / file).write_text(text)
    assert list(load_module(tmp_path).NAMES) == names
    library = ctypes.CDLL(str(compile_c(tmp_path, "-shared", "-fPIC", output="names.so")))
    found = (ctypes.c_char_p * 4).in_dll(library, "ssd_names")
    assert [(one or b"").decode() for one in found] == names


def test_default_boxes_can_be_compiled_in(tmp_path: Path) -> None:
    net = NETS["sigmoid"]
    values = np.random.default_rng(0).uniform(-1, 2, (1, 2, 4 * net.num_default_boxes)).astype(F)
    values[0, 0, :6] = 0, 1, -0.0, 1e-40, 3.4e38, 0.1
    files = decoder_files(net, names_of(net), values)
    assert set(files) == {"decode.py", "decode.c", "priors.h"}
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    text = files["decode.c"] + '#include "priors.h"\nconst float* compiled(void) { return ssd_priors; }\n'
    text = text.replace("#include <math.h>", "#include <math.h>\nconst float* compiled(void);")
    (tmp_path / "decode.c").write_text(text)
    library = ctypes.CDLL(str(compile_c(tmp_path, "-shared", "-fPIC", output="priors.so")))
    library.compiled.restype = ctypes.POINTER(ctypes.c_float * values.size)
    assert bytes(library.compiled().contents) == values.tobytes()


def test_another_c_file_uses_the_declarations(tmp_path: Path) -> None:
    net = NETS["sigmoid"]
    (tmp_path / "library.c").write_text(decoder_files(net, names_of(net))["decode.c"])
    (tmp_path / "decode.c").write_text(
        '#define SSD_DECLARATIONS\n#include "library.c"\n'
        "static ssd_detection found[SSD_MAX_DETECTIONS];\n"
        "static float loc[SSD_BOXES * 4], conf[SSD_BOXES * SSD_CLASSES], priors[SSD_BOXES * 8];\n"
        "int main(void) { return ssd_decode(loc, conf, priors, found); }\n"
    )
    program = compile_c(tmp_path, "library.c", output="user")
    assert subprocess.run([program], check=False).returncode == 0  # default boxes of no area


@given(threshold=st.floats(0, 1.5), softmax=st.booleans())
def test_no_logit_below_the_least_has_a_score_above_the_threshold(threshold: float, softmax: bool) -> None:
    least = F(least_logit(threshold, softmax=softmax))
    steps = np.unique(np.geomspace(1, 1e6, 50).astype(int))
    below = np.nextafter(least, F(-np.inf)) - steps * np.spacing(abs(least)) if np.isfinite(least) else F([-np.inf])
    if softmax:  # one other class, which has the largest logit
        with np.errstate(invalid="ignore"):
            scores = convert_scores(np.stack([np.zeros(len(below), F), below.astype(F)], axis=1), "softmax")[:, 1]
    else:
        scores = convert_scores(below.astype(F), "sigmoid")
    assert not (scores > F(threshold)).any()


@given(threshold=st.floats(1e-9, 1 - 1e-6))
def test_the_least_logit_is_near_the_threshold_s(threshold: float) -> None:
    """So it saves nearly all that can be saved."""
    for softmax in (False, True):
        least = least_logit(threshold, softmax=softmax)
        score = np.exp(least) if softmax else 1 / (1 + np.exp(-least))
        assert threshold * (1 - 3e-5) < score < threshold


def test_the_constants_are_the_model_s(tmp_path: Path) -> None:
    net = NETS["few candidates"]
    module = python_decoder(net, tmp_path)
    arch = net.arch
    assert (arch.num_classes, net.num_default_boxes) == (module.CLASSES, module.BOXES)
    assert [m[:2] for m in module.MAPS] == [one.size for one in net.feature_maps]
    assert sum(rows * columns * boxes for rows, columns, boxes in module.MAPS) == net.num_default_boxes
    assert (arch.nms.score_threshold, arch.nms.iou_threshold) == (module.SCORE_THRESHOLD, module.IOU_THRESHOLD)
    assert (module.MAX_PER_CLASS, module.MAX_TOTAL, module.TOP_K) == (100, 100, 5)
    assert (module.CLIP_FIRST, module.LETTERBOX, module.SCORES) == (True, None, "sigmoid")
    assert python_decoder(NETS["letterbox"], tmp_path).LETTERBOX == (96, 128)


def test_python_is_of_3_8_and_needs_numpy_alone(tmp_path: Path) -> None:
    net = NETS["sigmoid"]
    text = decoder_files(net, names_of(net))["decode.py"]
    tree = ast.parse(text, feature_version=(3, 8))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"argparse", "json", "os", "sys", "numpy"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


def test_what_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(ArchError, match="is a classifier"):
        decoder_files(build(default_arch("v2", 10, classifier=True)), ["x"] * 10)
    with pytest.raises(LabelMapError, match="each of 3 classes with background, got 2"):
        decoder_files(small_net(3), ["background", "x"])
    with pytest.raises(TensorError, match=r"2064 values with their variances, got \(4,\)"):
        decoder_files(small_net(3), ["background", "x", "y"], np.zeros(4))
