"""Kits: what is written, that it fits together, and that what does not is said before Caffe starts."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.coco.label_map import LabelMap, load_label_map
from ssdlite_caffe.data.lmdb_store import LmdbReader
from ssdlite_caffe.data.lmdb_write import write_lmdb
from ssdlite_caffe.data.voc import open_voc
from ssdlite_caffe.errors import ArchError, DatasetError, LabelMapError, OutputError, PrototxtError, SsdliteError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.options import arch_from_options
from ssdlite_caffe.gen_model.prior_boxes import caffe_prior_boxes, cell_sizes, small_boxes
from ssdlite_caffe.gen_model.render import Solver, render
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel, write_caffemodel
from ssdlite_caffe.prototxt.text import format_message, parse_net, read, read_net
from ssdlite_caffe.resizer import Resizer
from ssdlite_caffe.runtimes.detector import Detector
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from ssdlite_caffe.tools.merge_bn import merge_folder
from ssdlite_caffe.training.intervals import default_test_interval
from ssdlite_caffe.training.kit import KitOptions, batch_size_of_test, write_kit
from ssdlite_caffe.training.kit_boxes import matched_shares, objects_by_label
from ssdlite_caffe.training.kit_check import check_kit, lmdb_facts
from ssdlite_caffe.training.kit_weights import predicted_classes, write_initial_weights
from tests.commands import Command, tree
from tests.datasets import NAMES, some_voc, write_voc

pytestmark = pytest.mark.opencv

ARCH = arch_from_options("2", 2, input_size=(128, 160), width_multiplier=0.35)
FILES = {
    "deploy.prototxt", "headless.prototxt", "kit.json", "labelmap.prototxt", "solver_test.prototxt",
    "solver_train.prototxt", "test.prototxt", "test.sh", "train.prototxt", "train.sh",
}  # fmt: skip


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LMDBs train (5 images) and test (12), and their label map; nobody writes here."""
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("train", 5), ("test", 12)):
        write_lmdb(open_voc([some_voc(folder / f"voc-{name}", count)], "trainval"), folder / name)
    (folder / "names.txt").write_text("\n".join(NAMES))
    return folder


