"""Outputs of devices: forms of files, names, orders, dtypes, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.errors import DeviceError
from ssdlite_caffe.tools.device_outputs import DeviceOutputs, read_outputs
from ssdlite_caffe.tools.output_format import OutputFormat, parse_format, parse_formats

SHAPES = {
    "mbox_loc": (1, 8),
    "mbox_conf": (1, 6),
    "conv_3/expand": (1, 2, 3, 4),
    "detection_out": (-1, 7),
    "square": (1, 3, 3, 3),
}
ORDER = ("mbox_loc", "mbox_conf")
LOC = np.linspace(-3, 4, 8, dtype=np.float32)
CONF = np.linspace(-1, 1, 6, dtype=np.float32)
MAP = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)


def read(path: Path, *formats: str) -> DeviceOutputs:
    return read_outputs(path, SHAPES, ORDER, [parse_format(one) for one in formats])


def same(found: DeviceOutputs, name: str, wanted: np.ndarray) -> None:
    assert found.values[name].shape == SHAPES[name]
    np.testing.assert_array_equal(found.values[name].reshape(-1), wanted.astype(np.float64).reshape(-1))


def test_forms(tmp_path: Path) -> None:
    np.save(tmp_path / "mbox_loc.npy", LOC)
    (tmp_path / "mbox_conf.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(repr(float(v)) for v in CONF).encode())
    (tmp_path / "conv_3").mkdir()
    (tmp_path / "conv_3" / "expand.bin").write_bytes(MAP.astype("<f4").tobytes())
    (tmp_path / "log.json").write_text("{}")
    found = read(tmp_path)
    same(found, "mbox_loc", LOC)
    same(found, "mbox_conf", CONF)
    same(found, "conv_3/expand", MAP)
    assert found.notes == ("skipped, not outputs by their suffix: log.json",)
    np.savez_compressed(tmp_path / "all.npz", **{"mbox_loc": LOC[None], "conv_3/expand": MAP})
    packed = read(tmp_path / "all.npz")
    same(packed, "mbox_loc", LOC)
    same(packed, "conv_3/expand", MAP)
    same(read(tmp_path / "mbox_loc.npy"), "mbox_loc", LOC)


@pytest.mark.parametrize("name", ["conv_3_expand", "CONV_3-expand", "conv_3%2Fexpand", "conv_3.expand"])
def test_names_are_alike(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / f"{name}.npy", MAP)
    if name == "conv_3%2Fexpand":
        with pytest.raises(DeviceError, match=r"conv_3%2Fexpand\.npy has the shape"):  # by order it is no mbox_loc
            read(tmp_path)
        same(read(tmp_path, "conv_3/expand:file=conv_3%2Fexpand.npy"), "conv_3/expand", MAP)
    else:
        same(read(tmp_path), "conv_3/expand", MAP)


def test_by_order(tmp_path: Path) -> None:
    """Of numbers, 2 comes before 10."""
    for number, values in ((2, LOC), (10, CONF)):
        values.astype("<f4").tofile(tmp_path / f"out{number}.bin")
    found = read(tmp_path)
    same(found, "mbox_loc", LOC)
    same(found, "mbox_conf", CONF)
    assert found.notes == ("by order, since no file is named as a blob: out2 is mbox_loc, out10 is mbox_conf",)
    np.savez(tmp_path / "x.npz", LOC, CONF)
    same(read(tmp_path / "x.npz"), "mbox_conf", CONF)


def test_some_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", mbox_conf=CONF, other=LOC)
    found = read(tmp_path / "x.npz")
    assert set(found.values) == {"mbox_conf"}
    assert found.notes == ("skipped, not named as a blob of the net: other.npy",)
    same(read(tmp_path / "x.npz", "mbox_loc:file=other"), "mbox_loc", LOC)


def test_dtypes(tmp_path: Path) -> None:
    stored = np.arange(-4, 4, dtype=np.int8)
    stored.tofile(tmp_path / "mbox_loc.bin")
    same(read(tmp_path, "mbox_loc:dtype=int8,scale=0.5,zero=-3"), "mbox_loc", 0.5 * (stored.astype(float) + 3))
    np.save(tmp_path / "mbox_conf.npy", np.arange(250, 256, dtype=np.uint8))
    found = read(tmp_path, "mbox_loc:dtype=int8,scale=1", "mbox_conf:scale=0.25,zero=128")
    same(found, "mbox_conf", 0.25 * (np.arange(250, 256) - 128.0))
    LOC.astype("<f2").tofile(tmp_path / "mbox_loc.bin")
    (tmp_path / "mbox_conf.npy").unlink()
    half = read(tmp_path)
    same(half, "mbox_loc", LOC.astype(np.float16))
    assert "taken as float16 by its size" in half.notes[0]
    (LOC.view("<u4") >> 16).astype("<u2").tofile(tmp_path / "mbox_loc.bin")
    wanted = (LOC.view("<u4") & 0xFFFF0000).view("<f4")
    same(read(tmp_path, "mbox_loc:dtype=bfloat16"), "mbox_loc", wanted)
    np.save(tmp_path / "mbox_loc.npy", LOC.astype(">f8"))
    (tmp_path / "mbox_loc.bin").unlink()
    same(read(tmp_path), "mbox_loc", LOC)


def test_layouts(tmp_path: Path) -> None:
    np.save(tmp_path / "conv_3_expand.npy", MAP.transpose(0, 2, 3, 1))
    found = read(tmp_path)
    same(found, "conv_3/expand", MAP)
    assert "taken as N, H, W, C by its shape 1x3x4x2" in found.notes[0]
    square = np.arange(27.0).reshape(1, 3, 3, 3)
    np.save(tmp_path / "square.npy", square.transpose(0, 2, 3, 1))
    same(read(tmp_path), "square", square.transpose(0, 2, 3, 1))
    same(read(tmp_path, "square:layout=nhwc"), "square", square)
    np.save(tmp_path / "square.npy", np.asfortranarray(square))
    same(read(tmp_path), "square", square)


def test_rows_of_any_number(tmp_path: Path) -> None:
    rows = np.arange(21, dtype=np.float32).reshape(1, 1, 3, 7)
    for save in (np.save, lambda path, values: values.tofile(path.with_suffix(".bin"))):
        save(tmp_path / "detection_out.npy", rows)
        np.testing.assert_array_equal(read(tmp_path).values["detection_out"], rows[0, 0])
        for file in tmp_path.iterdir():
            file.unlink()
    np.save(tmp_path / "detection_out.npy", np.zeros((0, 7), np.float32))
    assert read(tmp_path).values["detection_out"].shape == (0, 7)
    np.save(tmp_path / "detection_out.npy", rows.reshape(-1)[:20])
    with pytest.raises(DeviceError, match="has 20 values; detection_out has rows of 7"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "formats", "said"),
    [
        ("mbox_loc.npy", b"", (), "has 0 bytes, mbox_loc has 8 values"),
        ("mbox_loc.npy", b"\x93NUMPY", (), "cannot read .*mbox_loc.npy as .npy"),
        ("mbox_loc.npy", b"\x93NUMPY\x03\x00", (), "version 3.0 of the .npy format is not read"),
        ("mbox_loc.bin", b"x" * 7, (), "has 7 bytes, mbox_loc has 8 values; say what they are"),
        ("mbox_loc.bin", b"x" * 8, (), "say what they are, as in --output mbox_loc:dtype=int8"),
        (
            "mbox_loc.bin",
            b"x" * 8,
            ("mbox_loc:dtype=float32",),
            "mbox_loc has 8 values, of float32 32 bytes",
        ),
        ("mbox_loc.bin", b"x" * 8, ("mbox_loc:dtype=int8",), "has int8 values; give their scale"),
        ("mbox_loc.txt", b"1 2 3", (), "has 3 values; mbox_loc has 8"),
        ("mbox_loc.txt", b"1 2 x", (), "is not a text of numbers: .*'x'"),
        ("mbox_loc.txt", b"\xff\xff", (), "is not a text of numbers"),
        ("mbox_loc.bin", b"x" * 100_000, (), "more than mbox_loc \\(1x8\\) can need"),
        ("all.npz", b"PK", (), "cannot read .* as .npz"),
    ],
)
def test_refused(name: str, content: bytes, formats: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeviceError, match=said):
        read(tmp_path / name if name.endswith("npz") else tmp_path, *formats)


def test_other_things_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="does not exist"):
        read(tmp_path / "nix")
    with pytest.raises(DeviceError, match="has no file that ends in"):
        read(tmp_path)
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", LOC)
    with pytest.raises(DeviceError, match="no name is a blob's, and the net has 2 outputs"):
        read(tmp_path)
    with pytest.raises(DeviceError, match=r"has no 'd'; it has a\.npy, b\.npy, c\.npy"):
        read(tmp_path, "mbox_loc:file=d")
    with pytest.raises(DeviceError, match="the net has no blob of this name"):
        read(tmp_path, "nix:dtype=int8")
    np.save(tmp_path / "mbox_loc.npy", LOC)
    np.save(tmp_path / "mbox-loc.npy", LOC)
    with pytest.raises(DeviceError, match="are both mbox_loc"):
        read(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("note.txt", "x")
    with pytest.raises(DeviceError, match=r"has 'note\.txt', which is no array"):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a:scale=2", OutputFormat("a", scale=2.0)),
        ("conv_3/expand:0:dtype=int8, scale=1e-3, zero=-128", OutputFormat("conv_3/expand:0", "", "int8", 0.001, -128)),
        ("a:file=out 0.bin,layout=nhwc", OutputFormat("a", "out 0.bin", layout="nhwc")),
    ],
)
def test_formats(text: str, wanted: OutputFormat) -> None:
    assert parse_format(text) == wanted


def test_lists_of_formats(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbfa:scale=2\r\n\r\n# note\r\n b:scale=3 \r\n")
    found = parse_formats([f"@{file}", "c:dtype=float16"])
    assert found == [OutputFormat("a", scale=2.0), OutputFormat("b", scale=3.0), OutputFormat("c", dtype="float16")]
    for texts, said in (
        (["a:scale=2", f"@{file}"], "a is given twice"),
        ([f"@{tmp_path}"], "cannot read"),
        (["@nix"], "cannot read nix: No such file"),
    ):
        with pytest.raises(DeviceError, match=said):
            parse_formats(texts)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DeviceError, match="is not UTF-8 text"):
        parse_formats([f"@{file}"])


@pytest.mark.parametrize(
    "text",
    ["", "a", "a:", "a=1", ":dtype=int8", "a:dtype=int4", "a:scale=0", "a:scale=x", "a:scale=nan", "a:zero=1", "a:b=1",
     "a:scale=1,scale=2", "a:layout=chw", "a:scale=1,"],
)  # fmt: skip
def test_formats_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="--output"):
        parse_format(text)
