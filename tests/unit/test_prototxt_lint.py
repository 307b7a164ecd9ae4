"""The report of lint, and the tables of runtimes."""

import json

import pytest

from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.limits import LIMITS
from ssdlite_caffe.prototxt.lint import lint
from ssdlite_caffe.prototxt.rules_ssd import RULES
from ssdlite_caffe.tools.lint_report import lint_file

NET = """name: "n"
layer { name: "in" type: "Input" top: "d" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 6 } } }
layer { name: "c" type: "Convolution" bottom: "d" top: "c"
  convolution_param { num_output: 4 kernel_size: 4 pad: 1 stride: 2 } }
layer { name: "r" type: "ReLU6" bottom: "c" top: "c" }
layer { name: "x" type: "Power" bottom: "c" top: "x" include { phase: TRAIN } }
layer { name: "y" type: "Power" bottom: "c" top: "y" include { phase: TEST } }
"""


def found(text, **options):
    return [(problem.line, problem.layer, problem.severity, problem.text) for problem in lint(text, **options).problems]


def test_report():
    report = lint(NET, "n.prototxt")
    assert (report.name, report.net, report.phase, report.skipped) == ("n.prototxt", "n", "TEST", 1)
    assert report.ok
    assert report.problems == ()
    assert [(layer.line, layer.shapes.name) for layer in report.layers] == [(2, "in"), (3, "c"), (5, "r"), (7, "y")]
    assert report.param_count == 4 * 3 * 16 + 4
    assert report.multiply_adds == 4 * 4 * 3 * 3 * 16
    assert [layer.shapes.name for layer in lint(NET, phase="TRAIN").layers] == ["in", "c", "r", "x"]


def test_report_as_json():
    data = json.loads(json.dumps(lint(NET, "n.prototxt", runtime="bvlc").to_dict()))
    assert data["ok"] is False
    assert data["layers"][1]["line"] == 3
    assert data["layers"][1]["tops"] == [{"name": "c", "shape": [1, 4, 4, 3]}]
    assert data["layers"][1]["params"] == [[4, 3, 4, 4], [4]]
    assert data["problems"][0]["layer"] == "r"


def test_problems_of_text_and_shapes_come_in_order_of_lines():
    text = NET.replace('bottom: "d" top: "c"', 'bottom: "q" top: "c"').replace(
        "phase: TEST }", "phase: TEST zap: 1 }\n foo: 2"
    )
    assert found(text) == [
        (3, "c", "error", "bottom 'q' is not a top of an earlier layer"),
        (7, "y", "error", "NetStateRule has no field 'zap'"),
        (8, "y", "error", "LayerParameter has no field 'foo'"),
    ]


def test_syntax_errors_raise():
    with pytest.raises(PrototxtError, match=r"^n\.prototxt:2:13: Expected"):
        lint('name: "n"\nlayer { top 3 }', "n.prototxt")
    with pytest.raises(PrototxtError, match="known are opencv, caffe-ssd, bvlc, ncnn, mnn"):
        lint(NET, runtime="tflite")


def test_wrong_values_do_not_end_the_report():
    text = NET.replace("kernel_size: 4", "kernel_size: 4.0 weight_filler { std: one }").replace(
        'type: "ReLU6"', 'type: "Pooling" name: "s" pooling_param { pool: AVE_EXC_PAD kernel_size: 2 }'
    ).replace('bottom: "c" top: "c"', 'bottom: "c" top: "cc"')  # fmt: skip
    assert found(text) == [
        (4, "c", "error", "ConvolutionParameter takes a whole number from 0 to 4294967295 as kernel_size, got 4.0"),
        (4, "c", "error", "FillerParameter takes a number as std, got one"),
        (5, "s", "error", "LayerParameter has name twice, first on the same line; it takes one"),
        (5, "s", "error", "PoolingParameter takes MAX, AVE or STOCHASTIC as pool, got AVE_EXC_PAD"),
    ]
    assert [layer.shapes.tops[0].shape for layer in lint(text).layers][1:3] == [(1, 4, 4, 3), (1, 4, 3, 2)]