@pytest.fixture
def kit(data: Path, tmp_path: Path) -> Path:
    write_kit(str(data / "names.txt"), ARCH, tmp_path / "kit", KitOptions(lmdbs=(data / "train", data / "test")))
    return tmp_path / "kit"


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class TestWriting:
    def test_all_files(self, kit: Path, data: Path) -> None:
        assert {path.name for path in kit.iterdir()} == FILES
        nets = {name: read_net(kit / f"{name}.prototxt") for name in ("train", "test", "deploy", "headless")}
        sources = {name: net.layer[0].data_param for name, net in nets.items() if name in ("train", "test")}
        for name, source in sources.items():
            assert (kit / source.source).resolve() == (data / name).resolve()
        assert (sources["train"].batch_size, sources["test"].batch_size) == (24, 6)
        evaluate = nets["test"].layer[-1].detection_evaluate_param
        assert evaluate.num_classes == 4
        assert (kit / evaluate.name_size_file).resolve() == (data / "test" / "test_name_size.txt").resolve()
        assert not any(layer.detection_output_param.HasField("save_output_param") for layer in nets["test"].layer)
        assert load_label_map(kit / "labelmap.prototxt") == LabelMap.of_names(NAMES)
        assert json.loads((kit / "kit.json").read_text())["arch"]["num_classes"] == 4

    def test_solvers(self, kit: Path) -> None:
        train = read(kit / "solver_train.prototxt", caffe_pb2.SolverParameter)
        assert (train.train_net, list(train.test_net), list(train.test_iter)) == (
            "train.prototxt",
            ["test.prototxt"],
            [2],
        )
        assert (train.max_iter, train.snapshot_prefix, train.eval_type) == (120000, "snapshot/mobilenet", "detection")
        assert not train.HasField("random_seed")
        test = read(kit / "solver_test.prototxt", caffe_pb2.SolverParameter)
        assert (list(test.test_net), list(test.test_iter), test.max_iter) == (["test.prototxt"], [2], 0)
        assert (test.test_initialization, test.snapshot_after_train, test.snapshot) == (True, False, 0)

    def test_the_solver_is_told(self, data: Path, tmp_path: Path) -> None:
        told = Solver("", base_lr=0.25, max_iter=7, steps=(3,), random_seed=5, mode="CPU", type="Adam", momentum=0.9)
        options = KitOptions(lmdbs=(data / "train", data / "test"), solver=told, batch_size=2, frozen=True)
        write_kit(str(data / "names.txt"), ARCH, tmp_path / "kit", options)
        solver = read(tmp_path / "kit" / "solver_train.prototxt", caffe_pb2.SolverParameter)
        assert (solver.base_lr, solver.max_iter, list(solver.stepvalue), solver.random_seed) == (0.25, 7, [3], 5)
        assert (solver.type, solver.solver_mode) == ("Adam", caffe_pb2.SolverParameter.CPU)
        for name, frozen in (("train", True), ("test", False)):
            norms = [x for x in read_net(tmp_path / "kit" / f"{name}.prototxt").layer if x.type == "BatchNorm"]
            assert norms
            assert all(x.batch_norm_param.use_global_stats == frozen for x in norms)

    @pytest.mark.parametrize("name", ["coco", "voc"])
    def test_the_kits_of_the_repository(self, command: Command, name: str, tmp_path: Path) -> None:
        """`make kits` writes them anew."""
        folder = Path(__file__).resolve().parents[2] / name
        # where they differ, `make kits` writes them anew
        assert command("kit", name, "-o", tmp_path / name).status == 0
        assert tree(tmp_path / name) == tree(folder)
        assert os.access(folder / "train.sh", os.X_OK)
        assert os.access(folder / "test.sh", os.X_OK)

    @pytest.mark.parametrize(("images", "size"), [(4952, 8), (5000, 8), (72, 8), (14, 7), (13, 1), (9, 3), (1, 1)])
    def test_each_image_is_tested_once(self, images: int, size: int) -> None:
        assert batch_size_of_test(images) == size

    @pytest.mark.parametrize(
        ("iterations", "interval"), [(120000, 12000), (1600, 160), (36, 4), (7, 1), (12, 2), (13, 13), (1, 1)]
    )
    def test_the_last_test_is_at_the_end(self, iterations: int, interval: int) -> None:
        assert default_test_interval(iterations) == interval
        assert iterations % interval == 0

    def test_without_tests(self, data: Path, tmp_path: Path) -> None:
        """Caffe refuses a test net without an interval; test.sh tests all the same."""
        options = KitOptions(lmdbs=(data / "train", data / "test"), solver=Solver("", test_interval=0))
        write_kit(str(data / "names.txt"), ARCH, tmp_path / "kit", options)
        train, test = (
            read(tmp_path / "kit" / f"solver_{name}.prototxt", caffe_pb2.SolverParameter) for name in ("train", "test")
        )
        assert (list(train.test_net), train.test_interval) == ([], 0)
        assert (list(test.test_net), test.test_interval) == (["test.prototxt"], 1)

    def test_own_classes_need_data(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="give --train and --test"):
            write_kit(str(data / "names.txt"), ARCH, tmp_path / "kit")

    def test_never_over_snapshots_or_data(self, kit: Path, data: Path) -> None:
        options = KitOptions(lmdbs=(data / "train", data / "test"))
        names = str(data / "names.txt")
        with pytest.raises(OutputError, match="exists already"):
            write_kit(names, ARCH, kit, options)
        write_kit(names, ARCH, kit, options, force=True)
        (kit / "snapshot").mkdir()
        (kit / "snapshot" / "mobilenet_iter_9.caffemodel").write_bytes(b"days of work")
        before = tree(kit)
        with pytest.raises(OutputError, match="holds snapshot, which `kit` did not write"):
            write_kit(names, ARCH, kit, options, force=True)
        inside = KitOptions(lmdbs=(data / "train", data / "test"))
        with pytest.raises(OutputError, match="lies in"):
            write_kit(names, ARCH, data, inside, force=True)
        assert tree(kit) == before

    def test_moved_together(self, data: Path, tmp_path: Path) -> None:
        shutil.copytree(data, tmp_path / "one" / "data")
        lmdbs = (tmp_path / "one" / "data" / "train", tmp_path / "one" / "data" / "test")
        write_kit(str(data / "names.txt"), ARCH, tmp_path / "one" / "kit", KitOptions(lmdbs=lmdbs))
        (tmp_path / "one").rename(tmp_path / "other")
        assert check_kit(tmp_path / "other" / "kit").train.images == 5


