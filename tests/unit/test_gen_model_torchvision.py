"""`gen --source torchvision`."""

from __future__ import annotations

import pytest

from ssdlite_caffe.prototxt.text import parse_net
from tests.commands import Command


def test_net(command: Command) -> None:
    net = parse_net(command("gen", "-c", "21", "--source", "torchvision").out, name="net")
    layers = {layer.name: layer for layer in net.layer}
    conv = layers["conv_12/depthwise"].convolution_param
    assert (list(conv.kernel_size), list(conv.pad), list(conv.stride)) == ([5], [2], [2])
    assert layers["mbox_conf_softmax"].type == "Softmax"
    end = layers["detection_out"].detection_output_param
    assert (end.nms_param.top_k, end.keep_top_k, end.num_classes) == (300, 300, 21)
    assert layers["Conv_1"].convolution_param.num_output == 480


@pytest.mark.parametrize("source", [(), ("--source", "torchvision")])
def test_full_tail(source: tuple[str, ...], command: Command) -> None:
    text = command("gen", "-c", "4", "-v", "3-large", "--full-tail", *source).out
    layers = {layer.name: layer for layer in parse_net(text, name="net").layer}
    assert layers["Conv_1"].convolution_param.num_output == 960
    assert layers["conv_14/expand"].convolution_param.num_output == 960


@pytest.mark.parametrize("stage", ["train", "test", "headless"])
def test_stages(stage: str, command: Command) -> None:
    result = command("gen", "-c", "4", "-s", stage, "--source", "torchvision")
    assert result.status == 0
    parse_net(result.out, name="net")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--source", "torchvision", "-v", "2"), "it cannot be combined with -v 2"),
        (("--source", "torchvision", "--eps", "0.01"), "it cannot be combined with --eps"),
        (("--source", "torchvision", "--scales", "0.1,0.2,0.3,0.4,0.5,0.6"), "it cannot be combined with --scales"),
        (("--full-tail",), "--full-tail is for MobileNetV3 detectors"),
    ],
)
def test_what_does_not_go_together(options: tuple[str, ...], message: str, command: Command) -> None:
    result = command("gen", "-c", "4", *options)
    assert result.status == 2
    assert message in " ".join(result.err.replace("│", " ").split())
