"""TensorFlow is imported without oneDNN or, where it is too late for that, with a warning."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings

import pytest

from ssdlite_caffe import imports

NAME = "TF_ENABLE_ONEDNN_OPTS"


@pytest.fixture
def tensorflow(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A program that has imported TensorFlow, in which `one_dnn` is on."""
    found = types.ModuleType("tensorflow")
    found.get_logger = lambda: types.SimpleNamespace(setLevel=lambda _: None)  # type: ignore[attr-defined]
    state = types.SimpleNamespace(one_dnn=True)
    port = types.ModuleType("_pywrap_util_port")
    port.IsMklEnabled = lambda: state.one_dnn  # type: ignore[attr-defined]
    util = types.ModuleType("tensorflow.python.util")
    util._pywrap_util_port = port  # type: ignore[attr-defined]
    for name, module in (("", found), (".python", types.ModuleType("python")), (".python.util", util)):
        monkeypatch.setitem(sys.modules, f"tensorflow{name}", module)
    monkeypatch.delenv(NAME, raising=False)
    imports._warn_of_onednn.cache_clear()
    return state


def test_it_is_said_once(tensorflow: types.SimpleNamespace) -> None:
    with pytest.warns(RuntimeWarning, match=rf"oneDNN is on, .* set {NAME}=0 before the program imports tensorflow"):
        imports.import_tensorflow()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imports.import_tensorflow()


def test_a_variable_that_came_too_late(tensorflow: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "0")
    with pytest.warns(RuntimeWarning, match="oneDNN is on"):
        imports.import_tensorflow()


@pytest.mark.parametrize(("asked", "on"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_nothing_is_said_where_all_is_well(
    tensorflow: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch, asked: str, on: bool
) -> None:
    tensorflow.one_dnn = on
    if asked:
        monkeypatch.setenv(NAME, asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        imports.import_tensorflow()


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import tensorflow; "])
def test_the_real_one(first: str) -> None:
    """A script's own import comes too late to switch oneDNN off; ours does not."""
    script = (
        f"{first}from ssdlite_caffe.imports import import_tensorflow; import_tensorflow(); "
        "from tensorflow.python.util import _pywrap_util_port as port; print(port.IsMklEnabled())"
    )
    environment = {"PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    on = done.stdout.split()[-1] == "True"
    assert on == ("RuntimeWarning" in done.stderr)
    assert first or not on
