"""Graphs whose post-processing was changed in one place: TensorFlow runs them, and what is read of them must agree."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdlite_caffe.dump.graph import tensorflow_subset_pb2 as pb
from ssdlite_caffe.dump.graph.execution_ops import POST_OPS
from ssdlite_caffe.dump.graph.tensors import to_array
from ssdlite_caffe.dump.graph.view import Graph, Node
from ssdlite_caffe.errors import MissingRuntimeError, ModelError, SsdliteError
from ssdlite_caffe.imports import import_tensorflow
from tests.conftest import ROOT
from tests.graph_changes import changes, post_processing
from tests.post_processing_runs import Source, by_settings, in_tensorflow, same, source_of, taken_apart
from tests.scenes import draw_scene

pytestmark = pytest.mark.tensorflow

try:
    tf = import_tensorflow("this test")
except MissingRuntimeError as missing:
    pytest.skip(str(missing), allow_module_level=True)

EXAMPLE = ROOT / "examples" / "frozen_inference_graph.pb"
IMAGES = (1, 2)


def opened(path: Path) -> tuple[Source, list[str]]:
    source = source_of(path, [draw_scene(seed)[0] for seed in IMAGES])
    parts = taken_apart(source.definition)
    assert parts.notes == ()
    assert same(by_settings(source, parts, parts.settings), in_tensorflow(source, source.definition))
    return source, post_processing(Graph(source.definition.node, source=str(path)), set(source.ends.values()))


def outcomes(source: Source, names: list[str], seed: int, count: int) -> Counter[str]:
    """How many of `count` changes end in which way.

    Raises:
        AssertionError: TensorFlow runs a changed graph that is accepted without a note, and detects something else.
    """
    found: Counter[str] = Counter()
    config = taken_apart(source.definition).settings
    for what, changed in islice(changes(source.definition, names, seed), count):
        try:
            parts = taken_apart(changed)
        except SsdliteError:
            found["refused"] += 1
            continue
        if parts.notes or parts.settings.unsupported:
            found["noted"] += 1
            continue
        try:
            theirs = in_tensorflow(source, changed)
        except (tf.errors.OpError, ValueError):
            found["not run by TensorFlow"] += 1
            continue
        assert same(by_settings(source, parts, config), theirs), what
        found["the same"] += 1
    return found


@pytest.mark.slow
def test_a_changed_graph_detects_the_same_or_is_named() -> None:
    source, names = opened(EXAMPLE)
    found = outcomes(source, names, seed=7, count=60)
    assert min(found[way] for way in ("refused", "the same")) > 5, found


@pytest.mark.story
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.rare)])
def test_many_changes(seed: int) -> None:
    source, names = opened(EXAMPLE)
    found = outcomes(source, names, seed=100 + seed, count=300)
    assert min(found[way] for way in ("refused", "the same")) > 30, found


@pytest.mark.rare
@pytest.mark.story
@pytest.mark.parametrize("name", ["shapes_v3_small_3", "bccd_v2_ssdlite_3"])
def test_many_changes_of_the_apis_own_graphs(shared_models: Path, name: str) -> None:
    source, names = opened(shared_models / name / "frozen_inference_graph.pb")
    found = outcomes(source, names, seed=5, count=50)
    assert min(found[way] for way in ("refused", "the same")) > 3, found


@pytest.mark.parametrize(
    ("node", "place", "value"),
    [
        ("Postprocessor/BatchMultiClassNonMaxSuppression/map/while/PadOrClipBoxList/Select_9/e", 0, 0),
        ("Postprocessor/BatchMultiClassNonMaxSuppression/map/while/PadOrClipBoxList/sub_5/x", 0, 101),
        ("Postprocessor/Decode/truediv_7/y", 0, 1),
        ("add/y", 0, 0),
        ("Preprocessor/map/while/ResizeImage/stack_1", 0, 160),
    ],
)
def test_a_changed_constant_of_the_apis_graph_is_refused(
    shared_models: Path, node: str, place: int, value: float
) -> None:
    definition = pb.GraphDef.FromString((shared_models / "shapes_v3_small_3/frozen_inference_graph.pb").read_bytes())
    tensor = next(other for other in definition.node if other.name == node).attr["value"].tensor
    array = to_array(tensor, node).copy()
    assert array.reshape(-1)[place] != value
    array.reshape(-1)[place] = value
    for field in ("float_val", "int_val"):
        tensor.ClearField(field)
    tensor.tensor_content = array.tobytes()
    with pytest.raises(ModelError):
        taken_apart(definition)


# ---- ops ----


def ours(op: str, args: list[Any], **attrs: bool | int) -> Any:
    node = pb.NodeDef(name="x", op=op, input=[str(i) for i in range(len(args))])
    for key, value in attrs.items():
        if isinstance(value, bool):
            node.attr[key].b = value
        else:
            node.attr[key].i = value
    found = POST_OPS[op](Node(node), [np.asarray(value) for value in args])
    return found if isinstance(found, tuple) else (found,)


def compare(found: tuple[Any, ...], theirs: Any) -> None:
    wanted = list(theirs) if isinstance(theirs, (list, tuple)) else [theirs]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.numpy().dtype
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-6)


def boxes_and_scores(seed: int, count: int = 200) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (count, 2, 2)).astype(np.float32)  # in any order
    return corners.reshape(-1, 4), rng.permutation(count).astype(np.float32) / count


@pytest.mark.parametrize("seed", range(3))
def test_suppressions(seed: int) -> None:
    boxes, scores = boxes_and_scores(seed)
    limit, iou, least, sigma = np.int32(17), np.float32(0.3), np.float32(0.25), np.float32(0)
    names = {"boxes": boxes, "scores": scores, "max_output_size": limit, "iou_threshold": iou}
    compare(ours("NonMaxSuppressionV2", list(names.values())), tf.raw_ops.NonMaxSuppressionV2(**names))
    names["score_threshold"] = least
    compare(ours("NonMaxSuppressionV3", list(names.values())), tf.raw_ops.NonMaxSuppressionV3(**names))
    for pad in (False, True):
        compare(
            ours("NonMaxSuppressionV4", list(names.values()), pad_to_max_output_size=pad),
            tf.raw_ops.NonMaxSuppressionV4(**names, pad_to_max_output_size=pad),
        )
    compare(
        ours("NonMaxSuppressionV5", [*names.values(), sigma]),
        tf.raw_ops.NonMaxSuppressionV5(**names, soft_nms_sigma=sigma),
    )


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("own", [1, 3])
def test_combined_suppression(clip: bool, pad: bool, own: int) -> None:
    boxes, _ = boxes_and_scores(3, 300 * own)
    boxes = np.sort(boxes.reshape(2, 150, own, 2, 2), axis=3).reshape(2, 150, own, 4) * 1.5 - 0.25
    scores = np.random.default_rng(1).permutation(900).astype(np.float32).reshape(2, 150, 3) / 900
    values = [boxes, scores, np.int32(5), np.int32(40), np.float32(0.4), np.float32(0.5)]
    names = ("boxes", "scores", "max_output_size_per_class", "max_total_size", "iou_threshold", "score_threshold")
    compare(
        ours("CombinedNonMaxSuppression", values, clip_boxes=clip, pad_per_class=pad),
        tf.raw_ops.CombinedNonMaxSuppression(**dict(zip(names, values, strict=True)), clip_boxes=clip,
                                             pad_per_class=pad),
    )  # fmt: skip


def test_other_ops() -> None:
    values = np.random.default_rng(2).normal(0, 3, (2, 5, 4)).astype(np.float32)
    compare(ours("Sigmoid", [values]), tf.sigmoid(values))
    compare(ours("Softmax", [values]), tf.nn.softmax(values))
    compare(ours("TopKV2", [values, np.int32(3)]), tf.raw_ops.TopKV2(input=values, k=3))
    compare(ours("Round", [values]), tf.round(values))
    compare(ours("ClipByValue", [values, np.float32(-1), np.float32(2)]), tf.clip_by_value(values, -1, 2))
    compare(ours("PadV2", [values, [[0, 1], [2, 0], [0, 0]], np.float32(7)]),
            tf.pad(values, [[0, 1], [2, 0], [0, 0]], constant_values=7))  # fmt: skip
    indices = np.asarray([[4, 0, 4], [1, 2, 3]], np.int32)
    compare(ours("GatherV2", [values, indices, np.int32(1)], batch_dims=1), tf.gather(values, indices, batch_dims=1))
    compare(ours("GatherV2", [values, indices % 2, np.int32(0)]), tf.gather(values, indices % 2))
    compare(ours("GatherNd", [values, [[1, 4], [0, 2]]]), tf.gather_nd(values, [[1, 4], [0, 2]]))
