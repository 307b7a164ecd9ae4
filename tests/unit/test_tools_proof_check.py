"""What `verify --check` says of records in report.json: sound ones, changed files, whatever else may stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe import check_proof
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.files import file_sha256
from ssdlite_caffe.runtimes.folder_files import PROOF_DROPPED
from ssdlite_caffe.tools.proof_record import FILES, ProofRecord, arch_sha256
from tests.commands import Command, tree

Change = Callable[[dict[str, Any]], None]


def record_of(folder: Path, model: Path) -> dict[str, Any]:
    """A sound record of a folder as it is."""
    report = json.loads((folder / "report.json").read_text())
    return {
        "verdict": "equal on 2 images",
        "equal": True,
        "date": "2026-03-01T12:00:00Z",
        "source": {"name": model.name, "form": "frozen graph", "sha256": file_sha256(model)},
        "files": {name: file_sha256(folder / name) for name in FILES if (folder / name).is_file()},
        "arch": arch_sha256(report),
        "float64": {"share": 0.5, "stage": "Conv"},
        "rounding": {"ratio": 1.5, "stage": "conv/expand"},
        "figures": {"boxes": 2.4e-7, "scores": 5e-7},
        "unproved": "",
        "tolerance": None,
        "images": [{"name": "a.png", "sha256": "0" * 64}, {"name": "b.png", "sha256": "1" * 64}],
        "drawn": False,
        "versions": {"runtime": "4.14.0", "ssdlite-caffe": "0.2.0", "tensorflow": "2.21.0", "numpy": "2.4.6"},
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file with the name of a model; nothing reads it."""
    path = tmp_path / "frozen_inference_graph.pb"
    path.write_bytes(b"model")
    return path


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """The files of a converted folder, of a few bytes each, with a proof."""
    path = tmp_path / "out"
    path.mkdir()
    for name in FILES:
        (path / name).write_text(name)
    (path / "report.json").write_text(json.dumps({"arch": {"nms": {"iou_threshold": 0.6}}, "notes": []}))
    write(path, {"opencv": record_of(path, model)})
    return path


def write(folder: Path, proofs: object) -> None:
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, "proofs": proofs}))


def changed(folder: Path, change: Change) -> None:
    proofs = json.loads((folder / "report.json").read_text())["proofs"]
    change(proofs["opencv"])
    write(folder, proofs)


def test_unchanged(command: Command, folder: Path, model: Path) -> None:
    before = tree(folder)
    alone = command("verify", folder, "--check")
    assert (alone.status, alone.err) == (0, "")
    first, *rest = alone.out.splitlines()
    assert first == "opencv: unchanged, and equal on 2 images"
    assert "  frozen graph frozen_inference_graph.pb  not checked; give MODEL too" in rest
    assert "  in float64: at most 0.5 of what is allowed, at Conv" in rest
    assert [line.split() for line in rest if line.endswith(" unchanged")] == [
        *([name, "unchanged"] for name in FILES), ["report.json:", "arch", "unchanged"],
    ]  # fmt: skip
    both = command("verify", model, folder, "--check", "--json")
    assert both.status == 0
    said = json.loads(both.out)
    assert (said["ok"], said["proofs"]["opencv"]["model"]) == (True, "unchanged")
    assert said["proofs"]["opencv"]["record"] == record_of(folder, model)
    assert tree(folder) == before


def with_targets(folder: Path, model: Path) -> None:
    """Add the folder of a target, and record it."""
    (folder / "rknn" / "images").mkdir(parents=True)
    hashes = {}
    for name in ("README.md", "images/0.png", "images/1.png"):
        (folder / "rknn" / name).write_text(name)
        hashes[name] = file_sha256(folder / "rknn" / name)
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, "targets": {"rknn": {"files": hashes}}}))
    record = record_of(folder, model)
    record["files"] |= {f"rknn/{name}": digest for name, digest in hashes.items()}
    write(folder, {"opencv": record})


def test_files_of_targets(command: Command, folder: Path, model: Path) -> None:
    with_targets(folder, model)
    sound = command("verify", folder, "--check")
    assert sound.status == 0
    assert ["rknn/", "unchanged,", "3", "files"] in [line.split() for line in sound.out.splitlines()]
    (folder / "rknn" / "README.md").write_text("mine")
    (folder / "rknn" / "images" / "0.png").unlink()
    (folder / "rknn" / "mine.rknn").write_text("what a user's tool wrote is no file of the record")
    result = command("verify", folder, "--check")
    assert (result.status, result.err) == (1, "")
    first, *rest = [line.split() for line in result.out.splitlines()]
    assert first[:5] == ["opencv:", "rknn/README.md", "changed,", "rknn/images/0.png", "missing"]
    assert ["rknn/README.md", "changed"] in rest
    assert ["rknn/images/0.png", "missing"] in rest
    assert ["rknn/", "unchanged,", "1", "file"] in rest


