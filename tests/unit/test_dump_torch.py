"""Reading state_dicts: the forms of files, which weights of a checkpoint, and what is refused by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.arrays import FloatArray
from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.dump.torch.state_dict import read_state_dict
from ssdlite_caffe.dump.torch.torchvision import default_boxes, layers
from ssdlite_caffe.errors import MissingRuntimeError, ModelError, TensorError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
from ssdlite_caffe.gen_model.prior_boxes import cell_sizes
from ssdlite_caffe.gen_model.torchvision import torchvision_arch
from ssdlite_caffe.load.identify import identify
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import ConvertOptions, convert
from tests.torch_files import (
    ORDERED_DICT,
    call,
    legacy_file,
    named,
    new,
    random_weights,
    tensors_of,
    write_state_dict,
    zip_file,
)

Weights = dict[str, FloatArray]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights(5)


@pytest.fixture(scope="module")
def whole(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> DumpedModel:
    return read_model(write_state_dict(tmp_path_factory.mktemp("whole") / "weights.pth", weights))


def same(one: DumpedModel, other: DumpedModel) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        np.array_equal(value, other.tensors[name]) for name, value in one.tensors.items()
    )


def arch_of(model: DumpedModel) -> ArchSpec:
    return identify(model)[1]


class TestModel:
    def test_every_tensor_keeps_its_bits(self, whole: DumpedModel, weights: Weights) -> None:
        by_name = {name: (layer, part) for layer in layers() for part, name in layer.parts.items()}
        assert whole.tensors.keys() == weights.keys()
        for name, moved in whole.tensors.items():
            layer, part = by_name[name]
            back = moved
            if part == "weights":
                back = moved.transpose(2, 3, 0, 1) if layer.depthwise else moved.transpose(3, 2, 0, 1)
            if "regression_head" in name and ".1." in name.split("module_list.")[1][1:4]:
                back = back.reshape(-1, 4, *back.shape[1:])[:, [1, 0, 3, 2]].reshape(back.shape)
            assert np.array_equal(back, weights[name]), name

    def test_settings_are_torchvisions(self, whole: DumpedModel) -> None:
        arch = arch_of(whole)
        wanted = torchvision_arch(5)
        sizes = [np.asarray([cell.sizes for cell in one.boxes]) for one in (arch, wanted)]
        np.testing.assert_allclose(*sizes, rtol=0, atol=1e-7)
        assert dataclasses.replace(arch, boxes=wanted.boxes) == wanted

    @pytest.mark.parametrize(("classes", "full_tail"), [(2, False), (91, True)])
    def test_class_count_and_tail_are_told_from_shapes(self, classes: int, full_tail: bool, tmp_path: Path) -> None:
        made = random_weights(classes, full_tail=full_tail)
        arch = arch_of(read_model(write_state_dict(tmp_path / "a.pth", made)))
        assert (arch.num_classes, arch.full_tail) == (classes, full_tail)

    def test_default_boxes_are_those_of_the_cells(self) -> None:
        made = tf_default_boxes(build(torchvision_arch(3)))
        np.testing.assert_allclose(default_boxes(), made, rtol=0, atol=2e-7)

    def test_boxes_that_are_cut_have_the_prior_box_that_they_were_cut_from(self) -> None:
        for m in build(torchvision_arch(3)).feature_maps:
            assert m.prior.aspect_ratios == (2, 3)
            assert m.prior.flip
            cut = np.minimum(cell_sizes(m.prior, (320, 320)), 1)
            np.testing.assert_allclose(sorted(map(tuple, cut)), sorted(m.tf_boxes), rtol=1e-6)


class TestForms:
    def test_legacy_file(self, whole: DumpedModel, weights: Weights, tmp_path: Path) -> None:
        assert same(read_model(legacy_file(tmp_path / "old.pt", *tensors_of(weights))), whole)

    def test_any_suffix(self, whole: DumpedModel, weights: Weights, tmp_path: Path) -> None:
        assert same(read_model(write_state_dict(tmp_path / "last.ckpt", weights)), whole)
        assert same(read_model(legacy_file(tmp_path / "model.bin", *tensors_of(weights))), whole)

    def test_folder_with_one(self, whole: DumpedModel, weights: Weights, tmp_path: Path) -> None:
        write_state_dict(tmp_path / "weights.pth", weights)
        assert same(read_model(tmp_path), whole)

    def test_folder_with_two(self, tmp_path: Path) -> None:
        for name in ("epoch1.pth", "epoch2.pt"):
            (tmp_path / name).touch()
        with pytest.raises(ModelError, match=r"holds 2 files of PyTorch \(epoch1.pth, epoch2.pt\); give one of them"):
            locate(tmp_path)

    def test_safetensors(self, whole: DumpedModel, weights: Weights, tmp_path: Path) -> None:
        numpy = pytest.importorskip("safetensors.numpy")
        numpy.save_file(weights, tmp_path / "weights.safetensors")
        assert same(read_model(tmp_path / "weights.safetensors"), whole)

    def test_half_precision(self, weights: Weights, tmp_path: Path) -> None:
        halved = {name: one.astype(np.float16) for name, one in weights.items()}
        found = read_state_dict(write_state_dict(tmp_path / "a.pth", halved)).tensors
        assert all(np.array_equal(found[name].as_float32(), one.astype(np.float32)) for name, one in halved.items())

    def test_bfloat16(self, tmp_path: Path) -> None:
        upper = np.asarray([0x3F80, 0xC040, 0x0000], np.uint16)  # 1, -3, 0
        found = read_state_dict(write_state_dict(tmp_path / "a.pth", {"a": upper, "b": upper})).tensors
        assert found["a"].as_float32().tolist() == [1.0, -3.0, 0.0]

    def test_double_precision_is_said(self, weights: Weights, tmp_path: Path) -> None:
        double = {name: one.astype(np.float64) for name, one in weights.items()}
        model = read_model(write_state_dict(tmp_path / "a.pth", double))
        assert f"{len(weights)} tensors of float64 are rounded to float32" in model.notes

    def test_parameters(self, tmp_path: Path) -> None:
        made, storages = tensors_of({"a": np.ones(2, np.float32), "b": np.zeros(2, np.float32)})
        wrapped = {
            name: call(named("torch._utils", "_rebuild_parameter"), one, True, ORDERED_DICT)
            for name, one in made.items()
        }
        found = read_state_dict(zip_file(tmp_path / "a.pth", wrapped, storages)).tensors
        assert found["a"].as_float32().tolist() == [1, 1]


class TestCheckpoints:
    """Which weights of a training checkpoint are read."""

    @pytest.fixture
    def made(self, weights: Weights) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Tensors of the weights and, under other keys, of twice the weights."""
        both = {**weights, **{f"twice.{name}": one * 2 for name, one in weights.items()}}
        return tensors_of(both)

    @pytest.fixture
    def write(self, made: tuple[dict[str, Any], dict[str, bytes]], tmp_path: Path) -> Callable[..., Path]:
        tensors, storages = made
        once = {name: one for name, one in tensors.items() if not name.startswith("twice.")}
        twice = {name: tensors[f"twice.{name}"] for name in once}

        def run(shape: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Path:
            return zip_file(tmp_path / "checkpoint.pth", shape(once, twice), storages)

        return run

    @pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
    def test_weights_of_usual_scripts(self, key: str, write: Callable[..., Path], whole: DumpedModel) -> None:
        model = read_model(write(lambda once, _: {key: once, "epoch": 7, "optimizer": {"state": {0: {"step": 3}}}}))
        assert same(model, whole)
        assert f"the weights {key!r} of a training checkpoint" in model.notes

    def test_torchvisions_script(self, write: Callable[..., Path], whole: DumpedModel) -> None:
        """It keeps its arguments too, as an object, and the moving averages with `module.` before their names."""
        arguments = new(named("argparse", "Namespace"), {"lr": 0.1, "data_path": "coco"})
        path = write(
            lambda once, twice: {
                "model": once,
                "args": arguments,
                "model_ema": {"n_averaged": 5, **{f"module.{name}": one for name, one in twice.items()}},
            }
        )
        model = read_model(path)
        assert same(model, whole)
        assert any("--ema takes these" in note for note in model.notes)
        averages = read_model(path, ReadOptions(ema=True))
        for name, one in averages.tensors.items():
            assert np.array_equal(one, whole.tensors[name] * 2)

    def test_averages_alone(self, write: Callable[..., Path]) -> None:
        model = read_model(write(lambda _, twice: {"model_ema": twice, "epoch": 1}))
        assert "the weights 'model_ema' of a training checkpoint" in model.notes

    @pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "model.module.", "net._orig_mod."])
    def test_names_of_wrappers(self, prefix: str, write: Callable[..., Path], whole: DumpedModel) -> None:
        model = read_model(write(lambda once, _: {prefix + name: one for name, one in once.items()}))
        assert same(model, whole)
        assert f"names without {prefix!r} before them" in model.notes

    def test_averages_that_are_not_there(self, write: Callable[..., Path]) -> None:
        with pytest.raises(ModelError, match=r"has no moving averages \(EMA\) of weights; leave --ema out"):
            read_model(write(lambda once, _: {"model": once}), ReadOptions(ema=True))

    def test_ema_of_another_kind_of_model(self, example_model: Path) -> None:
        with pytest.raises(ModelError, match=r"--ema is for training checkpoints of PyTorch; .* is a frozen graph"):
            read_model(example_model, ReadOptions(ema=True))

    def test_options_of_tensorflow(self, write: Callable[..., Path]) -> None:
        with pytest.raises(ModelError, match="--pipeline-config, --nms and --dequantize do not apply to a state_dict"):
            read_model(write(lambda once, _: once), ReadOptions(nms="regular"))


