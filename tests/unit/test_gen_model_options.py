from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ssdlite_caffe.commands.gen import gen
from ssdlite_caffe.errors import ArchError, OutputError
from ssdlite_caffe.gen_model.build import build, default_arch
from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.gen_model.options import (
    BoxOptions,
    Flags,
    OptionsError,
    arch_from_options,
    dialect_from_options,
    parse_numbers,
    parse_size,
)
from ssdlite_caffe.gen_model.render import render


def run(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(gen)
    return CliRunner().invoke(app, list(arguments))


def test_defaults_are_the_zoo_s() -> None:
    assert arch_from_options("2", 91) == default_arch("v2", 91)
    assert arch_from_options("3-small", 91) == default_arch("v3-small", 91)
    assert arch_from_options("1", 1001, classifier=True) == default_arch("v1", 1001, classifier=True)
    assert dialect_from_options() == Dialect(batch_norm="keep")


def test_every_option_arrives() -> None:
    arch = arch_from_options(
        "3-large",
        5,
        head="ssd",
        width_multiplier=0.75,
        input_size=(256, 192),
        epsilon=1e-5,
        explicit_padding=True,
        boxes=BoxOptions(
            scales=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
            aspect_ratios=(1.0, 2.0),
            interpolated_ratio=0.0,
            reduce_lowest=False,
            variances=(0.2, 0.3, 0.4, 0.5),
            scores="softmax",
            nms_threshold=0.45,
            score_threshold=0.01,
            top_k=400,
            keep_top_k=200,
            head_kernel=1,
        ),
    )
    assert (arch.family, arch.head, arch.num_classes, arch.input_size) == ("v3-large", "ssd", 5, (256, 192))
    assert (arch.width_multiplier, arch.batch_norm_epsilon, arch.explicit_padding) == (0.75, 1e-5, True)
    assert (arch.variances, arch.score_converter, arch.head_kernel) == ((0.2, 0.3, 0.4, 0.5), "softmax", 1)
    assert [len(cell.sizes) for cell in arch.boxes] == [2] * 6
    assert arch.boxes[0].sizes[0] == pytest.approx((0.1 * 192 / 256, 0.1))
    assert (arch.nms.iou_threshold, arch.nms.score_threshold) == (0.45, 0.01)
    assert (arch.nms.top_k, arch.nms.max_total) == (400, 200)
    assert build(arch).num_default_boxes > 0


def test_reduce_lowest_is_the_default() -> None:
    assert len(arch_from_options("2", 5).boxes[0].sizes) == 3
    assert len(arch_from_options("2", 5, boxes=BoxOptions(reduce_lowest=True)).boxes[0].sizes) == 3


def test_scales_replace_the_range() -> None:
    with pytest.raises(OptionsError, match="--scales"):
        arch_from_options("2", 5, boxes=BoxOptions(scales=(0.1,) * 6, min_scale=0.3))
    with pytest.raises(ArchError, match="anchor scales must be one for each of 6 feature maps, got 2"):
        arch_from_options("2", 5, boxes=BoxOptions(scales=(0.1, 0.2)))


@pytest.mark.parametrize(
    "boxes",
    [
        {"nms_threshold": 0.0},
        {"score_threshold": 1.5},
        {"top_k": 0},
        {"keep_top_k": 0},
        {"nms_threshold": float("nan")},
    ],
)
def test_values_out_of_range(boxes: dict[str, Any]) -> None:
    with pytest.raises(ArchError):
        arch_from_options("2", 5, boxes=BoxOptions(**boxes))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 1.0, float("nan")])
def test_bad_epsilon(epsilon: float) -> None:
    with pytest.raises(ArchError, match="epsilon"):
        arch_from_options("2", 5, epsilon=epsilon)


@pytest.mark.parametrize("variances", [(0.1,), (0.1, 0.1, 0.2, 0.0), (0.1, 0.1, 0.2, float("inf"))])
def test_bad_variances(variances: tuple[float, ...]) -> None:
    with pytest.raises(OptionsError, match="four positive"):
        arch_from_options("2", 5, boxes=BoxOptions(variances=variances))


