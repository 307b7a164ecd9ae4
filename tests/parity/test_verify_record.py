"""`verify --record`: what report.json says afterwards, of equal and other nets; nothing else of it changes."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ssdlite_caffe import check_proof, verify
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.files import file_sha256
from ssdlite_caffe.tools import proof_write
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.proof_record import FILES
from tests.commands import Command, tree

pytestmark = [pytest.mark.tensorflow, pytest.mark.opencv, pytest.mark.slow, pytest.mark.xdist_group("verify")]


@pytest.fixture
def folder(example_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(example_folder, tmp_path / "out"))


def report_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


def test_an_equal_net(command: Command, example_model: Path, folder: Path) -> None:
    before, files = report_of(folder), tree(folder)
    image = example_model.parent / "shapes.png"
    started = datetime.now(timezone.utc).replace(microsecond=0)
    done = command("verify", example_model, folder, "--record", "--images", image)
    assert done.status == 0
    assert done.out.startswith("equal on 1 image\n")
    assert done.err == f"ssdlite-caffe: the result with opencv is recorded in {folder / 'report.json'}\n"
    after = report_of(folder)
    proofs = after.pop("proofs")
    assert after == before, "other fields are as they were"
    assert {**tree(folder), "report.json": b""} == {**files, "report.json": b""}
    assert list(proofs) == ["opencv"]
    said = proofs["opencv"]
    assert (said["verdict"], said["equal"], said["unproved"], said["drawn"]) == ("equal on 1 image", True, "", False)
    assert said["source"] == {
        "name": example_model.name, "form": "frozen graph", "sha256": file_sha256(example_model),
    }  # fmt: skip
    assert said["files"] == {name: file_sha256(folder / name) for name in FILES if (folder / name).is_file()}
    assert said["images"] == [{"name": "shapes.png", "sha256": file_sha256(image)}]
    assert started <= datetime.strptime(said["date"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert 0 < said["float64"]["share"] <= 1
    assert 0 < said["rounding"]["ratio"] < 5
    assert 0 < said["figures"]["boxes"] < 1e-5
    assert 0 < said["figures"]["scores"] < 1e-5
    assert all(said["versions"].values())
    assert command("verify", example_model, folder, "--check").status == 0

    again = command("verify", example_model, folder, "--record", "--limit", 2, "--quick", "--json")
    assert f"in place of the one of {said['date'].replace('T', ' ').replace('Z', '')} UTC" in again.err
    assert json.loads(again.out)["ok"]
    second = report_of(folder)["proofs"]["opencv"]
    assert (len(second["images"]), second["drawn"], second["float64"]) == (2, True, None)
    assert second["unproved"]
    assert len({image["sha256"] for image in second["images"]}) == 2
    verify(example_model, folder, limit=1, quick=True, runtime="reference", tolerance=1e-3, record=True)
    both = report_of(folder)["proofs"]
    assert both["opencv"] == second, "another runtime's stays"
    assert (both["reference"]["tolerance"], both["reference"]["versions"]["runtime"][:6]) == (1e-3, "numpy ")
    assert check_proof(folder, example_model).ok


def test_another_net(command: Command, example_model: Path, tmp_path: Path) -> None:
    """It is recorded as such: the equal result of an earlier run must not stay."""
    from ssdlite_caffe.gen_model.dialect import Dialect

    folder = tmp_path / "out"
    convert(example_model, folder, ConvertOptions(dialect=Dialect(padding="symmetric")))
    done = command("verify", example_model, folder, "--limit", 1, "--record")
    assert done.status == 1
    assert "is recorded in" in done.err
    said = report_of(folder)["proofs"]["opencv"]
    assert not said["equal"]
    assert said["verdict"].startswith("not the same net: the first stage that differs is Conv")
    assert said["float64"]["share"] > 1000
    checked = command("verify", folder, "--check")
    assert (checked.status, checked.err) == (1, "")
    assert checked.out.startswith("opencv: unchanged, and not the same net")


def test_nothing_is_recorded_where_a_file_changes_meanwhile(
    example_model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "report.json").read_bytes()
    hashes = proof_write.file_sha256
    count = iter(range(10**6))
    monkeypatch.setattr(
        proof_write, "file_sha256", lambda path: hashlib.sha256(f"{path}{next(count)}".encode()).hexdigest()
    )
    with pytest.raises(ModelError, match="has changed while they were compared; nothing is recorded"):
        verify(example_model, folder, limit=1, quick=True, record=True)
    monkeypatch.setattr(proof_write, "file_sha256", hashes)
    assert (folder / "report.json").read_bytes() == before
