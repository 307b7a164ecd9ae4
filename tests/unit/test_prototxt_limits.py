"""The tables of programs: what each takes of the nets that are written here, and of small nets with one trap each."""

from __future__ import annotations

import dataclasses
import functools
import typing

import pytest

from ssdlite_caffe.commands.lint import RuntimeName
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import Dialect, Stage
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.prototxt.limits import LIMITS, OTHER_NAMES
from ssdlite_caffe.prototxt.lint import lint
from ssdlite_caffe.targets.table import TARGETS

HEAD = 'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 8 dim: 6 dim: 6 } } }\n'


@functools.cache
def net(family: str, stage: Stage) -> str:
    """A net in the default dialect; `zoo` is a V2 that clips boxes first."""
    arch = default_arch("v2" if family == "zoo" else family, 4)
    arch = dataclasses.replace(arch, nms=dataclasses.replace(arch.nms, clip_first=family == "zoo"))
    return render(build(arch), Dialect(), stage)


def texts(text: str, runtime: str, severity: str = "error") -> set[str]:
    return {one.text for one in lint(text, runtime=runtime).problems if one.severity == severity}


def test_names_are_those_of_targets_and_of_the_command() -> None:
    assert LIMITS.keys() == TARGETS.keys() == {target.limits for target in TARGETS.values()}
    assert set(typing.get_args(RuntimeName)) == LIMITS.keys() | OTHER_NAMES.keys()


def test_an_earlier_name_still_works() -> None:
    text = net("v2", "headless")
    assert lint(text, runtime="nnie") == lint(text, runtime="hisilicon-nnie")
    assert lint(text, runtime="nnie").runtime == "hisilicon-nnie"


def test_every_table_says_where_it_is_from() -> None:
    assert {name: LIMITS[name].source.how for name in LIMITS} == {
        name: target.checked.how for name, target in TARGETS.items()
    }


DEFAULTS = {
    ("opencv", "zoo", "deploy"): [],
    ("caffe-ssd", "zoo", "deploy"): [],
    ("caffe-ssd", "v3-small", "deploy"): [],
    ("openvino", "v3-small", "deploy"): [],
    ("openvino", "zoo", "deploy"): ["OpenVINO has no layer Exp; convert with --clip late"],
    ("ncnn", "v3-small", "deploy"): [],
    ("ncnn", "zoo", "deploy"): ["convert with --clip late"],
    ("mnn", "v2", "deploy"): [],
    ("mnn", "v3-small", "headless"): ["use --gate deconvolution or interp"],
    ("mnn", "zoo", "deploy"): ["it ignores the factors of a sum; use --coefficients power", "it ignores code_type"],
    ("rknn", "v3-small", "headless"): [],
    ("rknn", "v2", "deploy"): ["RKNN has no layer DetectionOutput; it drops the layer with a printed line"],
    ("sophgo", "v2", "deploy"): [],
    ("sophgo", "v3-small", "headless"): ["(--linear scale)"],
    ("sophgo", "zoo", "deploy"): ["has no layer Exp; convert with --clip late", "(--linear scale)"],
    ("hisilicon-svp", "v3-small", "headless"): ["has no layer PriorBox; its boxes are constants"],
    ("hisilicon-nnie", "v2", "headless"): ["has no layer PriorBox; its boxes are constants", "(--activation stock)"],
    ("ascend", "v2", "deploy"): ["use --names tops", "use --priors constant", "--target ascend"],
    ("acuity", "v2", "headless"): ["(--activation clip)"],
    ("acuity", "v3-small", "headless"): ["(--activation clip)", "(--linear scale)"],
    ("paddle", "v2", "headless"): ["(--priors none)"],
    ("paddle", "v3-small", "headless"): ["(--priors none)", "use --gate eltwise"],
    ("onnx", "v2", "headless"): ["(--priors none)"],
    ("onnx", "v3-small", "headless"): ["(--priors none)", "it fails on every product of blobs"],
    ("bvlc", "v2", "headless"): ["has no layer ReLU6", "has no layer Permute", "has no layer PriorBox"],
}
"""Parts of all errors of a net in the default dialect."""


@pytest.mark.parametrize(("runtime", "family", "stage"), DEFAULTS, ids="-".join)
def test_the_default_dialect(runtime: str, family: str, stage: Stage) -> None:
    found, expected = texts(net(family, stage), runtime), DEFAULTS[runtime, family, stage]
    assert len(found) == len(expected)
    assert all(any(part in one for one in found) for part in expected), found


def layer(kind: str, body: str = "", bottoms: str = 'bottom: "d"', top: str = "l") -> str:
    return f'layer {{ name: "l" type: "{kind}" {bottoms} top: "{top}" {body} }}\n'