def test_many_changed_files_are_counted(command: Command, folder: Path, model: Path) -> None:
    record = record_of(folder, model)
    record["files"] |= {f"rknn/images/{number}.png": "0" * 64 for number in range(20)}
    write(folder, {"opencv": record})
    first = command("verify", folder, "--check").out.splitlines()[0]
    assert first.endswith("rknn/images/7.png missing and 12 more since this was recorded: equal on 2 images")


def test_a_record_without_the_files_of_targets(refused: Command, folder: Path, model: Path) -> None:
    with_targets(folder, model)
    write(folder, {"opencv": record_of(folder, model)})
    assert (
        "proofs.opencv.files has no 'rknn/README.md'; record the proof again"
        in refused("verify", folder, "--check").err
    )


BAD_NAMES = (
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "./a",
    "..",
    "",
    "a\\..\\x",
    "c:x",
    "a\n",
    "a/",
    "\ud800",
    "a" * 401,
)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_not_inside_the_folder_of_a_target(refused: Command, folder: Path, name: str) -> None:
    changed(folder, lambda one: one["files"].update({f"rknn/{name}": "0" * 64}))
    assert "which is no file of a converted folder" in refused("verify", folder, "--check").err
    changed(folder, lambda one: one["files"].pop(f"rknn/{name}"))
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, "targets": {"rknn": {"files": {name: "0" * 64}}}}))
    assert "of the target 'rknn' is no name of a file inside its folder" in refused("verify", folder, "--check").err


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ({"..": {"files": {"x": ""}}}, "'x' of the target '..' is no name of a file"),
        ({"rknn": {"files": []}}, "'files' of the target 'rknn' must be an object"),
        ({"rknn": {"files": {str(number): "" for number in range(100_001)}}}, "names 100001 files of targets, more"),
    ],
    ids=["outside", "a list", "too many"],
)
def test_targets_that_are_not_valid(refused: Command, folder: Path, targets: object, said: str) -> None:
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**report, "targets": targets}))
    assert said in refused("verify", folder, "--check").err


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("what", ["changed", "missing"])
def test_a_file(command: Command, folder: Path, name: str, what: str) -> None:
    if what == "changed":
        (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    else:
        (folder / name).unlink()
    result = command("verify", folder, "--check")
    assert (result.status, result.err) == (1, "")
    assert result.out.splitlines()[0] == f"opencv: {name} {what} since this was recorded: equal on 2 images"
    assert [one for one, state in check_proof(folder).proofs[0].files.items() if state != "unchanged"] == [name]


def test_the_architecture_and_other_fields_of_the_report(command: Command, folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    report["notes"].append("mine")
    (folder / "report.json").write_text(json.dumps(report, indent=7, sort_keys=True))
    assert command("verify", folder, "--check").status == 0
    report["arch"]["nms"]["iou_threshold"] = 0.61
    (folder / "report.json").write_text(json.dumps(report))
    result = command("verify", folder, "--check")
    assert result.status == 1
    assert "report.json: arch changed" in result.out


def test_another_model(command: Command, folder: Path, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pb"
    other.write_bytes(model.read_bytes() + b"\x00")
    result = command("verify", other, folder, "--check")
    assert result.status == 1
    assert result.out.startswith("opencv: frozen_inference_graph.pb changed since this was recorded")
    assert command("verify", tmp_path / "none.pb", folder, "--check").err.endswith("none.pb does not exist\n")


def test_a_proof_that_says_not_equal(command: Command, folder: Path) -> None:
    changed(
        folder,
        lambda one: one.update(
            verdict="not the same net: the first stage that differs is Conv", equal=False,
            float64={"share": None, "stage": "Conv"}, figures={"boxes": None, "scores": 0.5},
        ),
    )  # fmt: skip
    result = command("verify", folder, "--check")
    assert (result.status, result.err) == (1, "")
    assert result.out.startswith("opencv: unchanged, and not the same net: the first")
    assert "boxes: largest difference NaN or Inf" in result.out


def test_runtimes_side_by_side(command: Command, folder: Path, model: Path) -> None:
    record = record_of(folder, model)
    bad = {**record, "equal": False, "verdict": "the first stage beyond its bound is boxes"}
    write(folder, {"opencv": record, "caffe": bad})
    both = command("verify", folder, "--check")
    assert both.status == 1
    assert [line.split(":")[0] for line in both.out.splitlines() if line[0] != " "] == ["opencv", "caffe"]
    assert command("verify", folder, "--check", "--runtime", "opencv").status == 0
    assert command("verify", folder, "--check", "--runtime", "caffe").status == 1
    result = command("verify", folder, "--check", "--runtime", "reference")
    assert "has no proof with reference, but one with 'opencv', 'caffe'; verify it" in result.err
    assert result.err.rstrip().endswith(f"verify MODEL {folder} --record --runtime reference")


def _set(*path: str | int, to: object) -> Change:
    def change(one: Any) -> None:
        for key in path[:-1]:
            one = one[key]
        one[path[-1]] = to

    return change


def _without(*path: str) -> Change:
    def change(one: Any) -> None:
        for key in path[:-1]:
            one = one[key]
        del one[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("verdict"), "proofs.opencv has no 'verdict'"),
        (_without("files", "deploy.caffemodel"), "proofs.opencv.files has no 'deploy.caffemodel'"),
        (_set("files", to={}), "proofs.opencv.files has no 'deploy.caffemodel'"),
        (_without("files", "deploy.prototxt"), "proofs.opencv.files has no 'deploy.prototxt'"),
        (_set("files", "../../etc/passwd", to="0" * 64), "names '../../etc/passwd', which is no file of a converted"),
        (_set("files", "report.json", to="0" * 64), "names 'report.json', which is no file"),
        (_set("files", "deploy.prototxt", to="0" * 63), "'deploy.prototxt' must be a SHA-256 of 64 hex digits"),
        (_set("files", "deploy.prototxt", to=None), "'deploy.prototxt' must be a SHA-256"),
        (_set("files", to=[]), "proofs.opencv.files must be an object, got []"),
        (_set("equal", to=1), "'equal' must be true or false, got 1"),
        (_set("equal", to=False), "contradicts itself: 'equal' is false, and the verdict is 'equal on 2 images'"),
        (_set("verdict", to="equal\n\x1b[2J"), "'verdict' must be a line of text"),
        (_set("verdict", to="equal" * 10000), "'verdict' must be a line of text of at most 4000 characters"),
        (_set("date", to="yesterday"), "'date' must be a date in UTC"),
        (_set("date", to=10**30), "'date' must be a date in UTC"),
        (_set("source", to="a.pb"), "proofs.opencv.source must be an object, got 'a.pb'"),
        (_set("source", "name", to="\ud800"), "'name' must be a line of text"),
        (_set("float64", "share", to=float("nan")), "'share' must be a finite number from 0, or null, got nan"),
        (_set("float64", "share", to=10**400), "'share' must be a finite number"),
        (_set("float64", "share", to=-1), "'share' must be a finite number"),
        (_set("float64", "share", to=True), "'share' must be a finite number"),
        (_set("float64", "share", to=3), "contradicts itself: 'equal' is true, and in float64 Conv differs more"),
        (_set("float64", to=None), "contradicts itself: 'unproved' must be empty"),
        (_set("figures", "boxes", to=float("inf")), "'boxes' must be a finite number"),
        (_set("figures", "boxes", to="0"), "'boxes' must be a finite number"),
        (_set("figures", "boxes", to=None), "contradicts itself: 'equal' is true, and a figure is null"),
        (_set("images", to=[]), "'images' must be a list of at least one image"),
        (_set("images", to={}), "'images' must be a list of at least one image"),
        (_set("images", 0, to=7), "proofs.opencv.images[0] must be an object, got 7"),
        (_set("images", 1, "sha256", to=""), "proofs.opencv.images[1]: 'sha256' must be a SHA-256"),
        (_without("versions", "numpy"), "proofs.opencv.versions has no 'numpy'"),
        (_set("tolerance", to="1e-3"), "'tolerance' must be a finite number"),
    ],
)  # fmt: skip
def test_records_that_are_not_valid(refused: Command, folder: Path, change: Change, said: str) -> None:
    changed(folder, change)
    assert said in refused("verify", folder, "--check").err


@pytest.mark.parametrize(
    ("proofs", "said"),
    [
        (None, "out has no proof; verify it and record one: ssdlite-caffe verify MODEL"),
        ({}, "out has no proof; verify it"),
        ([], "'proofs' must be an object, got []"),
        (7, "'proofs' must be an object, got 7"),
        ({"opencv": None}, "proofs.opencv must be an object, got None"),
        ({"\x1b[2J": {}}, r"'\x1b[2J' under 'proofs' is no name of a runtime"),
    ],
    ids=str,
)
def test_no_proof(refused: Command, folder: Path, proofs: object, said: str) -> None:
    write(folder, proofs)
    assert said in refused("verify", folder, "--check").err


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is not JSON"), ("[" * 100000, "is not JSON"), ("[]", "has no architecture"), ("", "is not JSON"),
     ('{"arch": {}, "proofs": ' + "9" * 5000 + "}", "is not JSON"), ("\ufeff{}", "is not JSON")],
)  # fmt: skip
def test_reports_that_cannot_be_read(refused: Command, folder: Path, text: str, said: str) -> None:
    (folder / "report.json").write_text(text)
    assert said in refused("verify", folder, "--check").err


