"""Reading Caffe's log: events of the solver, and why it stopped."""

from __future__ import annotations

import math

import pytest

from ssdlite_caffe.caffe.log import parse_line, reason
from ssdlite_caffe.training.log import Event, LogReader, Scored, Skipped, Snapshotting, Step

PREFIX = "I20240102 03:04:05.678901  4321 "


def events(*texts: str) -> list[Event]:
    reader = LogReader()
    return [event for text in texts if (event := reader.read(f"{PREFIX}{text}\n")) is not None]


def test_a_step_is_its_loss_and_its_rate() -> None:
    assert events(
        "solver.cpp:225] Iteration 20, loss = 8.25",
        "solver.cpp:243]     Train net output #0: mbox_loss = 7.5 (* 1 = 7.5 loss)",
        "sgd_solver.cpp:107] Iteration 20, lr = 0.0005",
        "solver.cpp:225] Iteration 30, loss = 1e-05",
    ) == [Step(20, 8.25, 0.0005)]


def test_the_last_loss_has_no_rate() -> None:
    """Caffe computes the loss once more at the end, and says twice that it is done."""
    *_, last = found = events(
        "solver.cpp:225] Iteration 20, loss = 8.25",
        "sgd_solver.cpp:107] Iteration 20, lr = 0.0005",
        "solver.cpp:330] Iteration 30, loss = 7.5",
        "solver.cpp:434] Iteration 30, Testing net (#0)",
        "solver.cpp:546]     Test net output #0: detection_eval = 0.75",
        "solver.cpp:335] Optimization Done.",
        "caffe.cpp:130] Optimization Done.",
    )
    assert found[:2] == [Step(20, 8.25, 0.0005), Scored(30, "detection_eval", 0.75)]
    assert len(found) == 3
    assert isinstance(last, Step)
    assert (last.iteration, last.loss, math.isnan(last.rate)) == (30, 7.5, True)
    assert events("solver.cpp:335] Optimization Done.") == []


@pytest.mark.parametrize("text", ["nan", "-nan", "inf"])
def test_losses_that_are_not_finite(text: str) -> None:
    (step,) = events(f"solver.cpp:225] Iteration 3, loss = {text}", "sgd_solver.cpp:107] Iteration 3, lr = 0.1")
    assert isinstance(step, Step)
    assert not math.isfinite(step.loss)


def test_tests_and_snapshots() -> None:
    assert events(
        "solver.cpp:434] Iteration 40, Testing net (#0)",
        "solver.cpp:546]     Test net output #0: detection_eval = 0.75",
        "solver.cpp:595] Snapshotting to binary proto file snapshot/net_iter_40.caffemodel",
        "sgd_solver.cpp:273] Snapshotting solver state to binary proto file snapshot/net_iter_40.solverstate",
    ) == [Scored(40, "detection_eval", 0.75), Snapshotting(40), Snapshotting(40)]


def test_skipped_records() -> None:
    text = "AnnotatedData layer 'data': record 00000003_a of ../lmdb cannot be read: no image"
    assert events(f"annotated_data_layer.cpp:196] {text}; it is skipped (2 so far)") == [Skipped(text, 2)]


def test_old_and_new_glog_lines() -> None:
    for date in ("I0102", "I20240102"):
        line = parse_line(f"{date} 03:04:05.678901     7 net.cpp:12] some text")
        assert line is not None
        assert (line.level, line.source, line.text) == ("I", "net.cpp:12", "some text")
    assert parse_line("I am no log line") is None


FATAL = "F20240102 03:04:05.678901  4321 "


def test_a_failed_check_names_the_layer_being_made() -> None:
    log = [
        f"{PREFIX}net.cpp:127] Creating Layer one", f"{PREFIX}net.cpp:177] Setting up one",
        f"{PREFIX}net.cpp:127] Creating Layer two",
        f"{FATAL}pooling_layer.cpp:9] Check failed: a == b (1 vs. 2) why", "and more.",
        "*** Check failure stack trace: ***", "    @     0x7f  main",
    ]  # fmt: skip
    assert reason(log) == "Check failed: a == b (1 vs. 2) why and more in layer two (pooling_layer.cpp:9)"
    log.insert(3, f"{PREFIX}net.cpp:310] Network initialization done.")
    assert reason(log) == "Check failed: a == b (1 vs. 2) why and more (pooling_layer.cpp:9)"
    assert "in layer three (" in reason(log, layer="three")


def test_an_unknown_type_names_the_layer_that_has_it() -> None:
    log = [
        f"{PREFIX}net.cpp:85] Initializing net from parameters: ", "layer {", '  name: "a"', '  type: "ReLU"', "}",
        "layer {", '  name: "b"', '  type: "Relu7"', "}", f"{PREFIX}net.cpp:127] Creating Layer a",
        f"{FATAL}layer_factory.hpp:81] Check failed: n == 1 (0 vs. 1) Unknown layer type: Relu7 (known types: A, B)",
    ]  # fmt: skip
    assert reason(log) == "Check failed: n == 1 (0 vs. 1) Unknown layer type: Relu7 in layer b (layer_factory.hpp:81)"


def test_what_is_wrong_in_a_prototxt_comes_first() -> None:
    log = [
        '[libprotobuf ERROR text_format.cc:335] Error parsing text-format caffe.NetParameter: 3:5: no "x".',
        f"{FATAL}upgrade_proto.cpp:90] Check failed: Read(file) Failed to parse NetParameter file: net.prototxt",
    ]
    assert reason(log).startswith(
        '3:5: no "x": Check failed: Read(file) Failed to parse NetParameter file: net.prototxt'
    )


def test_ends_without_a_word() -> None:
    assert reason(["nothing"], layer="deep", status=-11) == "Caffe was ended by SIGSEGV in layer deep"
    assert reason([], status=1) == "Caffe ended with status 1 and no message"


def test_a_long_message_is_cut() -> None:
    assert len(reason([f"{FATAL}a.cpp:1] " + "x" * 5000])) < 450