class TestWeights:
    @pytest.fixture
    def named(self, example_folder: Path, tmp_path: Path) -> Path:
        """The example model, with other classes' names than the data's."""
        return Path(shutil.copytree(example_folder, tmp_path / "model"))

    def options(self, data: Path, source: Path, *, finetune: bool) -> KitOptions:
        return KitOptions(lmdbs=(data / "train", data / "test"), source=source, finetune=finetune)

    def test_the_same_classes_keep_their_predictors(self, named: Path, data: Path, tmp_path: Path) -> None:
        (named / "labelmap.prototxt").write_text(LabelMap.of_names(NAMES).to_prototxt())
        arch = ModelFolder.open(named).arch
        for finetune in (False, True):
            kit = tmp_path / f"kit{finetune}"
            report = write_kit(str(data / "names.txt"), arch, kit, self.options(data, named, finetune=finetune))
            assert report["initial"]["left_to_fillers"] == []
            assert read_caffemodel(kit / "initial.caffemodel") == read_caffemodel(named / "train.caffemodel")

    def test_other_classes_start_anew(self, named: Path, data: Path, tmp_path: Path) -> None:
        arch = ModelFolder.open(named).arch
        report = write_kit(str(data / "names.txt"), arch, tmp_path / "kit", self.options(data, named, finetune=True))
        left = report["initial"]["left_to_fillers"]
        assert left == [m.conf[-1].name for m in build(arch).feature_maps]
        source = {x.name: x for x in read_caffemodel(named / "train.caffemodel").layer}
        initial = {x.name: x for x in read_caffemodel(tmp_path / "kit" / "initial.caffemodel").layer}
        assert initial.keys() == source.keys() - set(left)
        assert all(
            blob_to_array(a).tobytes() == blob_to_array(b).tobytes()
            for name in initial
            for a, b in zip(initial[name].blobs, source[name].blobs, strict=True)
        )
        assert check_kit(tmp_path / "kit").weights == tmp_path / "kit" / "initial.caffemodel"

    def test_other_names_are_refused(self, command: Command, named: Path, data: Path, tmp_path: Path) -> None:
        """With as many classes, too: the model's predictors would be taken for other classes'."""
        arguments = ("kit", data / "names.txt", "--train", data / "train", "--test", data / "test", "--from", named)
        for names, said in (
            ((NAMES[0], "star", "moon"), f"has no {NAMES[1]!r}, {NAMES[2]!r}, but 'star', 'moon'; give --finetune"),
            (("class_1", "class_2", "class_3"), "has no class names (only class_1, class_2, ...); give --finetune"),
        ):
            (named / "labelmap.prototxt").write_text(LabelMap.of_names(names).to_prototxt())
            before = tree(tmp_path)
            for quiet in ((), ("--quiet",)):
                done = command(*arguments, "-o", tmp_path / "kit", *quiet)
                assert (done.status, done.err.count("\n")) == (1, 1)
                assert said in done.err
            assert tree(tmp_path) == before
            anew = command(*arguments, "-o", tmp_path / "anew", "--finetune", "--force")
            assert anew.err == ""
            predictors = [m.conf[-1].name for m in build(ModelFolder.open(named).arch).feature_maps]
            assert f"6 class predictors start anew, since the model has no {said[7:20]}" in anew.out
            assert ", ".join(predictors) + "\n" in anew.out

    def test_another_order_is_moved(self, command: Command, named: Path, data: Path, tmp_path: Path) -> None:
        """The row of a class stays that class's, bit for bit; with --finetune, too, since no class is another."""
        turned = (NAMES[2].upper(), NAMES[0], NAMES[1])
        (named / "labelmap.prototxt").write_text(LabelMap.of_names(turned).to_prototxt())
        arguments = ("kit", data / "names.txt", "--train", data / "train", "--test", data / "test", "--from", named)
        for more in ((), ("--finetune",)):
            kit = tmp_path / f"kit{len(more)}"
            done = command(*arguments, "-o", kit, *more)
            assert (done.status, done.err.count("\n")) == (0, 2)
            assert f"taken as the same classes as in {named}: 3 is {NAMES[2]!r}, was {turned[0]!r}\n" in done.err
            assert "in another order: the rows of its class predictors are moved\n" in done.err
            assert "anew" not in done.out
            old, new = (
                {x.name: [blob_to_array(b) for b in x.blobs] for x in read_caffemodel(path).layer}
                for path in (named / "train.caffemodel", kit / "initial.caffemodel")
            )
            assert old.keys() == new.keys()
            for name, blobs in new.items():
                for blob, before in zip(blobs, old[name], strict=True):
                    if name.endswith("_mbox_conf"):
                        rows = before.reshape(-1, 4, *before.shape[1:])[:, [0, 2, 3, 1]]
                        assert (blob == rows.reshape(before.shape)).all()
                    else:
                        assert (blob == before).all()
            assert check_kit(kit).weights == kit / "initial.caffemodel"

    def test_a_letterbox_is_squashed_and_that_is_said(
        self, command: Command, named: Path, data: Path, tmp_path: Path
    ) -> None:
        (named / "labelmap.prototxt").write_text(LabelMap.of_names(NAMES).to_prototxt())
        report = json.loads((named / "report.json").read_text())
        resizer = Resizer("keep_aspect_ratio", min_dimension=320, max_dimension=320)
        report["arch"]["resizer"] = dataclasses.asdict(resizer)
        (named / "report.json").write_text(json.dumps(report))
        arguments = ("kit", data / "names.txt", "--train", data / "train", "--test", data / "test", "--from", named)
        made = command(*arguments, "-o", tmp_path / "kit")
        assert made.err == (
            f"ssdlite-caffe: images of {named} are resized by {resizer.text()}; this training squashes them to the "
            "input size, and so will the trained detector\n"
        )
        merge_folder(tmp_path / "kit", tmp_path / "kit" / "initial.caffemodel", tmp_path / "merged")
        assert ModelFolder.open(named).arch.resizer == resizer
        assert ModelFolder.open(tmp_path / "merged").arch.resizer == Resizer()

    def test_another_name_of_the_background(self, named: Path, data: Path, tmp_path: Path) -> None:
        text = LabelMap.of_names(NAMES).to_prototxt()
        assert 'display_name: "background"' in text
        other = text.replace('display_name: "background"', 'display_name: "none_of_the_above"')
        (named / "labelmap.prototxt").write_text(other)
        arch = ModelFolder.open(named).arch
        report = write_kit(str(data / "names.txt"), arch, tmp_path / "kit", self.options(data, named, finetune=True))
        assert report["initial"]["left_to_fillers"] == []

    def test_other_counts_are_shown(self, example_folder: Path, data: Path, tmp_path: Path) -> None:
        more = tmp_path / "more.txt"
        more.write_text("\n".join([*NAMES, "star"]))
        arch = ModelFolder.open(example_folder).arch
        with pytest.raises(LabelMapError, match="do not agree; --finetune starts from") as caught:
            write_kit(str(more), arch, tmp_path / "kit", self.options(data, example_folder, finetune=False))
        said = [line.split(":")[0].split() for line in str(caught.value).splitlines()[1:]]
        assert said == [["5", "label", "map"], ["5", "net"], ["4", "LMDB"], ["4", "LMDB"], ["4", "weights"]]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["more.txt"]

    def test_without_trained_weights(self, named: Path, data: Path, tmp_path: Path) -> None:
        (named / "train.caffemodel").unlink()
        arch = ModelFolder.open(named).arch
        with pytest.raises(PrototxtError, match=r"has no train\.caffemodel"):
            write_kit(str(data / "names.txt"), arch, tmp_path / "kit", self.options(data, named, finetune=True))
        assert not (tmp_path / "kit").exists()

    def test_a_trained_kit_is_merged(self, named: Path, data: Path, tmp_path: Path) -> None:
        """merge-bn takes a kit with the weights that it starts from; those are the converted model's."""
        (named / "labelmap.prototxt").write_text(LabelMap.of_names(NAMES).to_prototxt())
        arch = ModelFolder.open(named).arch
        write_kit(str(data / "names.txt"), arch, tmp_path / "kit", self.options(data, named, finetune=False))
        merge_folder(tmp_path / "kit", tmp_path / "kit" / "initial.caffemodel", tmp_path / "merged")
        assert ModelFolder.open(tmp_path / "merged").arch.num_classes == 4

    def test_small_boxes_find_the_same(
        self, named: Path, data: Path, tmp_path: Path, scene_images: list[tuple[str, np.ndarray]]
    ) -> None:
        """The weights are made over for the small boxes; nets, kit.json and what merge-bn makes of it all have them."""
        (named / "labelmap.prototxt").write_text(LabelMap.of_names(NAMES).to_prototxt())
        model = ModelFolder.open(named)
        options = dataclasses.replace(self.options(data, named, finetune=False), small_boxes=True)
        report = write_kit(str(data / "names.txt"), model.arch, tmp_path / "kit", options)
        small = ArchSpec.from_dict(report["arch"])
        assert min(small.boxes[0].sizes) < min(cell_sizes(build(model.arch).feature_maps[0].prior, (320, 320)))
        for name in ("train", "test", "deploy", "headless"):
            net = read_net(tmp_path / "kit" / f"{name}.prototxt")
            first = next(layer.prior_box_param for layer in net.layer if layer.type == "PriorBox")
            assert (list(first.min_size), list(first.max_size), list(first.aspect_ratio)) == ([32], [128], [2])
            assert not first.flip
        merge_folder(tmp_path / "kit", tmp_path / "kit" / "initial.caffemodel", tmp_path / "merged")
        merged = ModelFolder.open(tmp_path / "merged")
        assert merged.arch.boxes == small.boxes
        detectors = [Detector(folder, runtime="opencv") for folder in (model, merged)]
        found = 0
        for _, image in scene_images[:3]:
            before, after = (detector(image) for detector in detectors)
            sure = before.scores > 0.1
            found += int(sure.sum())
            np.testing.assert_allclose(after.scores[: len(before.scores)][sure], before.scores[sure], atol=1e-5)
            np.testing.assert_allclose(after.boxes[: len(before.boxes)][sure], before.boxes[sure], atol=1e-5)
        assert found >= 3

    def test_constant_boxes_and_prior_boxes(self, example_model: Path, example_folder: Path, tmp_path: Path) -> None:
        """Weights of either take the form of the other, as `convert` would have written them."""
        constant = Dialect(priors="constant")
        convert(example_model, tmp_path / "constant", ConvertOptions(dialect=constant))
        folders = {"layer": example_folder, "constant": tmp_path / "constant"}
        model = ModelFolder.open(example_folder)
        desc = build(model.arch)
        for source, target in (("layer", "constant"), ("constant", "layer"), ("constant", "constant")):
            dialect = dataclasses.replace(Dialect(batch_norm="keep"), priors=target)  # type: ignore[arg-type]
            net, out = parse_net(render(desc, dialect, "train")), tmp_path / f"{source}-{target}.caffemodel"
            labels = ModelFolder.open(folders[source]).labels
            write_initial_weights(out, net, desc, labels, folders[source], finetune=False)
            found, expected = (
                {layer.name: [blob_to_array(blob, "") for blob in layer.blobs] for layer in read_caffemodel(path).layer}
                for path in (out, folders[target] / "train.caffemodel")
            )
            assert {name for name in found if found[name]} == {name for name in expected if expected[name]}
            for name, blobs in expected.items():
                for one, other in zip(found.get(name, []), blobs, strict=True):
                    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=name)

    def test_constant_boxes_need_weights(self, data: Path, tmp_path: Path) -> None:
        options = KitOptions(lmdbs=(data / "train", data / "test"), dialect=Dialect(priors="constant"))
        with pytest.raises(ArchError, match="--priors constant are in the weights, which a kit has only with --from"):
            write_kit(str(data / "names.txt"), ARCH, tmp_path / "out", options)

    def test_small_boxes_twice(self, named: Path, data: Path, tmp_path: Path) -> None:
        arch = ModelFolder.open(named).arch
        first, *rest = arch.boxes
        arch = dataclasses.replace(arch, boxes=(small_boxes(first, arch.input_size), *rest))
        options = KitOptions(lmdbs=(data / "train", data / "test"), small_boxes=True)
        with pytest.raises(ArchError, match="leave out --small-boxes"):
            write_kit(str(data / "names.txt"), arch, tmp_path / "kit", options)

    @pytest.mark.parametrize(
        ("layers", "count"),
        [
            ({"a_mbox_loc": 12, "a_mbox_conf": 63, "b_mbox_loc": 24, "b_mbox_conf": 126}, 21),
            ({"a_mbox_loc": 12, "a_mbox_conf": 63, "b_mbox_loc": 24, "b_mbox_conf": 120}, None),
            ({"a_mbox_loc": 12, "a_mbox_conf": 64}, None),
            ({"a_mbox_conf": 64, "x": 3}, None),
            ({}, None),
        ],
    )
    def test_counting_predictors(self, layers: dict[str, int], count: int | None) -> None:
        assert predicted_classes(layers) == count