def test_what_follows_from_a_value_that_is_lost_is_not_reported_again():
    text = NET.replace("num_output: 4", "num_output: -4")
    assert [problem[3] for problem in found(text)] == [
        "ConvolutionParameter takes a whole number from 0 to 4294967295 as num_output, got -4"
    ]
    text = NET.replace("pad: 1", "pad: 1.5") + LAYER % ("Eltwise", 'bottom: "c"')
    assert [problem[3] for problem in found(text)] == [
        "ConvolutionParameter takes a whole number from 0 to 4294967295 as pad, got 1.5"
    ]
    assert len(found(text.replace("pad: 1.5", "pad: 2"))) == 1
    old = 'input: "d" input_dim: [1, 3, 8, 6] layers { name: "p" type: PRELU bottom: "d" top: "p" }'
    assert [problem[2:3] for problem in found(old)] == [("warning",), ("error",)]


def test_nets_from_before_2014_are_shaped():
    text = (
        'input: "d" input_dim: [1, 3, 8, 6]\nlayers { name: "c" type: CONVOLUTION bottom: "d" top: "c"\n'
        'convolution_param { num_output: 4 kernel_size: 3 } }\nlayers { name: "r" type: RELU bottom: "x" top: "r" }'
    )
    report = lint(text)
    assert [(one.line, one.shapes.type, one.shapes.tops[0].shape) for one in report.layers] == [
        (2, "Convolution", (1, 4, 6, 4)),
        (4, "ReLU", None),
    ]
    assert [problem.severity for problem in report.problems] == ["warning", "error"]
    assert report.problems[0].text.startswith("the net has the format before 2014")
    assert (report.problems[1].line, report.problems[1].layer) == (4, "r")
    mixed = text + LAYER % ("ReLU", "")
    assert [layer.line for layer in lint(mixed).layers] == [2, 4]
    assert [problem.kind for problem in lint(mixed).problems] == ["old-layers", "mixed-layers", "unknown-bottom"]
    assert [lint(text, runtime=name).problems[-2].severity for name in ("opencv", "bvlc")] == ["warning", "warning"]
    assert lint(text, runtime="ncnn").problems[1].severity == "error"
    older = 'input: "d" input_dim: [1, 3, 8, 6] layers { layer { name: "r" type: "relu" } bottom: "d" top: "r" }'
    assert [problem.kind for problem in lint(older).problems] == ["old-layers"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('net: "train.prototxt"\nbase_lr: 0.1 solver_mode: GPU', "this is a solver, not a net; give the net that it "
         "names, train.prototxt"),
        ("base_lr: 0.1", "this is a solver, not a net; give the net that it names"),
        ('item { name: "a" label: 1 }', "this is a label map, not a net"),
    ],
)  # fmt: skip
def test_other_files_are_told_apart(text, said):
    assert found(text) == [(1, None, "error", said)]
    more = found(text.replace("base_lr: 0.1", "base_lr: 0.1 zap: 1 max_iter: ten"))
    assert [problem[3] for problem in more[1:]] == [
        "SolverParameter has no field 'zap'",
        "SolverParameter takes a whole number of 32 bits as max_iter, got ten",
    ][: 2 * ("base_lr" in text)]


def test_a_byte_order_mark_and_other_encodings(tmp_path):
    path = tmp_path / "n.prototxt"
    path.write_bytes(b"\xef\xbb\xbf" + NET.encode())
    assert [(problem.kind, problem.line) for problem in lint_file(path, runtime=None, phase=None).problems] == [
        ("byte-order-mark", 1)
    ]
    path.write_bytes(NET.encode() + b"# \xb5\xc4")
    report = lint_file(path, runtime=None, phase=None)
    assert [(problem.kind, problem.severity, problem.line) for problem in report.problems] == [
        ("encoding", "warning", 8)
    ]
    path.write_bytes(NET.encode("utf-16"))
    with pytest.raises(PrototxtError, match="is UTF-16 text, which Caffe does not read"):
        lint_file(path, runtime=None, phase=None)


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ("opencv", []),
        ("bvlc", [(5, "r", "error", "BVLC Caffe has no layer ReLU6; write Clip, or write it with ReLU and Power")]),
        ("ncnn", []),
        (
            "nnie",
            [
                (3, "c", "warning", "HiSilicon NNIE: it is made for 3x3 kernels"),
                (5, "r", "error", "HiSilicon NNIE has no layer ReLU6"),
            ],
        ),
    ],
)
def test_runtimes(runtime, expected):
    problems = found(NET, runtime=runtime)
    assert [problem[:3] for problem in problems] == [one[:3] for one in expected]
    assert all(problem[3].startswith(one[3]) for problem, one in zip(problems, expected, strict=True))


