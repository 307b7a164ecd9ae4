"""The command as a process of its own: what it imports, signals, pipes, closed streams and odd file names."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssdlite_caffe.coco.label_map import load_label_map
from tests.commands import tree

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "ssdlite_caffe.cli"]
SLOW_TO_IMPORT = ("tensorflow", "cv2", "numpy", "jinja2", "google.protobuf", "matplotlib", "rich.progress")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, /dev and byte names of POSIX")


def environment(**changes: str) -> dict[str, str]:
    """This process's, with stdout buffered, as it is by itself."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "", **changes}


def run(
    *arguments: object, command: list[str] = COMMAND, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[bytes]:
    line = [*command, *(a if isinstance(a, bytes) else str(a) for a in arguments)]
    return subprocess.run(line, capture_output=True, cwd=cwd, env=environment(**env), timeout=120)


def through(redirection: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command with a shell's redirections."""
    return run(*arguments, command=["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND])


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in ("gen", "convert", "verify", "detect"))]
)
def test_help_imports_nothing_slow(arguments: list[str]) -> None:
    code = f"""
import sys
from ssdlite_caffe import cli
sys.argv = ["ssdlite-caffe", *{arguments!r}]
try:
    cli.main()
finally:
    print([name for name in {SLOW_TO_IMPORT!r} if name in sys.modules], file=sys.stderr)
"""
    done = run(command=[sys.executable, "-c", code])
    assert (done.returncode, done.stderr) == (0, b"[]\n")


def test_convert_imports_neither_tensorflow_nor_opencv(example_model: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from ssdlite_caffe import cli
sys.argv = ["ssdlite-caffe", "convert", {str(example_model)!r}, "-o", {str(tmp_path / "out")!r}]
try:
    cli.main()
finally:
    print([name for name in ("tensorflow", "cv2", "matplotlib") if name in sys.modules], file=sys.stderr)
"""
    done = run(command=[sys.executable, "-c", code])
    assert (done.returncode, done.stderr) == (0, b"[]\n")


def test_usage_names_the_command_however_it_is_started() -> None:
    done = run("nothing")
    assert done.returncode == 2
    assert done.stderr.startswith(b"Usage: ssdlite-caffe ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["gen_model", "coco.coco2voc"])
def test_modules_of_their_own(module: str) -> None:
    done = run("--help", command=[sys.executable, "-m", f"ssdlite_caffe.{module}"])
    assert (done.returncode, done.stderr) == (0, b"")


INTERRUPTED = """
import signal, sys, time
from ssdlite_caffe import cli
from ssdlite_caffe.tools import convert

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
write = convert.write_layers

def slow(*args, **kwargs):
    done = write(*args, **kwargs)
    print("ready", flush=True)
    time.sleep(60)
    return done

convert.write_layers = slow
sys.argv = ["ssdlite-caffe", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize("exists", [True, False])
def test_ctrl_c_midway_leaves_old_files_whole(
    example_model: Path, example_folder: Path, tmp_path: Path, exists: bool
) -> None:
    out = tmp_path / "out"
    if exists:
        shutil.copytree(example_folder, out)
    before = tree(tmp_path)
    line = [
        sys.executable,
        "-c",
        INTERRUPTED,
        "convert",
        str(example_model),
        "-o",
        str(out),
        "--force",
        "--score-threshold",
        "0.5",
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "a caffemodel is written"
        assert tree(tmp_path) != before, "and lies in a temporary folder"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == b"ssdlite-caffe: interrupted\n"
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "arguments", [["gen", "-c", "91", "-v", "3-large", "-s", "train"], ["--version"]], ids=["much", "little"]
)
def test_a_reader_that_goes_away_is_no_error_worth_a_word(arguments: list[str]) -> None:
    """`| head`: of much output while it is written, of little when it is flushed at the end."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE, env=environment(), timeout=60
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_head_reads_what_it_wants() -> None:
    pipe = " ".join([*COMMAND, "gen", "-c", "91", "-v", "3-large", "-s", "train", "|", "head", "-n", "1"])
    done = run(command=["sh", "-c", pipe])
    assert (done.stdout, done.stderr) == (b"# MobileNetv3-Large-SSDLite, for training\n", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["gen", "-c", "91"], ["--version"]], ids=["much", "little"])
def test_a_full_disk_behind_stdout(arguments: list[str]) -> None:
    done = through("> /dev/full", *arguments)
    assert (done.returncode, done.stderr) == (1, b"ssdlite-caffe: cannot read or write: No space left on device\n")


class TestClosedStreams:
    def test_stdout(self, example_model: Path, example_folder: Path, tmp_path: Path) -> None:
        """Nothing is said; and no file that is written gets descriptor 1, to take what a library prints."""
        for arguments in (["gen", "-c", "4"], ["--help"], ["lint", example_folder / "deploy.prototxt"]):
            assert through(">&-", *arguments).returncode == 0
        done = through(">&-", "convert", example_model, "-o", tmp_path / "out")
        assert (done.returncode, done.stderr) == (0, b"")
        assert tree(tmp_path / "out") == tree(example_folder)

    def test_both(self, example_model: Path, example_folder: Path, tmp_path: Path) -> None:
        assert through(">&- 2>&-", "convert", example_model, "-o", tmp_path / "out").returncode == 0
        assert tree(tmp_path / "out") == tree(example_folder)
        assert through(">&- 2>&-", "convert", example_model, "-o", tmp_path / "out").returncode == 1
        assert through("2>&-", "nothing").returncode == 2

    @pytest.mark.opencv
    def test_while_images_are_read(self, example_folder: Path, example_model: Path, tmp_path: Path) -> None:
        image = example_model.parent / "shapes.png"
        done = through("<&- >&- 2>&-", "detect", example_folder, image, "-o", tmp_path / "out")
        assert done.returncode == 0
        assert list(tree(tmp_path)) == ["out", "out/shapes.png"]


STRICT = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}


@pytest.mark.opencv
def test_file_names_that_are_not_utf_8(example_model: Path, tmp_path: Path) -> None:
    """Every command takes and makes them; where one is shown, the bytes are written out."""
    place = os.fsencode(tmp_path)
    model, folder, weights = place + b"/m\xff.pb", place + b"/o\xff", place + b"/w\xff"
    shutil.copy(os.fsencode(example_model), model)
    shutil.copy(os.fsencode(example_model.parent / "shapes.png"), place + b"/p\xff.png")
    (tmp_path / "map.yaml").write_text("round: [class_1]\n")
    for arguments in (
        ["convert", model, "-o", folder],
        ["dump", model, "-o", weights],
        ["load", weights, folder + b"/deploy.prototxt", "-o", place + b"/\xfe/x.caffemodel"],
        ["remap", folder, "--map", tmp_path / "map.yaml", "-o", place + b"/r\xff"],
        ["lint", folder + b"/deploy.prototxt"],
        ["detect", folder, place + b"/p\xff.png", "-o", place + b"/d\xff"],
        ["detect", folder, place + b"/p\xff.png", "--csv"],
        ["gen", "-c", "4", "-o", place + b"/g\xff"],
    ):
        done = run(*arguments, **STRICT)
        assert (done.returncode, done.stderr) == (0, b""), arguments
        assert done.stdout.decode("utf-8").count("udcf") >= (arguments[0] not in ("gen", "lint"))
    found = json.loads(run("detect", folder, place + b"/p\xff.png", "--json", **STRICT).stdout)
    assert found["images"][0]["image"] == os.fsdecode(place + b"/p\xff.png")
    assert {b"m\xff.pb", b"o\xff", b"w\xff", b"r\xff", b"d\xff", b"g\xff", b"\xfe"} < {
        os.fsencode(path.name) for path in tmp_path.iterdir()
    }
    refused = run("convert", model, "-o", folder, **STRICT)
    assert refused.returncode == 1
    assert refused.stderr.decode().startswith(f"ssdlite-caffe: {tmp_path}/o\\udcff exists already")


@pytest.mark.opencv
def test_file_names_at_which_opencv_would_crash(example_folder: Path, example_model: Path, tmp_path: Path) -> None:
    place = os.fsencode(tmp_path)
    shutil.copy(os.fsencode(example_model.parent / "shapes.png"), place + b"/image.\xff")
    (tmp_path / os.fsdecode(b"v\xff.mp4")).write_bytes(b"x")
    inputs = [place + b"/image.\xff", place + b"/v\xff.mp4"]
    done = run("detect", example_folder, *inputs, "-o", tmp_path / "out", **STRICT)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"ssdlite-caffe: {tmp_path}/v\\udcff.mp4 is not a valid UTF-8 name, which OpenCV needs for videos; rename it"
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image.png"]


def test_an_option_that_is_not_utf_8_cannot_go_into_a_prototxt(example_model: Path, tmp_path: Path) -> None:
    done = run("convert", example_model, "-o", tmp_path / "out", "--data", b"l\xff", **STRICT)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"ssdlite-caffe: cannot write {tmp_path}/out/train.prototxt: not UTF-8 text: 'source: \"l\\udcff\"'"
    ]
    assert list(tmp_path.iterdir()) == []


def test_output_that_the_terminal_cannot_show(example_model: Path, tmp_path: Path) -> None:
    """An ASCII locale, and class names that are not."""
    (tmp_path / "labels.txt").write_text("\u732b\n\u72ac\n\u9ce5\n", "utf-8")
    ascii_only = {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    done = run("convert", example_model, "-o", tmp_path / "out", "-l", tmp_path / "labels.txt", **ascii_only)
    assert (done.returncode, done.stderr) == (0, b"")
    assert load_label_map(tmp_path / "out" / "labelmap.prototxt").entries[1].name == "\u732b"
    done = run("lint", tmp_path / "out" / "deploy.prototxt", **ascii_only)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_working_directory_can_be_the_output(example_model: Path, example_folder: Path, tmp_path: Path) -> None:
    for options in ([], ["--force"]):
        assert run("convert", example_model, "-o", ".", *options, cwd=tmp_path).returncode == 0
        here, there = tree(tmp_path), tree(example_folder)
        reports = [json.loads(files.pop("report.json") or b"") for files in (here, there)]
        assert here == there
        places = [report.pop("source") for report in reports]  # as seen from the folder
        assert reports[0] == reports[1]
        assert places[0]["path"] == places[1]["path"]