class TestDefaultBoxes:
    def test_shares(self, tmp_path: Path) -> None:
        """An object that is a default box is matched, one of a third its size is not; each class for itself."""
        net = build(default_arch("v2", 3))
        box = caffe_prior_boxes(net.feature_maps[0].prior, (19, 19), (300, 300))[3 * 19 * 9 + 3 * 9]
        middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        tiny = np.concatenate([middle - size / 6, middle + size / 6])
        objects = {1: box[None], 2: np.stack([tiny, box, tiny, tiny])}
        assert matched_shares(net, objects) == {1: 1.0, 2: 0.25}

    def test_objects_of_an_lmdb(self, data: Path) -> None:
        found = objects_by_label(data / "train")
        with LmdbReader(data / "train") as reader:
            records = [caffe_pb2.AnnotatedDatum.FromString(value) for _, value in reader]
        groups = [group for record in records for group in record.annotation_group]
        assert {label: len(boxes) for label, boxes in found.items()} == {
            label: sum(len(group.annotation) for group in groups if group.group_label == label)
            for label in {group.group_label for group in groups}
        }
        fewer = objects_by_label(data / "train", 1)
        assert sum(map(len, fewer.values())) == sum(len(group.annotation) for group in records[0].annotation_group)

    def test_it_is_told(self, command: Command, tmp_path: Path) -> None:
        """Objects of a tenth of the image's sides: none has a default box, all have with small boxes."""
        root = write_voc(tmp_path / "voc", {"p": [("dot", (37, 22, 44, 26), 0)]})
        lmdb, names = tmp_path / "lmdb", tmp_path / "names.txt"
        names.write_text("dot\n")
        write_lmdb(open_voc([root], "trainval"), lmdb)
        arguments = ("kit", names, "--train", lmdb, "--test", lmdb, "--input-size", "300")
        said = command(*arguments, "-o", tmp_path / "kit").out
        assert "dot: only 0.0% of the objects match a default box (IoU 0.5 or more); 100.0% with --small-boxes" in said
        said = command(*arguments, "-o", tmp_path / "small", "--small-boxes").out
        assert "default box" not in said