def test_no_folder(refused: Command, folder: Path, model: Path) -> None:
    (folder / "report.json").unlink()
    assert "out has no report.json; give a folder" in refused("verify", folder, "--check").err
    none = folder / "none"
    wanted = f"{none} does not exist; give a folder that `ssdlite-caffe convert` wrote\n"
    assert refused("verify", none, "--check").err.endswith(wanted)
    assert "is a file, not a folder" in refused("verify", model, "--check").err


@pytest.mark.parametrize(
    "more",
    [("--record",), ("--images", "a.png"), ("--limit", 8), ("--quick",), ("--html", "a.html"), ("--dump", "a"),
     ("--tolerance", 0.1), ("--all-layers",), ("--force",)],
)  # fmt: skip
def test_options_that_a_check_does_not_have(command: Command, folder: Path, more: tuple[object, ...]) -> None:
    result = command("verify", folder, "--check", *more)
    assert result.status == 2
    assert f"{more[0]} does not apply to --check" in " ".join(result.err.replace("│", " ").split())


def test_paths_that_are_missing_or_too_many(command: Command, folder: Path, model: Path) -> None:
    assert "MODEL is missing" in " ".join(command("verify", folder).err.replace("│", " ").split())
    for path in (model, model.parent):
        alone = command("verify", path, "--record")
        assert alone.status == 2
        said = "".join(alone.err.replace("│", " ").split())
        assert f"FOLDERismissing,intowhich{path}wasconverted;giveMODELFOLDER" in said
    assert command("verify", model, model, folder, "--check").status == 2
    assert command("verify", "--check").status == 2
    assert f"type: ssdlite-caffe verify {model} {folder}" in command("verify", folder, model, "--check").err


