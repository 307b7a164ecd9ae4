"""Options of a resumed training, and where a training runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssdlite_caffe.caffe.device import gpu_problem
from ssdlite_caffe.caffe.prefix import STAMP
from ssdlite_caffe.errors import CaffeError, TrainingError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.training.log import Scored, Step
from ssdlite_caffe.training.metrics import METRICS, PLOT, Metrics, drop_after, last_loss, read_metrics
from ssdlite_caffe.training.run_options import RUN, RunOptions, choose_gpu, recall, remember

CPU, GPU = caffe_pb2.SolverParameter.CPU, caffe_pb2.SolverParameter.GPU
NO_GPU_1 = "GPU 1 is asked for, and this machine has 1 (caffe.cpp:80)"


class TestRecall:
    def test_all_is_remembered(self, tmp_path: Path) -> None:
        (tmp_path / "kit").mkdir()
        given = RunOptions(weights=tmp_path / "w.caffemodel", iterations=40, seed=3, gpu=1, strict=True)
        remember(tmp_path / "kit", given)
        assert json.loads((tmp_path / "kit" / RUN).read_text())["weights"] == "../w.caffemodel"
        found = recall(tmp_path / "kit", RunOptions(resume=True))
        assert found == RunOptions(resume=True, iterations=40, seed=3, gpu=1, strict=True)
        same = RunOptions(resume=True, weights=tmp_path / "kit" / ".." / "w.caffemodel", seed=3)
        assert recall(tmp_path / "kit", same) == found

    def test_what_may_change(self, tmp_path: Path) -> None:
        remember(tmp_path, RunOptions(iterations=40, gpu=1))
        assert recall(tmp_path, RunOptions(resume=True, iterations=60)).iterations == 60
        assert recall(tmp_path, RunOptions(resume=True, cpu=True)) == RunOptions(resume=True, iterations=40, cpu=True)
        assert recall(tmp_path, RunOptions(resume=True, gpu=0)).gpu == 0
        assert recall(tmp_path, RunOptions(resume=True, strict=True)).strict

    def test_what_may_not(self, tmp_path: Path) -> None:
        remember(tmp_path, RunOptions(seed=3, weights=tmp_path / "w"))
        with pytest.raises(TrainingError, match="--seed was 3 when the training was started, got 4: leave --seed out"):
            recall(tmp_path, RunOptions(resume=True, seed=4))
        with pytest.raises(TrainingError, match=r"--weights was .*w when the training was started, got .*other"):
            recall(tmp_path, RunOptions(resume=True, weights=tmp_path / "other"))
        remember(tmp_path, RunOptions())
        with pytest.raises(TrainingError, match="--seed was the solver's when"):
            recall(tmp_path, RunOptions(resume=True, seed=4))

    def test_started_by_the_script(self, tmp_path: Path) -> None:
        assert recall(tmp_path, RunOptions(resume=True, seed=4)) == RunOptions(resume=True, seed=4)

    @pytest.mark.parametrize("text", ["[]", "{", '{"cpu": 1, "strict": false}', '{"cpu": true}', "[" * 100_000])
    def test_damaged(self, tmp_path: Path, text: str) -> None:
        (tmp_path / RUN).write_text(text)
        with pytest.raises(TrainingError, match=RUN) as caught:
            recall(tmp_path, RunOptions(resume=True))
        assert "\n" not in str(caught.value)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A Caffe of another origin, with GPU 0 alone."""
    program = tmp_path / "caffe" / "bin" / "caffe"
    program.parent.mkdir(parents=True)
    program.write_text(
        '#!/bin/sh\n[ "$1 $2" = "device_query -gpu=0" ] && exit\n'
        "echo 'F20240102 03:04:05.678901  4321 caffe.cpp:80] GPU 1 is asked for, and this machine has 1' >&2\n"
        "echo '*** Check failure stack trace: ***' >&2\nexit 134\n"
    )
    program.chmod(0o755)
    return tmp_path / "caffe"


class TestWhereItRuns:
    def test_what_caffe_can_use(self, prefix: Path) -> None:
        assert gpu_problem(prefix) == ""
        assert gpu_problem(prefix, 1) == NO_GPU_1
        (prefix / STAMP).write_text('{"cuda": true}')
        assert gpu_problem(prefix) == ""
        (prefix / STAMP).write_text('{"cuda": false}')
        assert gpu_problem(prefix) == f"the Caffe in {prefix} is built for the CPU alone"
        (prefix / STAMP).unlink()
        (prefix / "bin" / "caffe").unlink()
        assert "does not answer" in gpu_problem(prefix)

    @pytest.mark.parametrize(
        ("solver", "options", "gpu", "said"),
        [
            ({}, {}, 0, "training on GPU 0"),
            ({}, {"gpu": 0}, 0, "training on GPU 0"),
            ({}, {"cpu": True}, None, "training on the CPU"),
            ({"solver_mode": CPU}, {}, None, "training on the CPU"),
            ({"solver_mode": CPU}, {"gpu": 0}, 0, "training on GPU 0"),
            ({"solver_mode": GPU}, {"cpu": True}, None, "training on the CPU"),
            ({"device_id": 1}, {}, None, f"training on the CPU ({NO_GPU_1})"),
            ({"device_id": 1, "solver_mode": GPU}, {}, None,
             f"training on the CPU ({NO_GPU_1}), though solver_train.prototxt has solver_mode: GPU"),
        ],
    )  # fmt: skip
    def test_choice(
        self, prefix: Path, solver: dict[str, int], options: dict[str, int], gpu: int | None, said: str
    ) -> None:
        lines: list[str] = []
        chosen = choose_gpu(caffe_pb2.SolverParameter(**solver), prefix, RunOptions(**options), lines.append)
        assert (chosen, lines) == (gpu, [said])

    def test_a_gpu_that_is_not_there(self, prefix: Path) -> None:
        with pytest.raises(CaffeError, match=r"cannot train on GPU 1: .*; give --cpu instead of --gpu"):
            choose_gpu(caffe_pb2.SolverParameter(), prefix, RunOptions(gpu=1), print)


class TestMetrics:
    def test_written_once(self, tmp_path: Path) -> None:
        for _ in range(2):  # a resumed training repeats the test at its start
            with Metrics(tmp_path) as metrics:
                metrics.scored(Scored(10, "detection_eval", 0.5))
        with metrics:
            metrics.step(Step(10, 2.5, 0.001))
            metrics.step(Step(20, 2.25, float("nan")))
        entries = [{k: v for k, v in entry.items() if k != "time"} for entry in read_metrics(tmp_path / METRICS)]
        assert entries == [
            {"iteration": 10, "test": "detection_eval", "value": 0.5},
            {"iteration": 10, "loss": 2.5, "learning_rate": 0.001},
            {"iteration": 20, "loss": 2.25},
        ]
        assert [last_loss(tmp_path, done) and last_loss(tmp_path, done).loss for done in (9, 19, 20)] == [
            None,
            2.5,
            2.25,
        ]
        assert (tmp_path / PLOT).is_file()
        drop_after(tmp_path / METRICS, 10)
        assert [list(entry) for entry in read_metrics(tmp_path / METRICS)] == [["iteration", "test", "value"]]

    def test_without_matplotlib(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import sys

        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with Metrics(tmp_path) as metrics:
            metrics.step(Step(10, 2.5, 0.001))
            metrics.draw()
        assert "needs matplotlib" in metrics.problem
        assert not (tmp_path / PLOT).exists()