class TestCheck:
    def test_a_good_one(self, kit: Path, data: Path) -> None:
        found = check_kit(kit)
        assert (found.train.images, found.test[0].images, found.weights) == (5, 12, None)
        assert found.train.labels == LabelMap.of_names(NAMES)

    @pytest.mark.parametrize(
        ("file", "old", "new", "kind", "what"),
        [
            ("solver_train.prototxt", 'train_net: "train', 'train_net: "none', PrototxtError, "names none.prototxt"),
            ("solver_train.prototxt", 'train_net: "train.prototxt"', "", PrototxtError, "names no train_net"),
            ("train.prototxt", 'data/train"', 'data/none"', DatasetError, "there is no .*write it with"),
            ("test.prototxt", 'data/test"', 'data/voc-test"', DatasetError, r"it has no data\.mdb"),
            ("test.prototxt", "labelmap.prototxt", "none.prototxt", LabelMapError, "label map 'none.prototxt'"),
            ("test.prototxt", "test_name_size.txt", "none.txt", DatasetError, r"name_size_file .*none\.txt'"),
            ("test.prototxt", "test/test_name_size", "train/test_name_size", DatasetError, "has 5 images"),
        ],
    )  # fmt: skip
    def test_what_is_missing(
        self, data: Path, tmp_path: Path, file: str, old: str, new: str, kind: type[SsdliteError], what: str
    ) -> None:
        shutil.copytree(data, tmp_path / "data")
        lmdbs = (tmp_path / "data" / "train", tmp_path / "data" / "test")
        write_kit(str(data / "names.txt"), ARCH, tmp_path / "kit", KitOptions(lmdbs=lmdbs))
        change(tmp_path / "kit" / file, old, new)
        with pytest.raises(kind, match=what) as caught:
            check_kit(tmp_path / "kit")
        assert "\n" not in str(caught.value)

    def test_no_kit(self, tmp_path: Path) -> None:
        with pytest.raises(PrototxtError, match="is not a folder"):
            check_kit(tmp_path / "none")
        with pytest.raises(PrototxtError, match=r"solver_train\.prototxt"):
            check_kit(tmp_path)

    def test_all_counts_are_shown(self, kit: Path, data: Path, tmp_path: Path) -> None:
        change(kit / "train.prototxt", "num_classes: 4", "num_classes: 5")
        with pytest.raises(LabelMapError, match="do not agree:") as caught:
            check_kit(kit)
        said = [" ".join(line.split(":")[0].split()[:2]) for line in str(caught.value).splitlines()[1:]]
        assert said == ["4 label", "4 LMDB", "5 net,", "4 net,", "4 label", "4 LMDB", "4 net,", "4 net,", "4 net,"]

    def test_weights_of_another_net(self, kit: Path, example_folder: Path) -> None:
        with pytest.raises(PrototxtError, match=r"does not fit .*train\.prototxt:\n  layer"):
            check_kit(kit, weights=example_folder / "train.caffemodel")
        other = caffe_pb2.NetParameter()
        other.layer.add(name="unknown")
        write_caffemodel(kit / "w.caffemodel", other)
        with pytest.raises(PrototxtError, match="no layer has the name of a layer"):
            check_kit(kit, weights=kit / "w.caffemodel")

    def test_classes_in_another_order(self, kit: Path) -> None:
        turned = LabelMap.of_names(NAMES[::-1])
        (kit / "labelmap.prototxt").write_text(turned.to_prototxt())
        with pytest.raises(LabelMapError, match="label 1 is 'triangle' in the folder's label map and 'circle' in"):
            check_kit(kit)

    def test_an_lmdb_without_label_map(self, kit: Path, data: Path, tmp_path: Path) -> None:
        bare = tmp_path / "bare"
        bare.mkdir()
        shutil.copy(data / "test" / "data.mdb", bare)
        assert lmdb_facts(bare) == (12, None, 3)
        net = read_net(kit / "train.prototxt")
        net.layer[0].data_param.source = str(bare)
        (kit / "train.prototxt").write_text(format_message(net))
        assert check_kit(kit).train.images == 12
        (kit / "labelmap.prototxt").write_text(LabelMap.of_names(NAMES[:2]).to_prototxt())
        with pytest.raises(LabelMapError, match="4  LMDB, at least: "):
            check_kit(kit)

    def test_detections_are_never_saved_over_anything(self, kit: Path) -> None:
        net = read_net(kit / "test.prototxt")
        layer = next(layer for layer in net.layer if layer.type == "DetectionOutput")
        layer.detection_output_param.save_output_param.output_directory = "results"
        (kit / "test.prototxt").write_text(format_message(net))
        check_kit(kit)
        (kit / "results").mkdir()
        check_kit(kit)
        (kit / "results" / "thesis.tex").write_text("years of work")
        with pytest.raises(OutputError, match="not empty, and Caffe would delete its files"):
            check_kit(kit)