LAYER = 'layer { name: "l" type: "%s" bottom: "d" top: "t" %s }\n'


@pytest.mark.parametrize(
    ("runtime", "kind", "body", "text"),
    [
        ("opencv", "Clip", "clip_param { min: 0 max: 6 }", "OpenCV DNN has no layer Clip; write ReLU6"),
        ("opencv", "Pad", "", "OpenCV DNN has no layer Pad; use --padding exact"),
        ("opencv", "Convolution", "convolution_param { tf_pad: SAME }", "OpenCV DNN: convolution_param.tf_pad is set"),
        ("opencv", "PriorBox", "", "OpenCV DNN: prior_box_param.clip is missing; its default is true"),
        ("opencv", "PriorBox", "prior_box_param { clip: false }", "OpenCV DNN: prior_box_param.variance is missing"),
        ("opencv", "AnnotatedData", "", "OpenCV DNN has no layer AnnotatedData; it is for training"),
        ("bvlc", "PriorBox", "", "BVLC Caffe has no layer PriorBox; it needs the SSD branch"),
        ("bvlc", "ReLU", "relu6_param { }", "BVLC Caffe does not know relu6_param"),
        ("bvlc", "Data", "transform_param { resize_param { } }", "BVLC Caffe: transform_param.resize_param is set"),
        ("ncnn", "Clip", "", "ncnn (caffe2ncnn) has no layer Clip; write ReLU6"),
        ("ncnn", "Convolution", "convolution_param { tf_pad: SAME }", "ncnn (caffe2ncnn): convolution_param.tf_pad"),
        ("nnie", "DetectionOutput", "", "HiSilicon NNIE has no layer DetectionOutput; use a headless net"),
    ],
)  # fmt: skip
def test_rules_of_runtimes(runtime, kind, body, text):
    head = NET.splitlines()[1] + "\n"
    texts = [problem.text for problem in lint(head + LAYER % (kind, body), runtime=runtime).problems]
    assert any(one.startswith(text) for one in texts)
    without = [problem.text for problem in lint(head + LAYER % (kind, body)).problems]
    assert not any(one.startswith(text) for one in without)


@pytest.mark.parametrize(("code_type", "refused"), [("CENTER_SIZE", False), ("CORNER", True)])
def test_ncnn_decodes_center_size_alone(code_type, refused):
    text = f'layer {{ name: "d" type: "DetectionOutput" detection_output_param {{ code_type: {code_type} }} }}'
    assert any("--clip late" in problem.text for problem in lint(text, runtime="ncnn").problems) is refused


def test_ncnn_wants_an_input_layer():
    text = 'input: "d" input_shape { dim: 1 dim: 3 dim: 8 dim: 6 }\n' + LAYER % ("ReLU", "")
    assert found(text, runtime="ncnn")[0][:3] == (None, None, "warning")
    assert found(text, runtime="opencv") == []


def test_tables_name_layers_and_fields_that_exist():
    for runtime in LIMITS.values():
        assert runtime.layers <= runtime.rules.keys()
        assert RULES.keys() <= runtime.rules.keys()
        assert runtime.instead.keys() <= runtime.rules.keys() - runtime.layers
        assert runtime.warnings.keys() <= runtime.layers
        assert all(hasattr(caffe_pb2, name) for name in runtime.skips)
        for rule in runtime.fields:
            message = caffe_pb2.LayerParameter.DESCRIPTOR
            for name in rule.path.split("."):
                assert message is not None
                assert name in message.fields_by_name, rule.path
                message = message.fields_by_name[name].message_type