class TestOtherModels:
    def refused(self, arrays: dict[str, Any], tmp_path: Path) -> str:
        with pytest.raises((ModelError, TensorError)) as error:
            identify(read_model(write_state_dict(tmp_path / "weights.pth", arrays)))
        return str(error.value).replace(str(tmp_path / "weights.pth"), "FILE")

    def test_missing_keys_are_listed(self, weights: Weights, tmp_path: Path) -> None:
        rest = {name: one for name, one in weights.items() if not name.startswith("backbone.extra.3.2")}
        assert self.refused(rest, tmp_path) == (
            "FILE is not quite the state_dict of torchvision's ssdlite320_mobilenet_v3_large: 5 tensors are missing "
            "(backbone.extra.3.2.0.weight, backbone.extra.3.2.1.bias, backbone.extra.3.2.1.running_mean, "
            "backbone.extra.3.2.1.running_var and 1 more)"
        )

    def test_extra_keys_are_listed(self, weights: Weights, tmp_path: Path) -> None:
        more = {**weights, "head.mask.weight": np.ones(1, np.float32)}
        assert self.refused(more, tmp_path).endswith("1 are not in the model (head.mask.weight)")

    def test_counts_of_steps_are_skipped(self, weights: Weights, tmp_path: Path) -> None:
        more = {**weights, "backbone.features.0.0.1.num_batches_tracked": np.zeros((), np.int64)}
        model = read_model(write_state_dict(tmp_path / "a.pth", more))
        assert model.skipped == {"backbone.features.0.0.1.num_batches_tracked": "counts steps of training"}

    @pytest.mark.parametrize(
        ("names", "what"),
        [
            (("layer1.0.conv1.weight", "fc.weight"), "a ResNet, a classifier without detection heads"),
            (("model.0.conv.weight", "model.1.conv.weight"), "a YOLO of ultralytics"),
            (("model.model.0.conv.weight", "model.model.1.conv.weight"), "a YOLO of ultralytics"),
            (("features.0.0.weight", "classifier.3.weight"), "a MobileNetV3 classifier without detection heads"),
            (("bbox_head.cls_convs.0.0.depthwise_conv.conv.weight", "backbone.conv1.conv.weight"),
             "mmdetection's SSDLite"),
            (("base_net.0.0.weight", "base_net.1.conv.0.weight", "regression_headers.0.0.weight",
              "regression_headers.0.3.weight"), "mb2-ssd-lite of pytorch-ssd"),
            (("base_net.0.0.weight", "base_net.1.0.weight", "regression_headers.0.weight"), "mb1-ssd of pytorch-ssd"),
            (("module.base_net.0.0.weight", "module.regression_headers.0.weight"), "mb1-ssd of pytorch-ssd"),
            (("backbone.scale_weight", "head.regression_head.module_list.0.weight"), "torchvision's ssd300_vgg16"),
            (("rpn.head.bbox_pred.weight", "backbone.a"), "torchvision's Faster R-CNN or Mask R-CNN"),
        ],
    )  # fmt: skip
    def test_known_ones_are_named(self, names: tuple[str, ...], what: str, tmp_path: Path) -> None:
        message = self.refused({name: np.ones(1, np.float32) for name in names}, tmp_path)
        assert message.startswith(f"FILE is the state_dict of {what}")
        assert "of PyTorch, torchvision's ssdlite320_mobilenet_v3_large is read" in message

    def test_unknown_ones_are_described(self, tmp_path: Path) -> None:
        message = self.refused({"encoder.a": np.ones(1, np.float32), "encoder.b": np.ones(1, np.float32)}, tmp_path)
        assert "it has 2 tensors (encoder.a, encoder.b), and 406 of 406 that are needed are missing" in message

    def test_nan(self, weights: Weights, tmp_path: Path) -> None:
        bad = {**weights, "backbone.features.0.0.1.bias": np.full(16, np.nan, np.float32)}
        assert "holds 16 values that are NaN or Inf" in self.refused(bad, tmp_path)

    def test_tensor_of_integers(self, weights: Weights, tmp_path: Path) -> None:
        bad = {**weights, "backbone.features.0.0.1.bias": np.zeros(16, np.int64)}
        assert "holds no floating-point numbers, but i8" in self.refused(bad, tmp_path)

    def test_tensor_of_another_shape(self, weights: Weights, tmp_path: Path) -> None:
        bad = {**weights, "backbone.features.0.0.1.bias": np.zeros(17, np.float32)}
        assert "tensor 'backbone.features.0.0.1.bias' has the shape (17,)" in self.refused(bad, tmp_path)

    def test_other_numbers_of_boxes(self, weights: Weights, tmp_path: Path) -> None:
        bad = dict(weights)
        for part in ("weight", "bias"):
            name = f"head.regression_head.module_list.0.1.{part}"
            bad[name] = bad[name][:16]
        assert "has predictors with [16, 24, 24, 24, 24, 24] outputs for boxes" in self.refused(bad, tmp_path)

    def test_plain_pickle(self, tmp_path: Path) -> None:
        import pickle

        (tmp_path / "weights.pth").write_bytes(pickle.dumps({"a": 1}, 2))
        with pytest.raises(ModelError, match=r"is a pickle, but not one of torch\.save"):
            read_model(tmp_path / "weights.pth")

    def test_text(self, tmp_path: Path) -> None:
        (tmp_path / "weights.pth").write_text("<!doctype html><p>Not found")
        with pytest.raises(ModelError, match="is a web page"):
            read_model(tmp_path / "weights.pth")


def test_without_pytorch_verify_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssdlite_caffe.runtimes.torch_detector import check_torch

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingRuntimeError, match=r"is run by PyTorch .*pip install 'ssdlite-caffe\[torch\]'"):
        check_torch()


def test_the_options_of_a_converted_folder_have_ema(weights: Weights, tmp_path: Path) -> None:
    tensors, storages = tensors_of(weights)
    source = zip_file(tmp_path / "checkpoint.pth", {"model_ema": tensors}, storages)
    convert(source, tmp_path / "out", ConvertOptions(reading=ReadOptions(ema=True)))
    folder = ModelFolder.open(tmp_path / "out")
    assert folder.reading == ReadOptions(ema=True)
    assert folder.report["source"]["form"] == "state_dict"
    assert folder.arch.code_limit is not None
    assert folder.arch.nms.keep_empty