class TestScripts:
    @pytest.fixture
    def caffe(self, tmp_path: Path) -> Path:
        """A program that prints where it runs and its arguments; it has the GPUs that the variable GPUS lists."""
        path = tmp_path / "bin" / "caffe"
        path.parent.mkdir()
        path.write_text(
            '#!/bin/sh\nif [ "$1" = device_query ]; then\n  case " ${GPUS:-} " in *" $3 "*) exit ;; esac\n'
            '  echo trace >&2; kill -ABRT $$\nfi\npwd\nfor word in "$@"; do echo "$word"; done\n'
        )
        path.chmod(0o755)
        return path

    def run(self, script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script, *arguments], env={**os.environ, **environment}, cwd=script.parent.parent, text=True,
            capture_output=True, check=False,
        )  # fmt: skip

    def test_train(self, kit: Path, caffe: Path) -> None:
        arguments = ["train", "-solver", "solver_train.prototxt"]
        done = self.run(kit / "train.sh", CAFFE=str(caffe))
        assert done.stdout.splitlines() == [str(kit.resolve()), *arguments]
        assert done.stderr == f"{kit / 'train.sh'}: running on the CPU\n"
        path = f"{caffe.parent}:{os.environ['PATH']}"
        (kit / "initial.caffemodel").write_bytes(b"")
        found = self.run(kit / "train.sh", "-gpu", "0", PATH=path, GPUS="0").stdout.splitlines()[1:]
        assert found == [*arguments, "-weights", "initial.caffemodel", "-gpu", "0"]
        for option in ("-snapshot", "--weights"):
            found = self.run(kit / "train.sh", option, "a b", PATH=path).stdout.splitlines()[1:]
            assert found == [*arguments, option, "a b"]
        assert (kit / "snapshot").is_dir()

    def test_test(self, kit: Path, caffe: Path) -> None:
        assert self.run(kit / "test.sh", CAFFE=str(caffe)).returncode == 2
        run = self.run(kit / "test.sh", "kit/w.caffemodel", "-gpu", "1", CAFFE=str(caffe), GPUS="0 1")
        weights = str(kit.parent / "kit" / "w.caffemodel")
        arguments = ["train", "-solver", "solver_test.prototxt", "-weights", weights, "-gpu", "1"]
        assert run.stdout.splitlines() == [str(kit.resolve()), *arguments]

    @pytest.mark.parametrize(
        ("mode", "gpus", "option", "said", "gpu"),
        [
            ("", "0", (), "running on GPU 0", ["-gpu", "0"]),
            ("", "0 1", ("--gpu=1",), "", ["--gpu=1"]),
            ("CPU", "0", (), "running on the CPU", []),
            ("GPU", "0", (), "running on GPU 0", ["-gpu", "0"]),
            ("GPU", "", (), "solver_train.prototxt has solver_mode: GPU, and", None),
            ("", "0", ("-gpu", "1"), "cannot use GPU 1 here; leave out -gpu to run on the CPU", None),
            ("", "", ("--gpu=0",), "cannot use GPU 0 here; leave out -gpu to run on the CPU", None),
        ],
    )  # fmt: skip
    def test_where_it_runs(
        self, kit: Path, caffe: Path, mode: str, gpus: str, option: tuple[str, ...], said: str, gpu: list[str] | None
    ) -> None:
        """Decided when the script starts, in a line at most: Caffe itself would abort with a stack trace."""
        if mode:
            with (kit / "solver_train.prototxt").open("a") as solver:
                solver.write(f"solver_mode: {mode}\n")
        run = self.run(kit / "train.sh", *option, CAFFE=str(caffe), GPUS=gpus)
        assert said in run.stderr
        assert len(run.stderr.splitlines()) == bool(said)
        if gpu is None:
            assert (run.returncode, run.stdout) == (1, "")
        else:
            assert run.stdout.splitlines()[1:] == ["train", "-solver", "solver_train.prototxt", *gpu]

    def test_missing_data(self, kit: Path, caffe: Path, data: Path) -> None:
        change(kit / "train.sh", "/train/data.mdb", "/none/data.mdb")
        run = self.run(kit / "train.sh", CAFFE=str(caffe))
        assert run.returncode == 1
        assert run.stdout == ""
        assert "none/data.mdb is missing" in run.stderr
        assert len(run.stderr.splitlines()) == 1


