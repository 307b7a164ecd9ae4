"""evaluate: what perfect and empty detections score, all kinds of data, several runtimes, and bad input."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.data.annotations import Box, Problem
from ssdlite_caffe.data.encoded import ImageEncoding
from ssdlite_caffe.data.labelled_images import LabelledImage, open_images
from ssdlite_caffe.data.lmdb_write import Order, write_lmdb
from ssdlite_caffe.data.toy_scenes import ShapesOptions, make_shapes
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import DatasetError, ModelError
from ssdlite_caffe.evaluation import detectors as evaluation_runtimes
from ssdlite_caffe.evaluation.detectors import Detect
from ssdlite_caffe.evaluation.evaluate import ClassScore, Evaluation, Score, evaluate
from ssdlite_caffe.evaluation.forms import ModelForms, check_form, open_model_forms
from ssdlite_caffe.evaluation.report import write_plot
from ssdlite_caffe.runtimes.detections import Detections
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from tests.commands import Command

LABELS = LabelMap.of_names(["circle", "square", "triangle"])


class Images:
    """Labelled images that no file is behind."""

    def __init__(self, *truth: tuple[Box, ...]) -> None:
        self.problems: list[Problem] = []
        self._truth = truth

    def __len__(self) -> int:
        return len(self._truth)

    def __iter__(self) -> Iterator[LabelledImage]:
        for number, boxes in enumerate(self._truth):
            yield LabelledImage(str(number), np.full((60, 80, 3), number, np.uint8), boxes)


TRUTH = (
    (Box(1, 10, 5, 30, 45, False), Box(1, 40, 5, 70, 35, False)),
    (Box(2, 0, 0, 80, 60, False), Box(1, 20, 20, 50, 50, True)),
    (),
)


def detections(*items: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    return Detections(
        np.asarray([label for label, _, _ in items], np.int64),
        np.asarray([score for _, score, _ in items], np.float32),
        np.asarray([box for _, _, box in items], np.float32).reshape(-1, 4) / np.float32([80, 60, 80, 60]),
    )


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[int, Detections]:
    """A runtime `fake` that gives these detections, by the colour of the image."""
    found: dict[int, Detections] = {}

    @contextlib.contextmanager
    def opened(model: ModelForms) -> Iterator[Detect]:
        yield lambda image: found.get(int(image[0, 0, 0]), detections())

    monkeypatch.setattr(evaluation_runtimes, "RUNTIMES", {"fake": opened})
    monkeypatch.setattr("ssdlite_caffe.evaluation.evaluate.RUNTIMES", {"fake": opened})
    return found


def judged(images: Images) -> object:
    return evaluate(ModelForms(LABELS, tensorflow=Path("none")), images, ["fake"], data="made up")


def test_perfect_detections(answers: dict[int, Detections]) -> None:
    for number, boxes in enumerate(TRUTH):
        answers[number] = detections(*((box.label, 0.9, box[1:5]) for box in boxes))  # type: ignore[misc]
    result = evaluate(ModelForms(LABELS, tensorflow=Path("none")), Images(*TRUTH), ["fake"], data="made up")
    (score,) = result.scores
    assert (score.ap, score.ap50, score.ap75, score.voc07, score.voc12) == pytest.approx((1,) * 5)
    assert {row: one.objects for row, one in score.classes.items()} == {1: 2, 2: 1}
    data = json.loads(json.dumps(result.to_dict()))
    assert data["runtimes"]["fake"]["classes"]["circle"]["ap50"] == 1
    assert data["images"] == 3


def test_no_detections(answers: dict[int, Detections]) -> None:
    (score,) = evaluate(ModelForms(LABELS, tensorflow=Path("none")), Images(*TRUTH), ["fake"]).scores
    assert (score.ap, score.ap50, score.voc07, score.voc12, score.detections) == (0, 0, 0, 0, 0)


def test_one_box_a_little_off_and_one_wrong(answers: dict[int, Detections]) -> None:
    """IoU 0.8: found at 0.50 to 0.80 of COCO's ten thresholds; the other circle is not found, the square is wrong."""
    answers[0] = detections((1, 0.9, (10, 5, 30, 37)), (2, 0.8, (0, 0, 8, 6)))
    (score,) = evaluate(ModelForms(LABELS, tensorflow=Path("none")), Images(*TRUTH), ["fake"]).scores
    half = np.mean(np.linspace(0, 1, 101) <= 0.5)
    assert score.classes[1].ap50 == pytest.approx(half)
    assert score.classes[1].ap == pytest.approx(half * 0.7, abs=0.06)
    assert score.classes[1].voc12 == pytest.approx(0.5)
    assert score.classes[2].voc12 == 0
    assert score.voc12 == pytest.approx(0.25)


def test_data_without_known_objects(answers: dict[int, Detections]) -> None:
    with pytest.raises(DatasetError, match="made up has no object of the model's classes"):
        judged(Images((), ()))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "voc"
    make_shapes(out, ShapesOptions(6, 5, split="test"))
    return out


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("names") / "labels.txt"
    path.write_text("circle\nsquare\ntriangle\n")
    return str(path)


