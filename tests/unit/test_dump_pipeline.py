"""Settings from a pipeline.config, and how they meet a graph's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssdlite_caffe.dump.model import AnchorGenerator, Settings
from ssdlite_caffe.dump.pipeline.config import fill_gaps, read_pipeline, settings_from_pipeline
from ssdlite_caffe.dump.pipeline.resizer import refuse_resizer
from ssdlite_caffe.dump.read import ReadOptions, read_model
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.resizer import Resizer
from tests.dump_graphs import mini_detector, shape_proto

CONFIG = """
model { ssd {
  num_classes: 6
  image_resizer { fixed_shape_resizer { height: 256 width: 320 } }
  feature_extractor {
    type: "ssd_mobilenet_v2" depth_multiplier: 0.5 min_depth: 8 use_depthwise: true use_explicit_padding: true
    conv_hyperparams {
      activation: RELU_6 regularizer { l2_regularizer { weight: 4e-05 } } batch_norm { epsilon: 0.005 }
    }
  }
  box_coder { faster_rcnn_box_coder { y_scale: 10.0 x_scale: 9.0 height_scale: 5.0 width_scale: 4.0 } }
  anchor_generator { ssd_anchor_generator {
    num_layers: 6 min_scale: 0.15 max_scale: 0.9 aspect_ratios: 1.0 aspect_ratios: 2.0 aspect_ratios: 0.3333
    reduce_boxes_in_lowest_layer: false scales: 0.1 scales: 0.5 height_stride: 16 width_stride: 32
  } }
  box_predictor { convolutional_box_predictor { kernel_size: 3 conv_hyperparams { batch_norm { epsilon: 0.01 } } } }
  post_processing {
    batch_non_max_suppression {
      score_threshold: 0.25 iou_threshold: 0.5 max_detections_per_class: 20 max_total_detections: 30
    }
    score_converter: SOFTMAX logit_scale: 2.0
  }
} }
train_config { batch_size: 24 unknown_future_field: 3 }
"""


def write(path: Path, text: str = CONFIG) -> Path:
    path.write_text(text)
    return path


def test_every_setting(tmp_path: Path) -> None:
    pipeline = read_pipeline(write(tmp_path / "pipeline.config"))
    f = np.float32
    assert pipeline.settings == Settings(
        input_size=(256, 320),
        resizer=Resizer(),
        num_classes=7,
        box_coder_scales=(10.0, 9.0, 5.0, 4.0),
        score_converter="softmax",
        logit_scale=2.0,
        iou_threshold=0.5,
        score_threshold=0.25,
        max_per_class=20,
        max_total=30,
        feature_extractor_type="ssd_mobilenet_v2",
        depth_multiplier=0.5,
        min_depth=8,
        extra_activation="relu6",
        explicit_padding=True,
        anchors=AnchorGenerator(
            min_scale=float(f(0.15)),
            max_scale=float(f(0.9)),
            scales=(float(f(0.1)), 0.5),
            aspect_ratios=(1.0, 2.0, float(f(0.3333))),
            reduce_boxes_in_lowest_layer=False,
            height_stride=(16,),
            width_stride=(32,),
        ),
    )
    epsilons = (pipeline.backbone_epsilon, pipeline.extra_epsilon, pipeline.head_epsilon)
    assert epsilons == (float(f(0.001)), float(f(0.005)), float(f(0.01)))
    assert not pipeline.moving_averages


def test_overridden_hyperparameters_and_moving_averages(tmp_path: Path) -> None:
    text = CONFIG.replace("use_depthwise: true", "override_base_feature_extractor_hyperparams: true")
    pipeline = read_pipeline(write(tmp_path / "p", text + "eval_config { use_moving_averages: true }"))
    assert pipeline.backbone_epsilon == pipeline.extra_epsilon == float(np.float32(0.005))
    assert pipeline.moving_averages


def test_defaults_are_the_apis(tmp_path: Path) -> None:
    settings = settings_from_pipeline(write(tmp_path / "p", "model { ssd { num_classes: 1 } }"))
    assert settings.score_converter == "identity"
    assert settings.input_size is None
    assert settings.anchors is None
    assert (settings.score_threshold, settings.max_total) == (0.0, 100)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("post_processing { batch_non_max_suppression { use_class_agnostic_nms: true } }", "over all classes"),
        ("post_processing { batch_non_max_suppression { soft_nms_sigma: 0.5 } }", "soft NMS .sigma 0.5"),
        ("box_coder { mean_stddev_box_coder { } }", "box coder mean_stddev_box_coder"),
        ("anchor_generator { multiscale_anchor_generator { min_level: 3 } }", "multiscale_anchor_generator"),
        ("box_predictor { weight_shared_convolutional_box_predictor { depth: 3 } }", "shared by the feature maps"),
        ("box_predictor { convolutional_box_predictor { apply_sigmoid_to_scores: true } }", "sigmoid in the class"),
        ("feature_extractor { pad_to_multiple: 32 }", "padded to a multiple"),
        ("add_background_class: false", "background column"),
    ],
)
def test_what_caffe_does_not_do_is_listed(tmp_path: Path, text: str, phrase: str) -> None:
    settings = settings_from_pipeline(write(tmp_path / "p", f"model {{ ssd {{ num_classes: 1 {text} }} }}"))
    assert len(settings.unsupported) == 1
    assert re.search(phrase, settings.unsupported[0])


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("model { ssd {", "not a pipeline.config"),
        ("model { faster_rcnn { num_classes: 3 } }", "describes a faster_rcnn model"),
        ("train_config { }", "has no model"),
        ("model { ssd { } }", "num_classes must be at least 1, got 0"),
        ("model { ssd { num_classes: 'x' } }", "not a pipeline.config"),
    ],
)
def test_bad_configs_raise_one_line(tmp_path: Path, text: str, phrase: str) -> None:
    with pytest.raises(ModelError, match=phrase) as raised:
        read_pipeline(write(tmp_path / "p", text))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("first", "again", "named"),
    [
        ("num_classes: 90", "num_classes: 3", "num_classes"),
        ("post_processing { score_converter: SIGMOID score_converter: SOFTMAX }", "num_classes: 3", "score_converter"),
        ("num_classes: 3 image_resizer { keep_aspect_ratio_resizer { } fixed_shape_resizer { } }", "", "\\w+_resizer"),
    ],
)
def test_of_a_field_given_twice_the_last_counts(tmp_path: Path, first: str, again: str, named: str) -> None:
    path = write(tmp_path / "p", f"model {{\n  ssd {{ {first}\n{again} }} }}")
    pipeline = read_pipeline(path)
    assert pipeline.settings.num_classes == 4
    assert re.fullmatch(rf".*p:\d: {named} is given again; as for TensorFlow, .* the last value counts", pipeline.twice)


def test_blocks_given_twice_are_merged(tmp_path: Path) -> None:
    text = """model { ssd { num_classes: 3 box_coder { faster_rcnn_box_coder { y_scale: 9 } } } }
    model { ssd { box_coder { faster_rcnn_box_coder { x_scale: 8 } } image_resizer { fixed_shape_resizer { } } } }"""
    pipeline = read_pipeline(write(tmp_path / "p", text))
    assert pipeline.settings.num_classes == 4
    assert pipeline.settings.box_coder_scales == (9, 8, 5, 5)
    assert pipeline.settings.input_size == (300, 300)
    assert pipeline.twice.startswith(f"{tmp_path / 'p'}:2: model is given again; as for TensorFlow, blocks are joined")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: text.replace("{", "<").replace("}", ">"),
        lambda text: text.replace(" {", ": {"),
        lambda text: re.sub(r"(: [^\s{]+)", r"\1,", text),
        lambda text: re.sub(r"(: [^\s{]+)", r"\1;", text),
        lambda text: "# a comment { \n" + text.replace("\n", " # another }\n"),
        lambda text: text.replace("aspect_ratios: 1.0 aspect_ratios: 2.0", "aspect_ratios: [1.0, 2.0]"),
        lambda text: text + "train_config { [a.protos.external] { a: 1 b: [ { c: -inf }, { } ] d: 'x' \"y\" } }",
        lambda text: text + "eval_input_reader: { tf_record_input_reader { input_path: ['a', 'b'] } n: 1 }",
    ],
)  # fmt: skip
def test_other_ways_to_write_the_same(tmp_path: Path, change: Callable[[str], str]) -> None:
    (tmp_path / "plain").write_bytes(CONFIG.encode())
    (tmp_path / "changed").write_bytes(change(CONFIG).encode())
    assert read_pipeline(tmp_path / "changed") == read_pipeline(tmp_path / "plain")


def test_a_config_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(CONFIG.encode("utf-16"))
    with pytest.raises(ModelError, match="it is UTF-16 text; save it as UTF-8"):
        read_pipeline(tmp_path / "p")


def test_config_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="it is not UTF-8 text"):
        read_pipeline(tmp_path / "p")
    with pytest.raises(ModelError, match=r"cannot read .*gone"):
        read_pipeline(tmp_path / "gone")


def test_the_graph_wins_and_the_config_fills_gaps(tmp_path: Path) -> None:
    graph = mini_detector(classes=6, resize=(24, 32)).write(tmp_path / "g.pb")
    config = write(tmp_path / "p", CONFIG.replace("height: 256 width: 320", "height: 24 width: 32"))
    settings = read_model(graph, ReadOptions(config)).settings
    assert settings.iou_threshold == float(np.float32(0.55))
    assert settings.score_converter == "sigmoid"
    assert settings.feature_extractor_type == "ssd_mobilenet_v2"
    assert settings.anchors is not None
    assert settings.default_boxes is not None


@pytest.mark.parametrize(("classes", "size"), [(3, (256, 320)), (6, (24, 32))])
def test_contradictions_name_both_files(tmp_path: Path, classes: int, size: tuple[int, int]) -> None:
    graph = mini_detector(classes=classes, resize=size).write(tmp_path / "g.pb")
    with pytest.raises(ModelError, match=r"g\.pb and .*p contradict each other"):
        read_model(graph, ReadOptions(write(tmp_path / "p")))


def test_fill_gaps_leaves_boxes_alone() -> None:
    boxes = np.ones((1, 4), np.float32)
    filled = fill_gaps(Settings(default_boxes=boxes), Settings(num_classes=3), source="a", config="b")
    assert filled.default_boxes is boxes
    assert filled.num_classes == 3


# ---- resizers ----

SQUARE = "min_dimension: 200 max_dimension: 320"


def with_resizer(path: Path, text: str) -> Path:
    return write(path, CONFIG.replace("fixed_shape_resizer { height: 256 width: 320 }", text))


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("fixed_shape_resizer { height: 24 width: 32 }", (24, 32), Resizer()),
        ("fixed_shape_resizer { }", (300, 300), Resizer()),
        (
            "fixed_shape_resizer { height: 24 width: 32 resize_method: NEAREST_NEIGHBOR }", (24, 32),
            Resizer(method="nearest", normalise_first=True),
        ),
        ("fixed_shape_resizer { resize_method: 2 }", (300, 300), Resizer(method="bicubic", normalise_first=True)),
        ("fixed_shape_resizer { resize_method: AREA }", (300, 300), Resizer(method="area", normalise_first=True)),
        (
            f"keep_aspect_ratio_resizer {{ {SQUARE} pad_to_max_dimension: true resize_method: AREA "
            "per_channel_pad_value: 124 per_channel_pad_value: 117 per_channel_pad_value: 104.5 }", (320, 320),
            Resizer("keep_aspect_ratio", "area", False, False, 200, 320, (124, 117, 104.5), True),
        ),
        (
            "keep_aspect_ratio_resizer { pad_to_max_dimension: true }", (1024, 1024),
            Resizer("keep_aspect_ratio", min_dimension=600, max_dimension=1024, normalise_first=True),
        ),
    ],
)  # fmt: skip
def test_resizers(tmp_path: Path, text: str, size: tuple[int, int], expected: Resizer) -> None:
    pipeline = read_pipeline(with_resizer(tmp_path / "p", text))
    assert pipeline.settings.input_size == size
    assert pipeline.settings.resizer == expected
    assert not pipeline.refused_resizer


REFUSED = [
    ("conditional_shape_resizer { size_threshold: 320 }", "conditional_shape_resizer with size_threshold 320"),
    ("conditional_shape_resizer { condition: SMALLER }", "conditional_shape_resizer with size_threshold 300"),
    ("identity_resizer { }", "identity_resizer, which gives images of different sizes"),
    ("pad_to_multiple_resizer { multiple: 32 }", "pad_to_multiple_resizer with multiple 32"),
    (
        f"keep_aspect_ratio_resizer {{ {SQUARE} }}",
        "keep_aspect_ratio_resizer without pad_to_max_dimension (min_dimension 200, max_dimension 320)",
    ),
    (
        "keep_aspect_ratio_resizer { min_dimension: 400 max_dimension: 320 pad_to_max_dimension: true }",
        "the smaller first, got 400 and 320",
    ),
    (f"keep_aspect_ratio_resizer {{ {SQUARE} pad_to_max_dimension: true per_channel_pad_value: 1 }}", "with 1 values"),
    (
        f"keep_aspect_ratio_resizer {{ {SQUARE} pad_to_max_dimension: true convert_to_grayscale: true }}",
        "keep_aspect_ratio_resizer with convert_to_grayscale: true",
    ),
    ("fixed_shape_resizer { convert_to_grayscale: true }", "fixed_shape_resizer with convert_to_grayscale: true"),
    ("fixed_shape_resizer { height: 0 width: -3 }", "height 0 and width -3, must be positive"),
    ("later_resizer { side: 3 }", "missing, or of a kind that is not known"),
    ("", "missing, or of a kind that is not known"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_refused_resizers_are_named_with_their_values(tmp_path: Path, text: str, said: str) -> None:
    config = with_resizer(tmp_path / "p", text)
    pipeline = read_pipeline(config)
    assert pipeline.settings.resizer is None
    assert said in pipeline.refused_resizer
    with pytest.raises(ModelError, match=r"image_resizer of .*p is .*; allowed are fixed_shape_resizer") as raised:
        refuse_resizer(pipeline.refused_resizer, config)
    assert "\n" not in str(raised.value)


def without_resize(path: Path) -> Path:
    """A detector that reads images of 24x32 as floats, so that its graph does not say how they are resized."""
    graph = mini_detector(classes=6)
    nodes = {node.name: node for node in graph.definition.node}
    for name in ("Cast", "resize", "resize/size", "image_tensor"):
        graph.definition.node.remove(nodes[name])
    graph.node("fed", "Placeholder", dtype=np.dtype("float32"), shape=shape_proto(1, 24, 32, 3))
    nodes["Preprocessor/mul"].input[1] = "fed"
    return graph.write(path)


def test_a_graph_that_resizes_nothing_takes_the_config_s_resizer(tmp_path: Path) -> None:
    graph = without_resize(tmp_path / "g.pb")
    assert read_model(graph).settings.resizer is None
    config = with_resizer(
        tmp_path / "pipeline.config", "fixed_shape_resizer { height: 24 width: 32 resize_method: AREA }"
    )
    model = read_model(graph)
    assert model.settings.resizer == Resizer(method="area", normalise_first=True)
    assert model.origins["resizer"] == str(config)
    with_resizer(config, "identity_resizer { }")
    with pytest.raises(ModelError, match="identity_resizer"):
        read_model(graph)


def test_another_graph_of_the_folder_is_asked_before_the_config(tmp_path: Path) -> None:
    without_resize(tmp_path / "frozen_inference_graph.pb")
    other = mini_detector(classes=6)
    next(node for node in other.definition.node if node.name == "resize").op = "ResizeBicubic"
    other.write(tmp_path / "tflite_graph.pb")
    with_resizer(tmp_path / "pipeline.config", "fixed_shape_resizer { height: 24 width: 32 }")
    model = read_model(tmp_path)
    assert model.settings.resizer == Resizer(method="bicubic")
    assert model.origins["resizer"] == str(tmp_path / "tflite_graph.pb")


def test_contradicting_resizers_are_named(tmp_path: Path) -> None:
    graph = mini_detector(classes=6).write(tmp_path / "g.pb")
    config = with_resizer(tmp_path / "p", "fixed_shape_resizer { height: 24 width: 32 resize_method: AREA }")
    model = read_model(graph, ReadOptions(config))
    assert model.settings.resizer == Resizer()
    assert any("resizer fixed_shape, bilinear, not fixed_shape, area" in note for note in model.notes)
    with_resizer(config, "conditional_shape_resizer { }")
    notes = read_model(graph, ReadOptions(config)).notes
    assert any("bilinear, not conditional_shape_resizer with size_threshold 300" in note for note in notes)
