"""Folders of targets for a graph that clips boxes before suppression."""

from __future__ import annotations

import json
from pathlib import Path

from ssdlite_caffe import convert


def test_only_whole_nets_that_clip_late_are_inexact(shared_models: Path, tmp_path: Path) -> None:
    names = ["opencv", "mnn", "openvino", "rknn"]
    report = convert(shared_models / "zoo2018_v2_ssdlite_90", tmp_path / "out", targets=names)
    said = {name: report["targets"][name]["inexact"] for name in names}
    late = ["deploy.prototxt: boxes are not clipped to the image before suppression, as the model does"]
    assert said == {"opencv": [], "mnn": late, "openvino": late, "rknn": []}
    assert f"- not exact: {late[0]}" in (tmp_path / "out" / "mnn" / "README.md").read_text("utf-8").splitlines()
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["targets"]["mnn"]["exact"] is False
