"""Inputs that users' files were like and that once failed: the folder `shared/cases`, each with what is right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Command

Case = Callable[[str], Path]


@pytest.fixture
def case(shared_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Copy a case and make its folder the current one; ../../models are the real models."""

    def copied(name: str) -> Path:
        source = shared_models.parent / "cases" / name
        if not source.is_dir():
            pytest.skip(f"no shared/cases/{name} beside the repository")
        folder = tmp_path / "cases" / name
        shutil.copytree(source, folder, copy_function=shutil.copyfile)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        (tmp_path / "models").symlink_to(shared_models)
        monkeypatch.chdir(folder)
        return folder

    return copied


@pytest.fixture
def run(command: Command) -> Callable[..., Any]:
    """Run a command that has to succeed."""

    def ran(*words: str) -> Any:
        result = command(*words)
        assert result.status == 0, result.err
        return result

    return ran


MODELS = "../../models/shapes_v3_small_3"


@pytest.mark.opencv
class TestData:
    def test_windows_paths_in_coco(self, case: Case, run: Any) -> None:
        case("coco-windows-paths")
        for folder in ("back", "dot"):
            report = json.loads(
                run("lmdb", "coco", f"{folder}/img", f"{folder}/a.json", "-o", folder + "-lmdb", "--json").out
            )
            assert (report["images"], report["images_skipped"]) == (2, 0)

    def test_background_first(self, case: Case, run: Any) -> None:
        folder = case("labels-background-first")
        run("lmdb", "voc", "voc", "-l", "labels.txt", "-o", "06")
        text = (folder / "06" / "labelmap.prototxt").read_text()
        assert text.index('"cat"') < text.index("label: 1")
        assert "label: 2" not in text
        assert "BACKGROUND" not in text
        run("kit", "labels.txt", "--train", "06", "--test", "06", "-o", "kit")
        assert json.loads((folder / "kit" / "kit.json").read_text())["arch"]["num_classes"] == 2

    def test_difficult_unspecified(self, case: Case, run: Any) -> None:
        case("voc-difficult-unspecified")
        report = json.loads(run("lmdb", "voc", "voc", "-o", "09", "--json").out)
        assert (report["objects"], report["objects_difficult"], report["objects_skipped"]) == (3, 0, 0)

    def test_names_with_spaces(self, case: Case, run: Any) -> None:
        case("voc-names-with-spaces")
        report = json.loads(run("lmdb", "voc", "voc", "-o", "08", "--json").out)
        assert (report["images"], report["images_skipped"]) == (4, 0)


@pytest.mark.opencv
@pytest.mark.tensorflow
@pytest.mark.slow
class TestModels:
    def test_a_field_given_twice(self, case: Case, run: Any) -> None:
        folder = case("config-given-twice")
        run("convert", f"{MODELS}/model.ckpt", "--pipeline-config", "dup.config", "-o", "04")
        assert json.loads((folder / "04" / "report.json").read_text())["arch"]["num_classes"] == 4

    def test_a_resizer_without_a_fixed_size(self, case: Case, command: Command) -> None:
        folder = case("config-resizer-advice")
        result = command("convert", f"{MODELS}/model.ckpt", "--pipeline-config", "cond.config", "-o", "14")
        assert result.status == 1
        assert "conditional_shape_resizer" in result.err
        assert "name its pipeline.config" not in result.err
        assert not (folder / "14").exists()

    def test_a_resizer_that_is_not_bilinear(self, case: Case, run: Any) -> None:
        folder = case("resizers-ignored")
        result = run("convert", f"{MODELS}/model.ckpt", "--pipeline-config", "nearest.config", "-o", "03")
        assert "nearest" in result.out + result.err
        assert json.loads((folder / "03" / "report.json").read_text())["resizer"]["method"] == "nearest"

    def test_dead_rows_of_a_label_map(self, case: Case, run: Any) -> None:
        folder = case("labelmap-dead-rows")
        dead = (folder / "labelmap_coco.prototxt").read_text().count('display_name: "N/A"')
        run("convert", f"{MODELS}/frozen_inference_graph.pb", "--label-map", "labelmap_coco.prototxt", "-o", "05")
        assert dead > 1
        assert (folder / "05" / "labelmap.prototxt").read_text().count('display_name: "unused_') == dead

    def test_merge_bn_after_slice(self, case: Case, run: Any) -> None:
        folder = case("merge-bn-after-slice")
        run("convert", f"{MODELS}/frozen_inference_graph.pb", "--padding", "slice", "-o", "02")
        run("merge-bn", "02", "-o", "02m")
        assert 'type: "BatchNorm"' not in (folder / "02m" / "deploy.prototxt").read_text()

    def test_merge_bn_of_a_train_prototxt(self, case: Case, command: Command) -> None:
        folder = case("merge-bn-train-prototxt")
        result = command("merge-bn", "train.prototxt", "--weights", "w.caffemodel", "-o", "01")
        if result.status == 0:
            assert 'type: "BatchNorm"' not in (folder / "01" / "deploy.prototxt").read_text()
        else:
            assert result.status == 1
            assert len(result.err.splitlines()) == 1
            assert "TRAIN" in result.err


class TestNets:
    def test_earlier_options_of_gen(self, case: Case, run: Any) -> None:
        case("gen-earlier-options")
        theirs = ("--compat", "mobilenetv2-ssdlite")
        folded = run("gen", "-s", "deploy", "-c", "91", "--relu6", "--tfpad", "--nobn", *theirs).out
        assert folded.count("/depthwise/bn") == 12
        fork = run("gen", "-s", "deploy", "-c", "91", "--batchnorm", "--compat", "mobilenetv2-ssdlite-pinto0309").out
        assert "BatchNorm" in fork
        assert '"conv1/depthwise"' in run("gen", "-s", "deploy", "-c", "21", "-v", "1", "-t", "ssd", *theirs).out

    @pytest.mark.opencv
    def test_layers_of_opencv(self, case: Case, run: Any) -> None:
        case("lint-opencv-layers")
        report = json.loads(run("lint", "shuffle.prototxt", "--runtime", "opencv", "--json").out)
        assert [problem for problem in report["problems"] if problem["severity"] == "error"] == []

    def test_three_bottoms(self, case: Case, run: Any) -> None:
        case("lint-three-bottoms")
        report = json.loads(run("lint", "four.prototxt", "--json").out)
        assert [problem for problem in report["problems"] if problem["severity"] == "error"] == []

    def test_an_unknown_enum_value(self, case: Case, command: Command) -> None:
        case("lint-unknown-enum")
        report = json.loads(command("lint", "pool.prototxt", "--json").out)
        lines = {problem["line"]: problem["text"] for problem in report["problems"]}
        assert "AVE_EXC_PAD" in lines[4]
        assert "dat" in lines[3]
        assert len(report["layers"]) == 2


def test_every_case_is_here(shared_models: Path) -> None:
    folder = shared_models.parent / "cases"
    if not folder.is_dir():
        pytest.skip("no shared/cases beside the repository")
    here = Path(__file__).read_text("utf-8")
    assert [path.name for path in folder.iterdir() if path.is_dir() and f'case("{path.name}")' not in here] == []
