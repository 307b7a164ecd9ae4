"""Hostile files of PyTorch's kinds: one function makes one file, which test_torch_files.py shows to do no harm."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tests.torch_files import (
    Raw,
    call,
    legacy_file,
    named,
    new,
    pickled,
    tensor,
    value,
    zip_file,
)

MARKER = "was_here"
"""What code that runs would write into the current folder."""
_SHELL = f"touch {MARKER}"
_PYTHON = f"open({MARKER!r}, 'w')"


def calls_a_function(path: Path, module: str, name: str, argument: object) -> Path:
    """A pickle that calls a function when it is loaded."""
    return zip_file(path, {"model": call(named(module, name), argument)}, {})


def calls_os_system(path: Path) -> Path:
    return calls_a_function(path, "os", "system", _SHELL)


def calls_posix_system_in_a_legacy_file(path: Path) -> Path:
    return legacy_file(path, call(named("posix", "system"), _SHELL), {})


def calls_eval(path: Path) -> Path:
    return calls_a_function(path, "builtins", "eval", _PYTHON)


def calls_exec_by_its_old_name(path: Path) -> Path:
    return calls_a_function(path, "__builtin__", "exec", _PYTHON)


def calls_torch_hub(path: Path) -> Path:
    """A function of the library itself that runs code of a repository."""
    return calls_a_function(path, "torch.hub", "load", "owner/repository")


def calls_by_stack_global(path: Path) -> Path:
    """Protocol 4 names functions by two texts."""
    text = value("os") + value("system") + b"\x93" + value((_SHELL,)) + b"R."
    return zip_file(path, b"\x80\x04" + text, {})


def calls_by_instruction_inst(path: Path) -> Path:
    """Protocol 0 calls in one instruction."""
    return zip_file(path, b"(" + value(_SHELL) + b"ios\nsystem\n.", {})


def calls_by_instruction_obj(path: Path) -> Path:
    return zip_file(path, b"(cos\nsystem\n" + value(_SHELL) + b"o.", {})


def makes_an_object(path: Path) -> Path:
    """An object of a class whose making runs a program."""
    made = Raw(named("subprocess", "Popen") + value((["touch", MARKER],)) + b"\x81")
    return zip_file(path, {"model": made}, {})


def sets_a_state_of_a_function(path: Path) -> Path:
    return zip_file(path, Raw(named("os", "environ") + value({"PATH": "."}) + b"b"), {})


def names_an_extension(path: Path) -> Path:
    """A number in place of a name, from a table of the process."""
    return zip_file(path, b"\x80\x02\x82\x01.", {})


def asks_for_another_file(path: Path) -> Path:
    """A storage that is no storage, but a path."""
    return zip_file(path, {"a": Raw(value("/etc/passwd") + b"Q")}, {})


def holds_a_huge_memo(path: Path) -> Path:
    """A place in the memo for which a table of 2**32 entries would be made."""
    return zip_file(path, b"\x80\x02Nr\xff\xff\xff\xff.", {})


def has_a_text_longer_than_the_file(path: Path) -> Path:
    return zip_file(path, b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc.", {})


def has_a_number_of_too_many_digits(path: Path) -> Path:
    return zip_file(path, b"L" + b"9" * 200_000 + b"L\n.", {})


def has_endless_operations(path: Path) -> Path:
    return zip_file(path, b"\x80\x02" + b"}0" * 300_000 + b"N.", {})


def has_a_key_whose_hash_takes_for_ever(path: Path) -> Path:
    """A tuple of two of a tuple of two ...: sixty of them have 2**60 parts."""
    return zip_file(path, b"\x80\x02}" + b"N" + b"2\x86" * 60 + b"Ns.", {})


def holds_itself(path: Path) -> Path:
    """A dict that is its own state_dict."""
    return zip_file(path, b"\x80\x02}q\x00" + value("state_dict") + b"h\x00s.", {})


def legacy_file_that_holds_itself(path: Path) -> Path:
    return legacy_file(path, Raw(b"]q\x00h\x00a"), {})


def is_cut_short(path: Path, weights: bytes, size: int) -> Path:
    path.write_bytes(weights[:size])
    return path


def zip_bomb(path: Path) -> Path:
    """A storage of 256 MiB in a quarter of a MiB."""
    content = {"a": tensor("0", "f4", 1 << 26, (1 << 26,))}
    return zip_file(path, content, {"0": bytes(1 << 28)}, compression=zipfile.ZIP_DEFLATED)


def compressed_pickle(path: Path) -> Path:
    return zip_file(path, b"\x80\x02" + b"}0" * (1 << 24) + b".", {}, compression=zipfile.ZIP_DEFLATED)


def members_that_lie_over_each_other(path: Path) -> Path:
    """Two names for the same bytes, as bombs have that unpack to more than all compression would."""
    zip_file(path, {"a": tensor("0", "f4", 4, (4,))}, {"0": bytes(16), "1": bytes(16)})
    with zipfile.ZipFile(path) as archive:
        first, second = (archive.getinfo(f"weights/data/{i}").header_offset for i in (0, 1))
    data = path.read_bytes()
    at = data.rindex(struct.pack("<L", second), 0, data.rindex(b"PK\x05\x06"))
    path.write_bytes(data[:at] + struct.pack("<L", first) + data[at + 4 :])
    return path


def member_beyond_the_end(path: Path) -> Path:
    """Sizes in the directory that reach beyond the file."""
    zip_file(path, {"a": tensor("0", "f4", 4, (4,))}, {"0": bytes(16)})
    data = path.read_bytes()
    at = data.rindex(b"weights/data/0") - 46 + 20
    path.write_bytes(data[:at] + struct.pack("<LL", 1 << 30, 1 << 30) + data[at + 8 :])
    return path


def name_that_leads_elsewhere(path: Path, name: str) -> Path:
    return zip_file(path, {}, {}, more={name: b"x"})


def two_pickles(path: Path) -> Path:
    return zip_file(path, {}, {}, more={"other/data.pkl": pickled({})})


def damaged_member(path: Path) -> Path:
    """A byte of the pickle that is another one than its checksum says."""
    zip_file(path, {"alpha": 1}, {})
    path.write_bytes(path.read_bytes().replace(b"alpha", b"beta!", 1))
    return path


def torch_script(path: Path) -> Path:
    """A program of torch.jit.save, whose code is in the file."""
    return zip_file(path, {}, {}, more={"weights/constants.pkl": pickled(()), "weights/code/net.py": b"def f(): ..."})


def whole_module(path: Path) -> Path:
    state = {"_modules": call(named("collections", "OrderedDict")), "training": False}
    return zip_file(path, new(named("torchvision.models.detection.ssd", "SSD"), state), {})


def whole_module_in_a_checkpoint(path: Path) -> Path:
    return zip_file(path, {"epoch": 3, "model": new(named("ultralytics.nn.tasks", "DetectionModel"), {})}, {})


def tensors_that_are_all_the_same(path: Path, names: Iterable[str], numbers: int) -> Path:
    """One storage that is each of hundreds of tensors: they would take hundreds of times the file."""
    return zip_file(path, {name: tensor("0", "f4", numbers, (numbers,)) for name in names}, {"0": bytes(4 * numbers)})


def tensor_with(path: Path, name: str, weights: dict[str, Raw], storages: dict[str, bytes], replaced: Raw) -> Path:
    """A model in which one tensor is another one."""
    return zip_file(path, {**weights, name: replaced}, storages)


def legacy_storage_beyond_the_end(path: Path, numbers: int) -> Path:
    legacy_file(path, {"a": tensor("0", "f4", 4, (4,)), "b": tensor("0", "f4", 4, (4,))}, {"0": bytes(16)})
    data = path.read_bytes()
    path.write_bytes(data[:-24] + struct.pack("<q", numbers) + data[-16:])
    return path


def safetensors_file(path: Path, header: object, data: bytes, length: int | None = None) -> Path:
    """A file with any header; `length`: what it says its header's length is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    """A tensor in such a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
