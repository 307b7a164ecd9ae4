"""X2Paddle, then Paddle's own runtime. The outputs lose their names."""

import sys

import paddle
from runner import call


def run(job):
    job.versions("x2paddle", "paddlepaddle")
    with job.step("load"):
        files = ["--prototxt", job.prototxt, "--weight", job.caffemodel, "--save_dir", "paddle"]
        call(sys.executable, "-m", "x2paddle.convert", "--framework=caffe", *files, "--disable_feedback=True")
        net = paddle.jit.load("paddle/inference_model/model")
        net.eval()
    with job.step("run"):
        for number, blob in enumerate(job.inputs):
            found = net(paddle.to_tensor(blob))
            for place, output in enumerate(found if isinstance(found, (list, tuple)) else [found]):
                job.save(number, f"#{place}", output.numpy())