class TestCommand:
    def test_it(self, command: Command, data: Path, tmp_path: Path) -> None:
        arguments = (
            "kit",
            data / "names.txt",
            "-o",
            tmp_path / "kit",
            "--train",
            data / "train",
            "--test",
            data / "test",
        )
        small = (
            "--input-size",
            "128x160",
            "--width-multiplier",
            "0.35",
            "--iterations",
            "60",
            "--seed",
            "4",
            "--drops",
            "20,40",
            "--loc-weight",
            "0.25",
        )
        result = command(*arguments, *small)
        assert (result.status, result.err) == (0, "")
        assert "4 classes, background included" in result.out
        solver = read(tmp_path / "kit" / "solver_train.prototxt", caffe_pb2.SolverParameter)
        assert (list(solver.stepvalue), solver.random_seed, solver.max_iter) == ([20, 40], 4, 60)
        assert solver.test_interval == 6
        train = read(tmp_path / "kit" / "train.prototxt", caffe_pb2.NetParameter)
        assert train.layer[-1].multibox_loss_param.loc_weight == 0.25
        assert not solver.HasField("solver_mode"), "left to what starts Caffe"
        assert json.loads(command(*arguments, *small, "--force", "--json").out)["train"]["images"] == 5

    @pytest.mark.parametrize(
        "options",
        [
            ["--train", "x"], ["--finetune"], ["--freeze-bn"], ["--from", "x", "--version", "2"], ["--drops", "1,x"],
            ["--input-size", "0"], ["--batch-size", "0"], ["--mode", "TPU"], ["--learning-rate", "nan"],
            ["--learning-rate", "inf"], ["--zoom", "nan"], ["--weight-decay", "inf"], ["--drops", "5,3"],
            ["--drops", "5,5"], ["--drops", "5,120000"], ["--iterations", "2147483648"],
            ["--batch-size", "2147483648"], ["--seed", "5000000000"], ["--score-threshold", "nan"],
            ["--loc-weight", "-1"], ["--loc-weight", "nan"], ["--loc-weight", "1e9"],
        ],
        ids=" ".join,
    )  # fmt: skip
    def test_wrong_usage(self, command: Command, tmp_path: Path, options: list[str]) -> None:
        assert command("kit", "voc", "-o", tmp_path / "kit", *options).status == 2
        assert list(tmp_path.iterdir()) == []

    def test_refused(self, refused: Command, data: Path, tmp_path: Path) -> None:
        lmdbs = ("--train", data / "train", "--test", tmp_path / "none")
        assert "is not an LMDB" in refused("kit", data / "names.txt", "-o", tmp_path / "kit", *lmdbs).err
        lmdbs = ("--train", data / "train", "--test", data / "test")
        assert "do not agree" in refused("kit", "voc", "-o", tmp_path / "kit", *lmdbs).err
        assert "does not exist" in refused("kit", "voc", "-o", tmp_path / "kit", "--from", tmp_path / "no").err

    def test_nothing_there(self, refused: Command, tmp_path: Path) -> None:
        none = tmp_path / "none"
        assert f"{none} does not exist" in refused("merge-bn", none, "-o", tmp_path / "out").err
        assert f"{none} does not exist" in refused("evaluate", none, "--data", tmp_path).err