def test_it_takes_a_moment_and_no_library(folder: Path) -> None:
    """The processor's time, which a busy machine does not change; TensorFlow alone takes seconds."""
    code = (
        "import sys, time; sys.argv = ['x', 'verify', sys.argv[1], '--check']\n"
        "from ssdlite_caffe import cli\n"
        "try: cli.main()\n"
        "except SystemExit as end:\n"
        "  wrong = {'tensorflow', 'cv2', 'google.protobuf', 'numpy'} & set(sys.modules)\n"
        "  print(end.code, sorted(wrong), time.process_time() < 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 [] True"


def test_a_record_is_what_it_was(folder: Path, model: Path) -> None:
    said = record_of(folder, model)
    assert ProofRecord.from_dict(said, "x").to_dict() == said
    with pytest.raises(PrototxtError, match=re.escape("x must be an object, got []")):
        ProofRecord.from_dict([], "x")
    assert time.strptime(said["date"], "%Y-%m-%dT%H:%M:%SZ")


def test_folders_that_are_made_of_it_have_no_proof(
    command: Command, example_folder: Path, example_model: Path, tmp_path: Path
) -> None:
    folder, classes = Path(shutil.copytree(example_folder, tmp_path / "real")), tmp_path / "two.txt"
    write(folder, {"opencv": record_of(folder, example_model)})
    classes.write_text("a: class_1\nb: class_2\n")
    made = {
        "remapped": ("remap", folder, "--map", classes, "-o"),
        "merged": ("merge-bn", folder, "-o"),
    }
    for name, arguments in made.items():
        result = command(*arguments, tmp_path / name)
        assert result.status == 0, result.err
        assert PROOF_DROPPED in result.out + result.err
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert "proofs" not in report
        assert report["notes"].count(PROOF_DROPPED) == 1
    again = command("merge-bn", tmp_path / "merged", "-o", tmp_path / "again")
    assert PROOF_DROPPED not in again.out + again.err
