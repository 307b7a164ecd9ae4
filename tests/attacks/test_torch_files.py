"""Hostile .pth and .safetensors files: no code runs, nothing is unpacked, little memory is taken, one line says why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.dump.torch.state_dict import read_state_dict
from tests.attacks import torch_attacks as attack
from tests.torch_files import Raw, random_weights, tensor, tensors_of, write_state_dict, zip_file

Harmless = Callable[[Path], str]
STEM = "backbone.features.0.0.0.weight"


@pytest.fixture(autouse=True)
def no_program_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that starts is an error at once, not only if it writes the file."""

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"a program was started: {arguments}")

    monkeypatch.setattr(os, "system", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_that_the_attack_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own unpickler does what the first file asks for."""
    import pickle
    import zipfile

    started: list[str] = []
    monkeypatch.setattr(os, "system", started.append)
    with zipfile.ZipFile(attack.calls_os_system(tmp_path / "a.pth")) as archive:
        pickle.loads(archive.read("weights/data.pkl"))
    assert started == [f"touch {attack.MARKER}"]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (attack.calls_os_system, "os.system"),
        (attack.calls_posix_system_in_a_legacy_file, "posix.system"),
        (attack.calls_eval, "builtins.eval"),
        (attack.calls_exec_by_its_old_name, "builtins.exec"),
        (attack.calls_torch_hub, "torch.hub.load"),
        (attack.calls_by_stack_global, "os.system"),
    ],
)
def test_calls(make: Callable[[Path], Path], name: str, harmless: Harmless, tmp_path: Path) -> None:
    assert f"FILE has a pickle that calls {name}, which no weights need; it was not called" in harmless(
        make(tmp_path / "weights.pth")
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (attack.calls_by_instruction_inst, "with the instruction INST, which no weights need"),
        (attack.calls_by_instruction_obj, "with the instruction OBJ, which no weights need"),
        (attack.makes_an_object, "holds a whole pickled module under 'model', subprocess.Popen"),
        (attack.sets_a_state_of_a_function, "has a damaged pickle: TypeError: a state is set in what is no object"),
        (attack.names_an_extension, "with the instruction EXT1, which no weights need"),
        (attack.asks_for_another_file, "a storage is not written as torch.save writes it"),
        (attack.holds_a_huge_memo, "holds a NoneType, not a state_dict"),
        (attack.has_a_text_longer_than_the_file, "FILE has a damaged pickle"),
        (attack.has_a_number_of_too_many_digits, "FILE has a damaged pickle"),
        (attack.has_endless_operations, "has a pickle of more than 500000 operations"),
        (attack.has_a_key_whose_hash_takes_for_ever, "holds no tensors by name"),
        (attack.holds_itself, "holds no tensors by name, but 'state_dict'"),
        (attack.legacy_file_that_holds_itself, "holds a list, not a state_dict"),
        (attack.zip_bomb, "has a compressed or encrypted member, 'weights/data.pkl'"),
        (attack.compressed_pickle, "has a compressed or encrypted member"),
        (attack.members_that_lie_over_each_other, "has members that lie over each other"),
        (attack.member_beyond_the_end, "FILE is cut short or damaged"),
        (attack.two_pickles, "it has 2 data.pkl"),
        (attack.damaged_member, "the checksum of 'weights/data.pkl' is another one"),
        (attack.torch_script, "is a TorchScript program"),
        (attack.whole_module, "holds a whole pickled module, torchvision.models.detection.ssd.SSD"),
        (attack.whole_module_in_a_checkpoint, "under 'model', ultralytics.nn.tasks.DetectionModel"),
    ],
)
def test_files(make: Callable[[Path], Path], message: str, harmless: Harmless, tmp_path: Path) -> None:
    assert message in harmless(make(tmp_path / "weights.pth"))


def test_what_a_user_with_a_whole_module_should_do(harmless: Harmless, tmp_path: Path) -> None:
    assert "torch.save(model.state_dict(), 'weights.pth')" in harmless(attack.whole_module(tmp_path / "weights.pth"))


@pytest.mark.parametrize("name", ["../evil", "weights/../../evil", "/etc/evil", "C:/evil", "..\\evil"])
def test_names_that_lead_elsewhere(name: str, harmless: Harmless, tmp_path: Path) -> None:
    message = harmless(attack.name_that_leads_elsewhere(tmp_path / "weights.pth", name))
    assert "a member whose name leads out of it" in message
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_files_cut_short(share: float, harmless: Harmless, tmp_path: Path) -> None:
    whole = write_state_dict(tmp_path / "whole.pth", {"a": np.ones(5000, np.float32), "b": np.ones(5, np.float32)})
    data = whole.read_bytes()
    whole.unlink()
    assert "FILE is cut short or damaged" in harmless(
        attack.is_cut_short(tmp_path / "weights.pth", data, int(len(data) * share))
    )


class TestTensors:
    """A tensor that is not within its storage, or a storage that is not within the file."""

    @pytest.fixture(scope="class")
    @staticmethod
    def model() -> tuple[dict[str, Raw], dict[str, bytes]]:
        return tensors_of(random_weights(3))

    @pytest.mark.parametrize(
        ("replaced", "message"),
        [
            (tensor("0", "f4", 432, (16, 3, 3, 3), offset=1), "reaches beyond its storage: to number 432 of 432"),
            (tensor("0", "f4", 432, (16, 3, 3, 3), (27, 9, 3, 1), 1 << 40), "reaches beyond its storage"),
            (tensor("0", "f4", 432, (16, 3, 3, 3), (1 << 40, 9, 3, 1)), "reaches beyond its storage"),
            (tensor("0", "f4", 432, (1 << 40, 3, 3, 3), (0, 0, 0, 0)), "has more values than its storage"),
            (tensor("0", "f4", 1 << 46, (1 << 40, 3), (3, 1)), "has a storage of 1728 bytes"),
            (tensor("0", "f4", 433, (16, 3, 3, 3)), "has a storage of 1728 bytes, 433 numbers need 1732"),
            (tensor("0", "f4", 432, (16, 3, 3, 3), (27, 9, 3, -1)), "offset, shape or strides are not possible"),
            (tensor("0", "f4", 432, (1 << 60,), (0,)), "offset, shape or strides are not possible"),
            (tensor("none", "f4", 432, (16, 3, 3, 3)), "is not complete: it has no 'weights/data/none'"),
            (tensor("../data.pkl", "f4", 432, (16, 3, 3, 3)), "is not complete: it has no"),
        ],
    )
    def test_are_refused(
        self, model: tuple[dict[str, Raw], dict[str, bytes]], replaced: Raw, message: str, harmless: Harmless,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        assert message in harmless(attack.tensor_with(tmp_path / "weights.pth", STEM, *model, replaced))

    def test_of_one_storage_are_read_each_for_itself(self, tmp_path: Path) -> None:
        """Tensors may lie over each other; they are read and never written."""
        numbers = np.arange(6, dtype=np.float32)
        content = {
            "whole": tensor("0", "f4", 6, (2, 3)),
            "end": tensor("0", "f4", 6, (2,), offset=4),
            "turned": tensor("0", "f4", 6, (3, 2), (1, 3)),
        }
        found = read_state_dict(zip_file(tmp_path / "a.pth", content, {"0": numbers.tobytes()})).tensors
        assert found["whole"].as_float32().tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found["end"].as_float32().tolist() == [4, 5]
        assert found["turned"].as_float32().tolist() == [[0, 3], [1, 4], [2, 5]]


def test_tensors_that_are_all_the_same(harmless: Harmless, tmp_path: Path) -> None:
    path = attack.tensors_that_are_all_the_same(tmp_path / "weights.pth", random_weights(3), 1 << 20)
    assert "the tensors of FILE have 1702887424 bytes together, more than the file" in harmless(path)


@pytest.mark.parametrize("numbers", [5, 1 << 61, -1])
def test_legacy_storages_beyond_the_end(numbers: int, harmless: Harmless, tmp_path: Path) -> None:
    assert "FILE is cut short or damaged: the storage '0'" in harmless(
        attack.legacy_storage_beyond_the_end(tmp_path / "weights.pth", numbers)
    )


class TestSafetensors:
    """Headers that say more than there is."""

    @pytest.fixture(autouse=True)
    @staticmethod
    def library() -> None:
        pytest.importorskip("safetensors")

    @pytest.mark.parametrize("length", [100, 1 << 30, (1 << 64) - 1])
    def test_header_beyond_the_end(self, length: int, harmless: Harmless, tmp_path: Path) -> None:
        header = {"a": attack.entry([1], 0, 4)}
        path = attack.safetensors_file(tmp_path / "weights.safetensors", header, bytes(4), length)
        assert "FILE is cut short or damaged, or is no .safetensors file" in harmless(path)

    @pytest.mark.parametrize(
        ("header", "data"),
        [
            ({"a": attack.entry([1 << 40], 0, 1 << 42)}, bytes(4)),
            ({"a": attack.entry([1 << 40, 1 << 40], 0, 4)}, bytes(4)),
            ({"a": attack.entry([1], 4, 0)}, bytes(4)),
            ({"a": attack.entry([1], 0, 4), "b": attack.entry([2], 0, 8)}, bytes(8)),
            ({"a": attack.entry([1], 0, 4), "b": attack.entry([1], 8, 12)}, bytes(12)),
            ({"a": attack.entry([1], -4, 0)}, bytes(4)),
            (b'{"a":' * 100_000, b""),
        ],
    )
    def test_tensors_that_are_not_there(self, header: object, data: bytes, harmless: Harmless, tmp_path: Path) -> None:
        path = attack.safetensors_file(tmp_path / "weights.safetensors", header, data)
        assert "FILE is cut short or damaged, or is no .safetensors file" in harmless(path)
