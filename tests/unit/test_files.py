"""Files and folders appear whole or not at all, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssdlite_caffe.errors import OutputError
from ssdlite_caffe.files import (
    held_folder,
    new_folder,
    refuse_existing,
    write_bytes,
    write_parts,
    write_text,
    write_together,
)
from tests.commands import tree

MARKER = "report.json"


def fill(folder: Path, word: str) -> None:
    """Some files as a command writes them, the marker among them."""
    (folder / "tensors").mkdir()
    (folder / "tensors" / "a.npy").write_text(f"{word} a")
    (folder / MARKER).write_text(f"{word} report")
    (folder / f"{word}.prototxt").write_text(word)
    (folder / "deploy.prototxt").write_text(f"{word} deploy")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An earlier folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    fill(folder, "old")
    return folder


class TestFile:
    def test_is_written_with_its_parents_and_usual_permissions(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "c.bin"
        umask = os.umask(0o027)
        try:
            write_parts(path, [b"one", memoryview(b"two")])
        finally:
            os.umask(umask)
        assert path.read_bytes() == b"onetwo"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert [p.name for p in path.parent.iterdir()] == ["c.bin"]

    def test_an_earlier_one_needs_force(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_text(path, "old")
        with pytest.raises(OutputError, match=r"file exists already; give another name, or --force"):
            write_text(path, "new")
        assert tree(tmp_path) == {"file": b"old"}
        write_text(path, "n\u00e9w", force=True)
        assert tree(tmp_path) == {"file": b"n\xc3\xa9w"}

    def test_a_folder_or_device_is_never_replaced(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="is a folder, not a file"):
            write_bytes(tmp_path, b"x", force=True)
        with pytest.raises(OutputError, match="/dev/null is a device, not a file"):
            write_bytes(Path("/dev/null"), b"x", force=True)
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)

    def test_a_link_stays_one(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "file").write_text("old")
        (tmp_path / "link").symlink_to("there/file")
        write_text(tmp_path / "link", "new", force=True)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_text() == "new"

    def test_text_that_is_not_utf_8_names_its_line(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError) as caught:
            write_text(tmp_path / "file", 'name: "a"\n  source: "l\udcff"\nend\n')
        assert str(caught.value) == f"cannot write {tmp_path}/file: not UTF-8 text: 'source: \"l\\udcff\"'"
        assert tree(tmp_path) == {}

    @pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
    def test_an_exception_midway_leaves_the_old_one(self, tmp_path: Path, error: type[BaseException]) -> None:
        def parts() -> Iterator[bytes]:
            yield b"new" * 100_000
            raise error

        (tmp_path / "file").write_text("old")
        with pytest.raises(error):
            write_parts(tmp_path / "file", parts(), force=True)
        with pytest.raises(error):
            write_parts(tmp_path / "made" / "for" / "it", parts())
        assert tree(tmp_path) == {"file": b"old"}

    def test_a_disk_that_refuses_the_last_step(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("old")
        fail_at(monkeypatch, "replace", 1, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(OutputError, match=r"cannot write .*file: No space left on device$"):
            write_bytes(tmp_path / "file", b"new", force=True)
        assert tree(tmp_path) == {"file": b"old"}

    def test_a_name_that_is_too_long_is_one_line(self, tmp_path: Path) -> None:
        write_bytes(tmp_path / ("x" * 255), b"as long as may be")
        with pytest.raises((OutputError, OSError), match="File name too long"):
            write_bytes(tmp_path / ("x" * 256), b"")

    def test_a_parent_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match=r"cannot write .*: .*/file is not a folder$"):
            write_bytes(tmp_path / "file" / "below", b"")
        with (
            pytest.raises(OutputError, match=r"cannot write .*: .*/file is not a folder$"),
            new_folder(tmp_path / "file" / "below" / "out", marker=MARKER),
        ):
            pass
        assert tree(tmp_path) == {"file": b"x"}


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int, error: BaseException) -> None:
    """Let the `call`th use of Path.<name> fail, once."""
    real: Callable[..., object] = getattr(Path, name)
    calls = 0

    def failing(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(Path, name, failing)


class TestFiles:
    def test_appear_together(self, tmp_path: Path) -> None:
        names, graph = tmp_path / "a" / "names", tmp_path / "a" / "graph"
        write_together({names: [b"one"], graph: [b"two", b"three"]})
        assert tree(tmp_path / "a") == {"names": b"one", "graph": b"twothree"}

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
    def test_none_goes_before_all_are_whole(self, tmp_path: Path, error: BaseException) -> None:
        def broken() -> Iterator[bytes]:
            yield b"new"
            raise error

        (tmp_path / "names").write_text("old")
        with pytest.raises((OutputError, KeyboardInterrupt)):
            write_together({tmp_path / "names": [b"new"], tmp_path / "graph": broken()}, force=True)
        assert tree(tmp_path) == {"names": b"old"}

    def test_one_cannot_be_the_other(self, tmp_path: Path) -> None:
        (tmp_path / "names").symlink_to("graph")
        with pytest.raises(OutputError, match=r"graph: it is the same file as .*names"):
            write_together({tmp_path / "names": [b"new"], tmp_path / "graph": [b"new"]}, force=True)
        assert not (tmp_path / "graph").exists()

    def test_the_one_that_fails_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(OutputError, match=r"cannot write .*names: Input"):
            write_together({tmp_path / "names": [b"new"], tmp_path / "graph": [b"new"]})
        assert tree(tmp_path) == {}

    def test_one_in_the_way_leaves_all(self, tmp_path: Path) -> None:
        (tmp_path / "graph").write_text("old")
        with pytest.raises(OutputError, match="graph exists already"):
            write_together({tmp_path / "names": [b"new"], tmp_path / "graph": [b"new"]})
        assert tree(tmp_path) == {"graph": b"old"}


class TestFolder:
    def test_appears_when_the_block_ends(self, tmp_path: Path) -> None:
        target = tmp_path / "made" / "out"
        umask = os.umask(0o027)
        try:
            with new_folder(target, marker=MARKER) as folder:
                fill(folder, "new")
                assert not target.exists()
        finally:
            os.umask(umask)
        assert set(tree(target)) == {"tensors", "tensors/a.npy", MARKER, "new.prototxt", "deploy.prototxt"}
        assert stat.S_IMODE(target.stat().st_mode) == 0o750
        assert [p.name for p in target.parent.iterdir()] == ["out"]

    def test_an_empty_one_is_filled_and_stays_itself(self, tmp_path: Path) -> None:
        """It may be a mount point, or the working directory of the shell that called us."""
        target = tmp_path / "out"
        target.mkdir(mode=0o700)
        number = target.stat().st_ino
        with new_folder(target, marker=MARKER) as folder:
            fill(folder, "new")
        assert target.stat().st_ino == number
        assert stat.S_IMODE(target.stat().st_mode) == 0o700
        assert len(list(target.iterdir())) == 4

    def test_an_earlier_one_needs_force(self, old: Path) -> None:
        before = tree(old.parent)
        with pytest.raises(OutputError, match=r"out exists already"), new_folder(old, marker=MARKER):
            pytest.fail("the block must not run")
        assert tree(old.parent) == before
        number = old.stat().st_ino
        with new_folder(old, marker=MARKER, force=True) as folder:
            fill(folder, "new")
        assert old.stat().st_ino == number
        assert set(tree(old.parent)) == {
            f"out{name}"
            for name in ("", "/tensors", "/tensors/a.npy", "/new.prototxt", "/deploy.prototxt", f"/{MARKER}")
        }
        assert (old / "deploy.prototxt").read_text() == "new deploy"

    def test_one_of_somebody_else_is_never_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        with (
            pytest.raises(
                OutputError, match=r"holds files but no report\.json, so it is not replaced, even with --force"
            ),
            new_folder(tmp_path, marker=MARKER, force=True),
        ):
            pytest.fail("the block must not run")
        (tmp_path / "file").write_text("x")
        with (
            pytest.raises(OutputError, match="is a file, not a folder"),
            new_folder(tmp_path / "file", marker=MARKER, force=True),
        ):
            pytest.fail("the block must not run")
        assert set(tree(tmp_path)) == {"thesis.tex", "file"}

    def test_names_are_shown_as_they_were_given(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(old.parent)
        with pytest.raises(OutputError, match=r"^out exists already"), new_folder(Path("out"), marker=MARKER):
            pass
        with (
            pytest.raises(OutputError, match=r"^cannot write other/file: not UTF-8"),
            new_folder(Path("other"), marker=MARKER) as folder,
        ):
            write_text(folder / "file", "\udcff")

    def test_the_working_directory_can_be_replaced(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(old)
        for word in ("new", "newer"):
            with new_folder(Path(), marker=MARKER, force=True) as folder:
                fill(folder, word)
            assert Path("deploy.prototxt").read_text() == f"{word} deploy"

    def test_a_link_to_a_folder_is_followed(self, old: Path) -> None:
        (old.parent / "link").symlink_to("out")
        with new_folder(old.parent / "link", marker=MARKER, force=True) as folder:
            fill(folder, "new")
        assert (old.parent / "link").is_symlink()
        assert (old / "deploy.prototxt").read_text() == "new deploy"

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, RuntimeError])
    @pytest.mark.parametrize("exists", [True, False])
    def test_an_exception_in_the_block_leaves_all_as_it_was(
        self, old: Path, error: type[BaseException], exists: bool
    ) -> None:
        before = tree(old.parent)
        target = old if exists else old.parent / "made" / "other"

        def fail(folder: Path) -> None:
            fill(folder, "new")
            raise error

        with pytest.raises(error), new_folder(target, marker=MARKER, force=True) as folder:
            fail(folder)
        assert tree(old.parent) == before

    def test_an_os_error_in_the_block_is_one_line(self, old: Path) -> None:
        before = tree(old.parent)
        with (
            pytest.raises(OutputError, match=r"^cannot write .*/out: No space left on device$"),
            new_folder(old, marker=MARKER, force=True),
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert tree(old.parent) == before

    @pytest.mark.parametrize(
        "error", [KeyboardInterrupt(), OSError(errno.EIO, os.strerror(errno.EIO))], ids=["ctrl-c", "disk"]
    )
    @pytest.mark.parametrize("call", range(1, 9))
    def test_any_step_of_the_exchange_may_fail(
        self, old: Path, monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException
    ) -> None:
        """Four entries leave and four come."""
        before = tree(old.parent)
        fail_at(monkeypatch, "rename", call, error)
        expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OutputError
        with pytest.raises(expected), new_folder(old, marker=MARKER, force=True) as folder:
            fill(folder, "new")
        assert tree(old.parent) == before

    def test_the_exchange_has_no_more_steps(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_at(monkeypatch, "rename", 9, KeyboardInterrupt())
        with new_folder(old, marker=MARKER, force=True) as folder:
            fill(folder, "new")

    def test_the_marker_leaves_first_and_comes_last(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between the two, no command takes the folder for a whole one."""
        names: list[str] = []
        rename = Path.rename

        def noting(source: Path, place: Path) -> Path:
            names.append(source.name)
            return rename(source, place)

        monkeypatch.setattr(Path, "rename", noting)
        with new_folder(old, marker=MARKER, force=True) as folder:
            fill(folder, "new")
        assert len(names) == 8
        assert (names[0], names[-1]) == (MARKER, MARKER)
        assert names.count(MARKER) == 2

    def test_files_that_cannot_be_put_back_are_kept(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rename = Path.rename

        def stuck(source: Path, place: Path) -> Path:
            if source.parent.name in ("new", "old"):  # neither in, nor back
                raise OSError(errno.EIO, "broken")
            return rename(source, place)

        monkeypatch.setattr(Path, "rename", stuck)
        with (
            pytest.raises(OutputError, match="move its missing files back from") as caught,
            new_folder(old, marker=MARKER, force=True) as folder,
        ):
            fill(folder, "new")
        kept = Path(str(caught.value).rsplit(" ", 1)[1])
        assert {p.name for p in kept.iterdir()} == {"tensors", MARKER, "old.prototxt", "deploy.prototxt"}


def test_refuse_existing(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "none", force=False)
    refuse_existing(tmp_path, force=False)
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in (tmp_path / "dangling", tmp_path):
        with pytest.raises(OutputError, match="exists already"):
            refuse_existing(path, force=False)
        refuse_existing(path, force=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a file system takes root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    write_text(small_disk / "file", "old")
    with new_folder(small_disk / "out", marker=MARKER) as folder:
        fill(folder, "old")
    before = tree(small_disk)
    with pytest.raises(OutputError, match=r"cannot write .*/file: No space left on device$"):
        write_bytes(small_disk / "file", bytes(100_000), force=True)
    with (
        pytest.raises(OutputError, match=r"cannot write .*/disk/out/large: No space left on device$"),
        new_folder(small_disk / "out", marker=MARKER, force=True) as folder,
    ):
        write_bytes(folder / "large", bytes(100_000))
    assert tree(small_disk) == before


def test_a_mount_point_is_filled(small_disk: Path) -> None:
    for word in ("old", "new"):
        with new_folder(small_disk, marker=MARKER, force=True) as folder:
            fill(folder, word)
    assert (small_disk / "deploy.prototxt").read_text() == "new deploy"


def test_two_runs_cannot_replace_one_folder_at_once(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with new_folder(target, marker=MARKER) as folder:
        (folder / MARKER).write_text("first")
    with new_folder(target, marker=MARKER, force=True) as folder:
        (folder / MARKER).write_text("second")
        second = new_folder(target, marker=MARKER, force=True)
        with pytest.raises(OutputError, match="another run is writing"):
            second.__enter__()
    assert (target / MARKER).read_text() == "second"
    assert [entry.name for entry in target.iterdir()] == [MARKER]


def test_two_runs_may_make_two_folders_side_by_side(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a", marker=MARKER) as a, new_folder(tmp_path / "b", marker=MARKER) as b:
        fill(a, "first")
        fill(b, "second")
    assert (tmp_path / "a" / "deploy.prototxt").read_text() == "first deploy"
    assert (tmp_path / "b" / "deploy.prototxt").read_text() == "second deploy"


def test_of_two_runs_that_make_one_folder_the_second_fails(tmp_path: Path) -> None:
    def make(word: str, meanwhile: Callable[[], None]) -> None:
        with new_folder(tmp_path / "out", marker=MARKER) as folder:
            fill(folder, word)
            meanwhile()

    with pytest.raises(OutputError, match=r"cannot write .*/out: Directory not empty"):
        make("slow", lambda: make("quick", lambda: None))
    assert (tmp_path / "out" / "deploy.prototxt").read_text() == "quick deploy"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EBADF, errno.EIO])
def test_a_disk_without_locks(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does without; any other error is one."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    if code == errno.EIO:
        with pytest.raises(OutputError, match=r"cannot write .*out: Input/output error"), held_folder(tmp_path / "out"):
            pytest.fail("the folder was given")
        assert tree(tmp_path) == {}
        return
    with held_folder(tmp_path / "out"):
        write_text(tmp_path / "out" / "a", "a")
    assert tree(tmp_path / "out") == {"a": b"a"}