@pytest.mark.opencv
def test_voc_coco_and_lmdb_give_the_same(example_folder: Path, scenes: Path, names: str, tmp_path: Path) -> None:
    make_shapes(tmp_path / "coco", ShapesOptions(6, 5, layout="coco", split="test"))
    labels = open_model_forms(example_folder, label_map=names).labels
    write_lmdb(open_voc([scenes], "test", label_map=labels), tmp_path / "lmdb", ImageEncoding(encoding="png"), Order())
    annotations = next(path for path in (tmp_path / "coco").rglob("*.json") if path.name != "shapes.json")
    images = next(path.parent for path in (tmp_path / "coco").rglob("*.[jp][pn]g"))
    model = open_model_forms(example_folder, label_map=names)
    scores = []
    for data, folder in ((scenes, None), (annotations, images), (tmp_path / "lmdb", None)):
        labelled = open_images(data, model.labels, images=folder)
        result = evaluate(model, labelled, ["opencv"], data=str(data))
        assert result.problems == ()
        assert result.images == 6
        scores.append(result.scores[0])
    assert scores[0].ap50 > 0.9
    for other in scores[1:]:
        assert (other.ap, other.ap50, other.voc12) == pytest.approx(
            (scores[0].ap, scores[0].ap50, scores[0].voc12), abs=1e-3
        )


@pytest.mark.opencv
def test_the_command(command: Command, example_folder: Path, scenes: Path, names: str, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    arguments = ("evaluate", example_folder, "--data", scenes, "-l", names, "--limit", 3, "--plot", plot)
    done = command(*arguments)
    assert done.status == 0, done.err
    assert "AP50" in done.out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert command(*arguments).err.startswith(f"ssdlite-caffe: {plot} exists already")
    done = command(*arguments, "--force", "--json")
    assert json.loads(done.out)["runtimes"]["opencv"]["ap50"] > 0.8


def test_wrong_use(command: Command, example_folder: Path, scenes: Path, tmp_path: Path) -> None:
    assert command("evaluate", example_folder, "--data", scenes, "--runtime", "ncnn").status == 2
    done = command("evaluate", example_folder, "--data", tmp_path / "none")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"ssdlite-caffe: {tmp_path / 'none'} does not exist; give a folder in VOC's layout")
    done = command("evaluate", example_folder, "--data", scenes)
    assert "has no object of the model's classes" in done.err
    assert "'circle' is not in the label map" in done.err
    done = command("evaluate", scenes, "--data", scenes)
    assert "holds annotated images, not a model" in done.err
    done = command("evaluate", scenes, "--data", example_folder)
    assert done.status == 1
    assert f"type: ssdlite-caffe evaluate {example_folder} --data {scenes}\n" in done.err


def test_a_model_without_class_names(command: Command, example_model: Path, scenes: Path) -> None:
    done = command("evaluate", example_model, "--data", scenes)
    assert "is not a converted model, so its class names are not known; give --label-map" in done.err


def test_runtimes_say_what_they_lack(example_folder: Path, names: str) -> None:
    model = open_model_forms(example_folder, label_map=names)
    with (
        pytest.raises(ModelError, match="opencv runs converted models"),
        evaluation_runtimes.RUNTIMES["opencv"](ModelForms(model.labels, tensorflow=Path("model.pb"))),
    ):
        pass
    with (
        pytest.raises(ModelError, match="give it with --tensorflow"),
        evaluation_runtimes.RUNTIMES["tensorflow"](ModelForms(model.labels, model.folder)),
    ):
        pass


