"""`caffe build` around the compiler: stamps, locks, killed builds, errors; CMake and Ninja only pretend."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssdlite_caffe.caffe import build as caffe_build
from ssdlite_caffe.caffe.build import BuildOptions, build, read_stamp
from ssdlite_caffe.caffe.compile import Step, first_error
from ssdlite_caffe.caffe.prefix import STAMP, caffe_prefix, find_prefix
from ssdlite_caffe.caffe.sources import NEEDED
from ssdlite_caffe.errors import BuildError, OutputError
from tests.commands import Command, tree

CMAKE = """#!/bin/sh
if [ "$1" = --install ]; then
  mkdir -p "$4/bin" && cp "$2/object" "$4/bin/caffe" && echo "-- installed"
else
  echo configure >> "$LEDGER" && touch "$6/build.ninja"
fi
"""
NINJA = """#!/bin/sh
echo compile >> "$LEDGER"
echo "[1/2] Building CXX object CMakeFiles/caffe.dir/a/net.cpp.o"
while [ -n "$HOLD" ] && [ ! -e "$HOLD" ] && [ -e "$LEDGER" ]; do sleep 0.02; done
if [ -n "$BROKEN" ]; then echo "net.cpp:7:1: error: broken"; exit 1; fi
echo "$VALUE" > object
echo "[2/2] Linking CXX shared library lib/libcaffe.so"
"""


class Workshop:
    """A fake toolchain, a fake fork and a prefix in a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prefix, self.ledger, self.fork = folder / "prefix", folder / "ledger", folder / "fork"
        tools = folder / "tools"
        tools.mkdir()
        for name, text in (("cmake", CMAKE), ("ninja", NINJA)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        for name in NEEDED:
            (self.fork / name).parent.mkdir(parents=True, exist_ok=True)
            (self.fork / name).write_text("int x;\n")
        monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setenv("LEDGER", str(self.ledger))
        monkeypatch.setenv("VALUE", "first")
        for name in ("HOLD", "BROKEN"):
            monkeypatch.setenv(name, "")
        self.steps: list[Step] = []
        self.processes: list[subprocess.Popen[str]] = []

    def options(self, **changes: object) -> BuildOptions:
        return BuildOptions(**{"prefix": self.prefix, "source": self.fork, "pycaffe": False, **changes})  # type: ignore[arg-type]

    def build(self, **changes: object) -> dict[str, object]:
        return build(self.options(**changes), self.steps.append)

    @property
    def runs(self) -> list[str]:
        return self.ledger.read_text().split() if self.ledger.exists() else []

    def start(self) -> subprocess.Popen[str]:
        """The command, in a process of its own."""
        command = [sys.executable, "-m", "ssdlite_caffe.cli", "caffe", "build", "--no-pycaffe"]
        command += ["--prefix", str(self.prefix), "--source", str(self.fork)]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return self.processes[-1]

    def close(self) -> None:
        """End what a failed test left: Ninja goes when the ledger does."""
        self.ledger.unlink(missing_ok=True)
        for process in self.processes:
            process.kill()
            process.communicate()

    def await_runs(self, count: int) -> None:
        end = time.monotonic() + 60
        while len(self.runs) < count:
            assert time.monotonic() < end, self.runs
            time.sleep(0.02)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    class Healthy:
        def require(self) -> None:
            pass

    monkeypatch.setattr(caffe_build, "diagnose", lambda **_: Healthy())
    workshop = Workshop(tmp_path, monkeypatch)
    yield workshop
    workshop.close()


class TestBuild:
    def test_fills_the_prefix_and_says_how_far_it_is(self, workshop: Workshop) -> None:
        result = workshop.build()
        assert result["built"] is True
        assert (workshop.prefix / "bin" / "caffe").read_text() == "first\n"
        assert find_prefix(workshop.prefix) == workshop.prefix == caffe_prefix(workshop.prefix)
        steps = [(step.what, step.done, step.total) for step in workshop.steps]
        assert ("net.cpp", 1, 2) in steps
        assert [what for what, _, total in steps if not total] == ["configuring", "compiling", "installing"]
        log = Path(str(result["log"])).read_text()
        assert "[2/2] Linking" in log
        assert "-- installed" in log

    def test_a_second_one_does_nothing(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        workshop.build()
        before, runs = tree(workshop.prefix), workshop.runs
        monkeypatch.setenv("VALUE", "second")
        assert workshop.build()["built"] is False
        assert (tree(workshop.prefix), workshop.runs) == (before, runs)

    @pytest.mark.parametrize("change", ["force", "fork", "native", "environment", "file lost"])
    def test_a_change_builds_anew(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
        workshop.build()
        monkeypatch.setenv("VALUE", "second")
        if change == "fork":
            (workshop.fork / "include" / "caffe" / "more.hpp").write_text("int y;\n")
        elif change == "environment":
            monkeypatch.setenv("CXXFLAGS", "-g")
        elif change == "file lost":
            (workshop.prefix / "bin" / "caffe").unlink()
        changes = {"force": {"force": True}, "native": {"native": False}}.get(change, {})
        assert workshop.build(**changes)["built"] is True
        assert (workshop.prefix / "bin" / "caffe").read_text() == "second\n"

    def test_a_changed_file_of_ours_counts(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the stamp's key stands every file that the build reads."""
        before = caffe_build._stamp(workshop.options(), workshop.fork)["key"]
        sources = caffe_build.source_folder()
        copy = shutil.copytree(sources, workshop.fork.parent / "src_cuda")
        monkeypatch.setattr(caffe_build, "source_folder", lambda: copy)
        keys = {before, caffe_build._stamp(workshop.options(), workshop.fork)["key"]}
        assert len(keys) == 1, "the same files elsewhere are the same"
        for name in ("CMakeLists.txt", "compat/names.hpp", "tools/caffe.cpp", "python/pycaffe.py"):
            with (copy / name).open("a") as stream:
                stream.write("\n")
            keys.add(caffe_build._stamp(workshop.options(), workshop.fork)["key"])
        assert len(keys) == 5

    def test_where_it_stops_is_told_and_nothing_lost(
        self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, command: Command
    ) -> None:
        workshop.build()
        before = tree(workshop.prefix)
        monkeypatch.setenv("BROKEN", "1")
        result = command(
            "caffe", "build", "--no-pycaffe", "--prefix", workshop.prefix, "--source", workshop.fork, "--force"
        )
        assert result.status == 1
        *_, last = result.err.splitlines()
        log = next((workshop.fork.parent / "cache").rglob("prefix-*.log"))
        assert last == f"ssdlite-caffe: compiling failed: net.cpp:7:1: broken; the whole log is in {log}"
        assert "net.cpp:7:1: error: broken" in log.read_text()
        assert tree(workshop.prefix) == before

    def test_another_folder_is_left_alone(self, workshop: Workshop) -> None:
        workshop.prefix.mkdir()
        (workshop.prefix / "thesis.tex").write_text("years")
        with pytest.raises(BuildError, match=r"prefix holds files but no ssdlite-caffe\.json"):
            workshop.build(force=True)
        assert workshop.runs == []
        (workshop.prefix / "thesis.tex").unlink()
        assert workshop.build()["built"] is True, "an empty folder is welcome"

    def test_a_prefix_that_is_a_file(self, workshop: Workshop) -> None:
        workshop.prefix.touch()
        with pytest.raises(BuildError, match="prefix is a file"):
            workshop.build()

    @pytest.mark.parametrize("place", ["prefix", "cache"])
    def test_what_cannot_be_written_is_told_before_the_build(
        self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        (workshop.fork.parent / "file").touch()
        folder = workshop.fork.parent / "file" / "folder"
        if place == "cache":
            monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        with pytest.raises(OutputError, match=r"cannot write .*file/folder.*file is not a folder"):
            workshop.build(**{"prefix": folder} if place == "prefix" else {})
        assert workshop.runs == []
        assert workshop.steps == []

    def test_sources_that_are_no_caffe(self, workshop: Workshop) -> None:
        with pytest.raises(BuildError, match="is not a folder"):
            workshop.build(source=workshop.fork / "nowhere")
        (workshop.fork / "tools" / "caffe.cpp").unlink()
        with pytest.raises(BuildError, match=r"fork is not a Caffe: it has no tools/caffe\.cpp"):
            workshop.build()

    def test_the_prefix_moves(self, workshop: Workshop) -> None:
        workshop.build()
        elsewhere = workshop.prefix.rename(workshop.prefix.with_name("elsewhere"))
        assert read_stamp(elsewhere)["files"] == ["bin/caffe"]
        assert workshop.build(prefix=elsewhere)["built"] is False

    def test_a_stamp_that_is_broken_is_none(self, workshop: Workshop) -> None:
        workshop.build()
        (workshop.prefix / STAMP).write_text("{")
        assert workshop.build()["built"] is True
        (workshop.prefix / STAMP).write_text("[]")
        assert read_stamp(workshop.prefix) == {}


class TestClean:
    def test_deletes_what_builds_left_and_on_request_the_result(self, workshop: Workshop, command: Command) -> None:
        workshop.build()
        cache = workshop.fork.parent / "cache" / "ssdlite-caffe"
        (cache / "sources").mkdir()
        (cache / "sources" / "caffe.tar.gz").write_bytes(b"12345")
        printed = json.loads(command("caffe", "clean", "--json").out)
        assert sorted(Path(path).suffix for path in printed["deleted"]) == ["", ".gz", ".log"]
        assert printed["bytes"] > 5
        assert [path.suffix for path in cache.rglob("*") if path.is_file()] == [".lock"]
        assert find_prefix(workshop.prefix) is not None
        assert command("caffe", "clean").out == "there is nothing to delete\n"
        result = command("caffe", "clean", "--installed", "--prefix", workshop.prefix)
        assert result.out.splitlines()[0] == f"deleted {workshop.prefix}"
        assert not workshop.prefix.exists()
        assert workshop.build()["built"] is True

    def test_a_folder_of_others_stays(self, workshop: Workshop, command: Command) -> None:
        workshop.build()
        (workshop.prefix / STAMP).unlink()
        before = tree(workshop.fork.parent)
        result = command("caffe", "clean", "--installed", "--prefix", workshop.prefix)
        assert result.status == 1
        assert "prefix holds files but no ssdlite-caffe.json" in result.err
        assert command("caffe", "clean", "--prefix", workshop.prefix).status == 2
        assert tree(workshop.fork.parent) == before

    def test_not_while_a_build_runs(self, workshop: Workshop, command: Command) -> None:
        workshop.build()
        before = tree(workshop.fork.parent)
        with caffe_build._only_one(workshop.prefix, workshop.fork.parent / "cache" / "ssdlite-caffe", print):
            result = command("caffe", "clean")
        assert result.status == 1
        assert "a build of Caffe is running" in result.err
        assert tree(workshop.fork.parent) == before


class TestProcesses:
    """Fork and toolchain are fake, but libraries are looked for: these need what a real build needs."""

    @pytest.fixture(autouse=True)
    def _libraries(self, workshop: Workshop) -> None:
        from ssdlite_caffe.caffe.doctor import diagnose

        if not diagnose(pycaffe=False).ok:
            pytest.skip("the libraries that Caffe needs are not installed")

    def test_one_that_was_killed_is_gone_on_from(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        release = workshop.prefix.with_name("release")
        monkeypatch.setenv("HOLD", str(release))
        killed = workshop.start()
        workshop.await_runs(2)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert not workshop.prefix.exists()
        again = workshop.start()
        assert again.stderr is not None
        assert "waiting for another build" in again.stderr.readline(), "Ninja outlived the one that was killed"
        release.touch()
        out, err = again.communicate(timeout=60)
        assert again.returncode == 0, err
        assert out.startswith(f"Caffe is in {workshop.prefix},")
        assert (workshop.prefix / "bin" / "caffe").read_text() == "first\n"
        assert [path.name for path in workshop.prefix.parent.glob(".*")] == []

    def test_of_two_at_once_one_builds(self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
        release = workshop.prefix.with_name("release")
        monkeypatch.setenv("HOLD", str(release))
        first = workshop.start()
        workshop.await_runs(2)
        second = workshop.start()
        assert second.stderr is not None
        waiting = second.stderr.readline()
        assert waiting == f"caffe: waiting for another build into {workshop.prefix}\n"
        release.touch()
        assert first.communicate(timeout=60)[0].startswith(f"Caffe is in {workshop.prefix},")
        assert second.communicate(timeout=60)[0] == f"Caffe is in {workshop.prefix} already\n"
        assert (first.returncode, second.returncode) == (0, 0)
        assert workshop.runs == ["configure", "compile"]

    def test_one_killed_while_the_old_gave_way(self, workshop: Workshop) -> None:
        """Between the two moves the stamp lies in the folder that `new_folder` makes."""
        workshop.build()
        between = workshop.prefix / ".ssdlite-caffe.x1" / "old"
        between.mkdir(parents=True)
        (workshop.prefix / STAMP).rename(between / STAMP)
        assert workshop.build()["built"] is True
        assert sorted(path.name for path in workshop.prefix.iterdir()) == ["bin", STAMP]

    def test_one_killed_while_it_was_configured(self, workshop: Workshop) -> None:
        stamp = caffe_build._stamp(workshop.options(), workshop.fork)
        folder = caffe_build._work_folder(caffe_build.cache_folder(), workshop.prefix, stamp, fresh=False)
        (folder / "CMakeCache.txt").write_text("half of a")
        assert workshop.build()["built"] is True
        assert not (folder / "CMakeCache.txt").exists()
        (folder / "net.o").touch()
        (workshop.fork / "include" / "caffe" / "layer.hpp").write_text("int z;\n")
        workshop.build()
        assert (folder / "net.o").exists(), "objects are kept when a source changes"

    def test_json(self, workshop: Workshop) -> None:
        command = [sys.executable, "-m", "ssdlite_caffe.cli", "caffe", "build", "--no-pycaffe", "--json"]
        command += ["--prefix", str(workshop.prefix), "--source", str(workshop.fork)]
        first = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert (first["built"], first["prefix"], first["cuda"]) == (True, str(workshop.prefix), False)
        second = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert (second["built"], second["key"]) == (False, first["key"])


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (
            "In file included from a.cpp:3:\nb.hpp:12:5: error: 'x' was not declared\nc.cpp:1:1: error: later",
            "b.hpp:12:5: 'x' was not declared",
        ),
        ("a.cpp:3:10: fatal error: lmdb.h: No such file or directory", "a.cpp:3:10: lmdb.h: No such file or directory"),
        ('conv.cu(41): error: identifier "x" is undefined', 'conv.cu(41): identifier "x" is undefined'),
        (
            "/usr/bin/ld: net.o: in function `f':\nnet.cpp:(.text+0x9): undefined reference to `g'",
            "undefined reference to `g'",
        ),
        ("/usr/bin/ld: cannot find -llmdb: No such file", "cannot find -llmdb:"),
        ("ninja: error: loading 'build.ninja': No such file", "ninja: error: loading 'build.ninja': No such file"),
        ("CMake Error at CMakeLists.txt:29 (message):\n  no Caffe\n\n-- stops", "no Caffe"),
        ("CMake Error: could not load cache", "could not load cache"),
        (
            "c++: fatal error: Killed signal terminated program cc1plus",
            "not enough memory for the compiler (c++: fatal error: Killed signal terminated program cc1plus); "
            "try fewer --jobs",
        ),
        ("something odd", "something odd"),
        ("", "it printed no error"),
    ],
)
def test_the_first_error(output: str, told: str) -> None:
    assert first_error(output.splitlines()) == told
