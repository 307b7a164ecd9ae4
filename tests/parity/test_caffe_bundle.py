"""A packed Caffe runs where nothing but the C library is: in a folder that is the root of its own file system."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.caffe.bundle import NAME, bundle
from ssdlite_caffe.runtimes.opencv_net import OpenCvNet

pytestmark = [pytest.mark.caffe, pytest.mark.opencv, pytest.mark.slow, pytest.mark.xdist_group("caffe")]

C_LIBRARY = ("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0",
             "libresolv.so.2", "libutil.so.1")  # fmt: skip


CHROOT = shutil.which("chroot") or ""


@pytest.mark.skipif(os.geteuid() != 0 or not CHROOT, reason="chroot is root's")
def test_in_an_empty_root(caffe_prefix: Path, example_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    packed = bundle(caffe_prefix, tmp_path / "caffe.tar.gz")
    with tarfile.open(packed.path) as tar:
        tar.extractall(root, filter="data")
    listed = subprocess.run(["ldd", caffe_prefix / "bin" / "caffe"], capture_output=True, text=True, check=True).stdout
    for word in listed.split():
        path = Path(word)
        if path.is_absolute() and path.name in C_LIBRARY:
            target = root / ("lib64" if path.name.startswith("ld-") else "lib/x86_64-linux-gnu") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path.resolve(), target)
    for name in ("headless.prototxt", "deploy.caffemodel"):
        shutil.copy(example_folder / name, root / name)
    image = np.random.default_rng(1).uniform(-1, 1, (1, 3, 320, 320)).astype(np.float32)
    np.save(root / "image.npy", image)
    command = [
        CHROOT, root, f"/{NAME}/caffe/bin/caffe", "forward", "--model=/headless.prototxt",
        "--weights=/deploy.caffemodel", "--inputs=data=/image.npy", "--outputs=mbox_loc,mbox_conf", "--out=/",
    ]  # fmt: skip
    # Where /proc is not, as in this root, the loader asks this variable where the program lies.
    there = {"LD_ORIGIN_PATH": f"/{NAME}/caffe/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=there)
    assert done.returncode == 0, done.stderr
    wanted = OpenCvNet(example_folder / "headless.prototxt", example_folder / "deploy.caffemodel").forward(
        image, ["mbox_loc", "mbox_conf"]
    )
    for name, values in wanted.items():
        found = np.load(root / f"{name}.npy", allow_pickle=False)
        assert found.size == values.size
        assert np.abs(found.ravel() - values.ravel()).max() < 1e-5 * np.abs(values).max()


def test_forward_says_what_is_wrong(caffe_prefix: Path, example_folder: Path, tmp_path: Path) -> None:
    def said(values: object, *more: str) -> str:
        path = tmp_path / "x.npy"
        if isinstance(values, bytes):
            path.write_bytes(values)
        else:
            np.save(path, values)  # type: ignore[arg-type]
        command = [
            caffe_prefix / "bin" / "caffe", "forward", f"--model={example_folder / 'headless.prototxt'}",
            f"--inputs=data={path}", f"--out={tmp_path}", *more,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        return done.stderr

    good = np.zeros((1, 3, 320, 320), np.float32)
    assert "x.npy must hold float32" in said(good.astype(np.float64))
    assert "x.npy must be in C order" in said(np.asfortranarray(np.zeros((2, 3, 4), np.float32)))
    assert "is not a .npy file" in said(b"something else, and long enough")
    np.save(tmp_path / "good.npy", good)
    whole = (tmp_path / "good.npy").read_bytes()
    assert "is cut short" in said(whole[:-4])
    assert "is too large" in said(whole.replace(b"(1, 3, 320, 320), }", b"(9999999, 9999999)}"))
    assert "has no blob named nothing" in said(good, "--outputs=nothing")
    assert not list(tmp_path.glob("*.part"))