class TestTheSourceOfAFolder:
    """`evaluate` runs the file that was converted, and no other."""

    @pytest.fixture
    def project(self, example_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A model and what convert makes of it, in one folder, with a relative path given to convert."""
        (tmp_path / "a" / "models").mkdir(parents=True)
        (tmp_path / "a" / "models" / "graph.pb").write_bytes(example_model.read_bytes())
        with monkeypatch.context() as here:
            here.chdir(tmp_path / "a")
            convert(Path("models") / "graph.pb", Path("out"), ConvertOptions())
        return tmp_path / "a"

    def test_from_any_working_directory(self, project: Path) -> None:
        forms = open_model_forms(project / "out")
        assert forms.tensorflow == project / "models" / "graph.pb"
        check_form(forms, "tensorflow")

    @pytest.mark.parametrize("moved", ["both", "folder"])
    def test_after_moving(self, project: Path, moved: str) -> None:
        if moved == "both":
            out = project.rename(project.parent / "b") / "out"
        else:
            (project.parent / "c" / "deep").mkdir(parents=True)
            out = (project / "out").rename(project.parent / "c" / "deep" / "out")
        model = (project.parent / "b" if moved == "both" else project) / "models" / "graph.pb"
        assert open_model_forms(out).tensorflow == model

    def test_that_is_gone(self, project: Path) -> None:
        (project / "models" / "graph.pb").unlink()
        forms = open_model_forms(project / "out")
        with pytest.raises(ModelError, match=r"the frozen graph that .*out was converted from is gone from .*pb;"):
            check_form(forms, "tensorflow")
        check_form(forms, "opencv")

    def test_that_has_changed(self, project: Path) -> None:
        graph = project / "models" / "graph.pb"
        graph.write_bytes(graph.read_bytes() + b"\x1a\x00")
        with pytest.raises(ModelError, match=r"graph\.pb has changed since .*out was converted from it;.* --tenso"):
            check_form(open_model_forms(project / "out"), "tensorflow")
        check_form(open_model_forms(project / "out", tensorflow=graph), "tensorflow")

    def test_of_a_report_without_it(self, project: Path) -> None:
        report = json.loads((project / "out" / "report.json").read_text())
        del report["source"]
        (project / "out" / "report.json").write_text(json.dumps(report))
        with pytest.raises(ModelError, match="does not say which TensorFlow model it is from; give it with --"):
            check_form(open_model_forms(project / "out"), "tensorflow")


def test_what_tensorflow_cannot_run_is_refused_before_it_is_loaded(
    command: Command, scenes: Path, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "graph.pb").write_bytes(b"model { ssd {")
    done = command("evaluate", tmp_path / "graph.pb", "--data", scenes, "-l", names)
    assert "is a pipeline.config; give the frozen graph" in done.err


def test_data_without_objects_are_refused_before_a_detector_is_loaded(
    command: Command, example_model: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "other.txt").write_text("cat\ndog\nbird\n")
    done = command("evaluate", example_model, "--data", scenes, "-l", tmp_path / "other.txt")
    assert "has no object of the model's classes" in done.err


def test_a_label_map_of_another_size(command: Command, example_model: Path, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "four.txt").write_text("circle\nsquare\ntriangle\nstar\n")
    done = command("evaluate", example_model, "--data", scenes, "-l", tmp_path / "four.txt")
    assert done.status == 1
    assert "has 5 classes but the model has 4" in done.err


@pytest.mark.opencv
class TestScoreThreshold:
    def test_of_a_model_that_drops_low_scores(
        self, command: Command, example_model: Path, scenes: Path, names: str, tmp_path: Path
    ) -> None:
        """A folder of threshold 0.3 is measured as one of 1e-8, with no second conversion."""
        for name, least in (("high", 0.3), ("low", 1e-8)):
            convert(example_model, tmp_path / name, ConvertOptions(score_threshold=least))

        def measured(folder: str, *more: object) -> tuple[dict[str, Any], Any]:
            data = ("--data", scenes, "-l", names, "--limit", 3, "--json")
            result = json.loads(command("evaluate", tmp_path / folder, *data, *more).out)
            return result, result["runtimes"]["opencv"]

        high, cut = measured("high")
        assert high["notes"] == [
            "opencv: detections have scores from 0.3, so the average precision is lower than the model's; measure with "
            "--score-threshold 1e-08"
        ]
        assert cut["score_threshold"] == pytest.approx(0.3)
        low, all_of_it = measured("low")
        assert low["notes"] == []
        again, lowered = measured("high", "--score-threshold", 1e-8)
        assert again["notes"] == []
        assert lowered["detections"] == all_of_it["detections"] > cut["detections"]
        assert (lowered["ap"], lowered["classes"]) == (all_of_it["ap"], all_of_it["classes"])
        assert lowered["path"] == str(tmp_path / "high")

    def test_is_said_after_the_tables(
        self, command: Command, example_model: Path, scenes: Path, names: str, tmp_path: Path
    ) -> None:
        convert(example_model, tmp_path / "out", ConvertOptions(score_threshold=0.3))
        done = command("evaluate", tmp_path / "out", "--data", scenes, "-l", names, "--limit", 1)
        assert f"opencv ran {tmp_path / 'out'}, scores from 0.3\n" in done.out
        assert "measure with --score-threshold 1e-08" in done.err


def test_a_plot_of_an_unknown_kind(answers: dict[int, Detections], tmp_path: Path) -> None:
    result = evaluate(ModelForms(LABELS, tensorflow=Path("none")), Images(*TRUTH), ["fake"])
    with pytest.raises(Exception, match=r"cannot draw .*plot\.xyz"):
        write_plot(result, tmp_path / "plot.xyz")


def test_classes_of_one_name_are_told_apart_in_json() -> None:
    one = ClassScore(1, 0.5, 0.5, 0.5, 0.5, 0.5)
    score = Score("opencv", 1, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, {1: one, 2: one, 3: one}, {})
    result = Evaluation("m", "d", 1, ("background", "cup", "cup", "jar"), (score,), ())
    assert list(result.to_dict()["runtimes"]["opencv"]["classes"]) == ["cup (1)", "cup (2)", "jar"]