@pytest.fixture(scope="module")
def sliced(example_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example model in another dialect."""
    out = tmp_path_factory.mktemp("sliced") / "out"
    convert(example_model, out, ConvertOptions(dialect=Dialect("stock", "slice", "keep", engine="CAFFE")))
    return out


class TestDialectOfFrom:
    """`kit --from` writes its nets as the folder's are, or converts the kernels for another padding."""

    def kit(self, command: Command, data: Path, source: Path, out: Path, *options: str) -> Path:
        names = ("kit", data / "names.txt", "--train", data / "train", "--test", data / "test")
        done = command(*names, "--from", source, "--finetune", "-o", out, *options)
        assert done.status == 0, done.err
        return out

    def test_the_folder_s(self, command: Command, data: Path, sliced: Path, tmp_path: Path) -> None:
        kit = self.kit(command, data, sliced, tmp_path / "kit")
        for name in ("train", "test"):
            assert read_net(kit / f"{name}.prototxt").layer[1:-2] == read_net(sliced / f"{name}.prototxt").layer[1:-2]
        assert "BatchNorm" not in {layer.type for layer in read_net(kit / "deploy.prototxt").layer}

    def test_another_padding(
        self, command: Command, data: Path, sliced: Path, example_folder: Path, tmp_path: Path
    ) -> None:
        exact = self.kit(command, data, sliced, tmp_path / "exact", "--padding", "exact")
        back = self.kit(command, data, example_folder, tmp_path / "back", "--padding", "slice")
        for kit, folder in ((exact, example_folder), (back, sliced)):
            expected = {layer.name: layer for layer in read_caffemodel(folder / "train.caffemodel").layer}
            layers = [layer for layer in read_caffemodel(kit / "initial.caffemodel").layer if layer.blobs]
            assert len(layers) > 100
            for layer in layers:
                for ours, theirs in zip(layer.blobs, expected[layer.name].blobs, strict=True):
                    np.testing.assert_array_equal(blob_to_array(ours), blob_to_array(theirs))

    def test_taps_that_were_trained(self, command: Command, data: Path, example_folder: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(example_folder, tmp_path / "trained"))
        net = read_caffemodel(copy / "train.caffemodel")
        layer = next(layer for layer in net.layer if layer.name == "Conv")
        layer.blobs[0].data[0] = 0.5
        write_caffemodel(copy / "train.caffemodel", net, force=True)
        names = ("kit", data / "names.txt", "--train", data / "train", "--test", data / "test", "--from", copy)
        done = command(*names, "--finetune", "--padding", "slice", "-o", tmp_path / "kit")
        assert done.status == 1
        assert done.err.splitlines()[1:] == [
            "  layer 'Conv' has 4x4 kernels whose first row and column are not zero, the net 3x3 ones; give the "
            "--padding that the weights have"
        ]
        assert not (tmp_path / "kit").exists()
        self.kit(command, data, copy, tmp_path / "same")
