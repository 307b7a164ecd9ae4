"""How the environments of tests/targets are made: whole or not at all, once, and with a reason where they cannot be."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.targets import environments
from tests.targets.cases import CASES
from tests.targets.environments import ENVIRONMENTS, Environment, UnavailableError, make
from tests.targets.process import RUNNERS

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
EMPTY = Environment("empty", "Empty", HERE, ("json",))


@pytest.fixture(autouse=True)
def requirements(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the requirements of EMPTY, in place of the real ones."""
    folder = tmp_path_factory.mktemp("requirements")
    for name in ("empty", "old", "tool"):
        (folder / f"{name}.txt").write_text("# a note\npip==23.0\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", folder)
    return folder


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were run; those of venv and pip do not run, and leave an environment with a script in it."""
    ran: list[list[str]] = []

    def call(command: list[str], **_: object) -> int:
        ran.append(command)
        if "venv" in command:
            bin_folder = Path(command[-1]) / "bin"
            bin_folder.mkdir(parents=True)
            (bin_folder / "python").symlink_to(sys.executable)
            (bin_folder / "tool").write_text(f"#!{bin_folder}/python\n")
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    return ran


def test_environment_is_made_once(tmp_path: Path, installs: list[list[str]]) -> None:
    python = make(EMPTY, tmp_path)
    count = len(installs)
    assert python == tmp_path / EMPTY.key / "bin" / "python"
    assert make(EMPTY, tmp_path) == python
    assert len(installs) == count == 3
    assert "--no-deps" in installs[1]
    assert (python.parent / "tool").read_text() == f"#!{python}\n"
    assert not list(tmp_path.glob("*.part"))


def test_only_one_of_several_makes_it(tmp_path: Path, installs: list[list[str]]) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: make(EMPTY, tmp_path), range(4)))
    assert len(made) == 1
    assert sum("venv" in command for command in installs) == 1


def test_other_requirements_are_another_environment(requirements: Path) -> None:
    before = EMPTY.key
    (requirements / "empty.txt").write_text("pip==1\n")
    assert EMPTY.key != before
    assert EMPTY.key.startswith("empty-")


def test_failed_package_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(command: list[str], *, stdout: object, **_: object) -> int:
        if "pip" not in command:
            Path(command[-1]).mkdir(parents=True)
            return 0
        print("ERROR: No matching distribution found for pip", file=stdout, flush=True)  # type: ignore[call-overload]
        return 1

    monkeypatch.setattr(subprocess, "call", call)
    with pytest.raises(UnavailableError, match=r"empty: the packages failed: ERROR: No matching distribution .*\.log"):
        make(EMPTY, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock", ".log"}


def test_leftover_of_a_killed_process_is_replaced(tmp_path: Path, installs: list[list[str]]) -> None:
    leftover = tmp_path / f"{EMPTY.key}.part"
    leftover.mkdir()
    (leftover / "half").touch()
    assert not (make(EMPTY, tmp_path).parents[1] / "half").exists()


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Environment("old", "Old", "3.0", ()), "old: its packages are for Python 3.0, which is not installed"),
        (Environment("tool", "Tool", HERE, (), ("no-such-tool",)), "tool: no no-such-tool on the PATH"),
    ],
)
def test_reason(tmp_path: Path, wanted: Environment, reason: str) -> None:
    with pytest.raises(UnavailableError, match=reason):
        make(wanted, tmp_path)
    assert not list(tmp_path.iterdir())


def test_folder_from_the_environment_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSDLITE_TARGETS", str(tmp_path / "elsewhere"))
    assert environments.targets_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("SSDLITE_TARGETS")
    assert environments.targets_folder().parts[-2:] == ("ssdlite-caffe", "targets")


def test_this_python_is_found() -> None:
    assert environments.find_python(HERE) is not None
    assert environments.find_python("3.0") is None


def test_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert environments.main(["mnm"]) == 2
    assert "no environment is named mnm; there are mnn," in capsys.readouterr().err


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_package_is_pinned(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert all(requirement.count("==") == 1 for requirement in ENVIRONMENTS[name].requirements)


def test_every_program_has_a_script_and_cases() -> None:
    assert {case.program for case in CASES} == set(ENVIRONMENTS)
    assert {path.stem for path in RUNNERS.glob("run_*.py")} == {f"run_{name}" for name in ENVIRONMENTS}