SAME = 'bottom: "d" bottom: "d"'
TWO = 'bottom: "d" bottom: "p"'
POOLING = "pooling_param { pool: AVE global_pooling: true }"
GATE = HEAD + f'layer {{ name: "p" type: "Pooling" bottom: "d" top: "p" {POOLING} }}\n'
PROD = layer("Eltwise", "eltwise_param { operation: PROD }", TWO)
TRAPS = [
    ("mnn", GATE + PROD, "1 x 8 x 1 x 1: it converts this and computes something else", "error"),
    ("mnn", HEAD + layer("Eltwise", "eltwise_param { coeff: 1 coeff: -1 }", SAME), "factors", "error"),
    ("rknn", HEAD + layer("Deconvolution", "convolution_param { num_output: 8 kernel_size: 2 }"), "as 0", "error"),
    ("rknn", HEAD + layer("PriorBox", "prior_box_param { min_size: 3 }", SAME), "drops", "warning"),
    ("hisilicon-svp", HEAD + layer("Convolution", "convolution_param { num_output: 8 kernel_size: 65 pad: 40 }"),
     "it takes kernels of at most 64, this is 65, a pad of at most 15, this is 40", "error"),
    ("hisilicon-svp", HEAD + layer("Convolution", "convolution_param { num_output: 8 kernel_h: 3 kernel_w: 99 }"),
     "it takes kernels of at most 64, this is 99", "error"),
    ("hisilicon-svp", GATE + layer("Interp", "interp_param { height: 6 width: 6 }", 'bottom: "p"'),
     "one pixel", "error"),
    ("ascend", HEAD + layer("ReLU", top="d"), "it takes no layer in place", "error"),
    ("ascend", HEAD + layer("ReLU", top="other"), "names of their layers", "warning"),
    ("ascend", HEAD + layer("PriorBox", "prior_box_param { min_size: 3 max_size: 3 }", SAME),
     "each greater", "error"),
    ("onnx", HEAD + layer("Eltwise", "eltwise_param { operation: PROD }", SAME), "product", "error"),
    ("caffe-ssd", HEAD + layer("Clip", "clip_param { min: 0 max: 6 }"), "many SSD forks do not have it", "warning"),
    ("caffe-ssd", HEAD + layer("PriorBox", "prior_box_param { min_size: 3 }", SAME),
     "prior_box_param.clip is missing", "warning"),
]  # fmt: skip


@pytest.mark.parametrize(("runtime", "text", "part", "severity"), TRAPS)
def test_traps(runtime: str, text: str, part: str, severity: str) -> None:
    title = LIMITS[runtime].title
    assert any(one.startswith(f"{title}: ") and part in one for one in texts(text, runtime, severity))


FINE = [
    ("rknn", HEAD + layer("Deconvolution", "convolution_param { num_output: 8 group: 8 kernel_size: 2 stride: 1 }")),
    ("mnn", HEAD + layer("Eltwise", "eltwise_param { coeff: 1 coeff: 1 }", SAME)),
    ("mnn", HEAD + layer("Scale", "scale_param { bias_term: true }")),
    ("paddle", GATE + PROD),
    ("ascend", HEAD + layer("PriorBox", "prior_box_param { min_size: 3 max_size: 4 }", SAME)),
    ("onnx", HEAD + layer("Eltwise", "", SAME)),
    ("hisilicon-svp", HEAD + layer("Interp", "interp_param { height: 9 width: 9 }")),
    ("hisilicon-svp", HEAD + layer("Convolution", "convolution_param { num_output: 8 kernel_size: 4 pad: 1 }")),
]


@pytest.mark.parametrize(("runtime", "text"), FINE)
def test_what_is_no_trap(runtime: str, text: str) -> None:
    assert not {one for one in texts(text, runtime) if one.startswith(LIMITS[runtime].title)}


def test_ascends_own_layer_and_its_field() -> None:
    own = "ssddetectionoutput_param { top_k: 9 }"
    text = HEAD + layer("SSDDetectionOutput", own, 'bottom: "d" ' * 3).replace('top: "l"', 'top: "n" top: "l"')
    assert lint(text, runtime="ascend").problems == ()
    assert {one.kind for one in lint(text, runtime="opencv").problems} >= {"unknown-type"}
    assert {one.kind for one in lint(text).problems} == {"unknown-type", "unknown-field"}


@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
def test_what_nnie_advises_can_be_done(family: str) -> None:
    """Its own target's nets are warned of, and the choice that the warning names has no warning, as no other has."""
    detector = build(default_arch(family, 4))
    own = TARGETS["hisilicon-nnie"].nets[0].dialect
    warned: dict[str, set[str]] = {}
    for padding in ("exact", "slice", "shift", "pad-layer", "tf_pad", "symmetric"):
        text = render(detector, dataclasses.replace(own, padding=padding), "headless")
        warned[padding] = {problem.text for problem in lint(text, runtime="hisilicon-nnie").problems}
    (said,) = warned["exact"]
    assert "only --padding symmetric, which is not exact, writes none" in said
    assert [padding for padding, found in warned.items() if not found] == ["symmetric"]
