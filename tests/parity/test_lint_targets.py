"""The nets that each target gets of a real model, and what lint says of them for that target."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.prototxt.lint import LintProblem, lint
from ssdlite_caffe.targets.table import TARGETS
from ssdlite_caffe.tools.source import ReadOptions, open_model
from tests.real_models import real_models

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {
    "bccd_v2_ssdlite_3": {"bvlc", "hisilicon-nnie", "hisilicon-svp", "ascend", "acuity", "paddle", "onnx"},
    "zoo2018_v2_ssdlite_90": {
        "bvlc", "hisilicon-nnie", "hisilicon-svp", "ascend", "acuity", "paddle", "onnx", "mnn", "openvino", "ncnn",
        "sophgo",
    },
    "random_v3_large_90": {
        "bvlc", "hisilicon-nnie", "hisilicon-svp", "ascend", "acuity", "paddle", "onnx", "mnn", "sophgo",
    },
    "example": {"bvlc", "hisilicon-nnie", "hisilicon-svp", "ascend", "acuity", "paddle", "onnx", "mnn", "sophgo"},
}  # fmt: skip
"""Targets that do not take the deploy net of the default dialect, beside RKNN, which drops DetectionOutput."""


def errors(text: str, runtime: str) -> list[LintProblem]:
    return [problem for problem in lint(text, runtime=runtime).problems if problem.severity == "error"]


@pytest.mark.parametrize("name", real_models(KNOWN))
def test_lint_of_a_real_models_nets(name: str, request: pytest.FixtureRequest) -> None:
    source = ROOT / "examples" if name == "example" else request.getfixturevalue("shared_models") / name
    with open_model(source / "frozen_inference_graph.pb", ReadOptions()) as opened:
        net = build(opened.arch)
    usual = render(net, Dialect(), "deploy")
    assert {target for target in TARGETS if errors(usual, target)} == KNOWN[name] | {"rknn"}
    for target in TARGETS.values():
        if target.refuses(net):
            assert target.name == "bvlc" or (target.name == "onnx" and name in ("random_v3_large_90", "example"))
            continue
        for one in target.nets_of(net):
            text = render(net, one.dialect, one.stage)
            assert errors(one.edit.text(text) if one.edit else text, target.limits) == []
