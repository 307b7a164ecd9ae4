"""Hostile checkpoints and SavedModels of TensorFlow 2: little memory and time is taken, no other file is read."""

from __future__ import annotations

import builtins
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import tf2_attacks as attack

Harmless = Callable[[Path], str]


@pytest.fixture(autouse=True)
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read with TensorFlow is not read here."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.fixture(autouse=True)
def no_other_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of the system's that is opened is an error at once."""
    opened = builtins.open

    def watched(file: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(file, (str, Path)):
            assert "passwd" not in str(file), f"{file} was opened"
        return opened(file, *arguments, **named)

    monkeypatch.setattr(builtins, "open", watched)
    monkeypatch.setattr(io, "open", watched)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"offset": attack.HUGE}, f"{attack.SHARD} is cut short"),
        ({"offset": -4}, "its place is not in the data files"),
        ({"shard_id": 7}, "its place is not in the data files"),
        ({"shard_id": -1}, "its place is not in the data files"),
        ({"size": -1}, "its place is not in the data files"),
        ({"size": attack.HUGE}, "its values have 4611686018427387904 bytes together, the data files 64"),
        ({"size": 65}, "its values have 65 bytes together, the data files 64"),
    ],
)
def test_values_that_are_not_there(place: dict[str, int], message: str, harmless: Harmless, tmp_path: Path) -> None:
    assert message in harmless(attack.value_at(tmp_path, **place))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_shards": 3}, "is for 3 little-endian data files, there are 1"),
        ({"num_shards": (1 << 31) - 1}, "is for 2147483647 little-endian data files, there are 1"),
        ({"endianness": 1}, "is of a big-endian machine, which is not read"),
    ],
)
def test_headers(fields: dict[str, int], message: str, harmless: Harmless, tmp_path: Path) -> None:
    assert message in harmless(attack.header_of(tmp_path, **fields))


@pytest.mark.parametrize(("offset", "size"), [(0, attack.HUGE), (attack.HUGE, 0), (120, 8), ((1 << 64) - 1, 8)])
def test_footers(offset: int, size: int, harmless: Harmless, tmp_path: Path) -> None:
    message = harmless(attack.footer_that_points_elsewhere(tmp_path, offset, size))
    assert "a block lies behind its end" in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (attack.number_without_end, "a number in it has no end"),
        (attack.compressed_block, "its blocks are compressed"),
        (attack.one_block_named_many_times, "its blocks lie over each other"),
        (attack.keys_that_grow, "a key has 4097 bytes, more than 4096"),
        (attack.long_keys, "it has more than 65536 keys, or 16777216 bytes of them"),
        (attack.block_of_endless_restarts, "a block is too short"),
        (attack.values_that_lie_over_each_other, "its values have 5242880000 bytes together, the data files 1048576"),
        (attack.pyramid_of_thousands_of_maps, "has a feature pyramid of 2000 maps; 16 are the most that are read"),
        (attack.two_variables_of_one_name, "holds two variables named Conv1/kernel: a and b"),
        (attack.object_graph_longer_than_its_text, "its length is another one"),
        (attack.shards_without_number, "is not complete: ckpt-1.data-00001-of-99999"),
    ],
)
def test_checkpoints(make: Callable[[Path], Path], message: str, harmless: Harmless, tmp_path: Path) -> None:
    assert message in harmless(make(tmp_path))


@pytest.mark.parametrize(
    "name", ["../../../../etc/passwd", "/etc/passwd", "..\\\\..\\\\etc\\\\passwd", "\\057etc\\057passwd"]
)
def test_lists_that_name_another_folder(name: str, harmless: Harmless, tmp_path: Path) -> None:
    message = harmless(attack.list_that_names_another_folder(tmp_path, name))
    assert "FILE names the checkpoint passwd, which is not in the folder; it holds ckpt-1" in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (attack.messages_in_each_other, "is not a complete SavedModel"),
        (attack.groups_in_each_other, "is not a complete SavedModel"),
        (attack.field_beyond_the_end, "is not a complete SavedModel"),
        (attack.function_that_calls_itself, "calls more than 16 functions in each other"),
        (attack.variable_of_another_path, "has no value of the variable ../../../../etc/passwd"),
    ],
)
def test_saved_models(make: Callable[[Path], Path], message: str, harmless: Harmless, tmp_path: Path) -> None:
    assert message in harmless(make(tmp_path))


@pytest.mark.parametrize(
    ("sizes", "count", "message"),
    [
        ((1, 1, 1 << 40, 1), 1, "repeats one value 1099511627775 times"),
        ((1, 1, 1 << 14, 1 << 14), 1, "repeats one value 268435455 times; at most 4194304"),
        ((1, 1, 1 << 10, 1 << 10), 500, "repeats one value 1048575 times; at most 4194304"),
        ((1, 1, 1 << 31, 1 << 33), 1, "repeats one value 18446744073709551615 times"),
        ((1, 1, -1, 4), 1, "has an unknown shape"),
    ],
)
def test_constants_of_a_shape_alone(
    sizes: tuple[int, ...], count: int, message: str, harmless: Harmless, tmp_path: Path
) -> None:
    assert message in harmless(attack.constants_that_repeat_one_value(tmp_path, sizes, count))