def test_sizes() -> None:
    assert parse_size("300") == (300, 300)
    assert parse_size("240x320") == parse_size("240X320") == (240, 320)
    for text in ("", "x", "3x", "1x2x3", "-3", "3.5", "1_0", "999999", "٣"):
        with pytest.raises(OptionsError, match="is not a size"):
            parse_size(text)


def test_numbers() -> None:
    assert parse_numbers("1,2,0.5") == (1.0, 2.0, 0.5)
    for text in ("", "1,", "1;2", "a"):
        with pytest.raises(OptionsError, match="is not a list of numbers"):
            parse_numbers(text)


def test_clip_first_puts_the_clipping_in_front() -> None:
    assert arch_from_options("2", 91, boxes=BoxOptions(clip_first=True)).nms.clip_first
    assert "code_type: CORNER" in run("-c", "3", "--clip-first").stdout
    assert "code_type: CENTER_SIZE" in run("-c", "3").stdout


def test_aliases() -> None:
    assert dialect_from_options(flags=Flags(relu6=True, tfpad=True)) == Dialect(batch_norm="keep")
    assert dialect_from_options(flags=Flags(nobn=True)) == Dialect(batch_norm="fold")
    assert dialect_from_options(flags=Flags(nobn=True), batch_norm="fold") == Dialect(batch_norm="fold")
    assert dialect_from_options(flags=Flags(tfpad=True), padding="slice").padding == "slice"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--relu6", "--activation", "relu"],
        ["--tfpad", "--padding", "symmetric"],
        ["--nobn", "--bn", "keep"],
        ["--scales", "1,2,3", "--min-scale", "0.1"],
        ["--classifier", "--scores", "softmax"],
        ["--classifier", "--type", "ssdlite"],
        ["--input", "3by4"],
        ["--aspect-ratios", "wide"],
        ["--variances", "1,2"],
        ["--stage", "deployment"],
        ["--version", "3"],
        ["--batch-size", "-1"],
        ["--nonsense"],
    ],
)
def test_usage_errors_exit_2(arguments: list[str]) -> None:
    result = run("-c", "5", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_class_count_is_required() -> None:
    assert run().exit_code == 2


def test_known_errors_are_ours() -> None:
    assert isinstance(run("-c", "1").exception, ArchError)


def test_prints_what_render_gives(tmp_path: Path) -> None:
    options = ["-s", "test", "-c", "21", "-v", "1", "-t", "ssd", "--size", "0.5", "--input", "128x160", "--nobn"]
    options += ["-d", "my_lmdb", "-l", "map", "--batch-size", "2"]
    result = run(*options)
    assert result.exit_code == 0
    assert 'source: "my_lmdb"' in result.stdout
    assert "dim:" not in result.stdout.split("layer {")[0]
    path = tmp_path / "test.prototxt"
    assert run(*options, "-o", str(path)).stdout == ""
    assert path.read_text(encoding="utf-8") == result.stdout
    assert isinstance(run(*options, "-o", str(path)).exception, OutputError)
    assert run(*options, "-o", str(path), "--force").exit_code == 0


def test_earlier_command_line() -> None:
    result = run("-s", "deploy", "-c", "91", "--relu6", "--tfpad", "--nobn", "--eps", "0.001")
    assert result.stdout == render(build(default_arch("v2", 91)), Dialect(), "deploy")


@pytest.mark.parametrize(
    ("arguments", "status"), [(["-c", "91"], 0), (["-c", "1"], 1), (["-c", "5", "--input", "x"], 2)]
)
def test_module_is_the_command(arguments: list[str], status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ssdlite_caffe.gen_model", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    if status == 0:
        assert done.stdout == run(*arguments).stdout
    if status == 1:
        assert done.stderr.count("\n") == 1
