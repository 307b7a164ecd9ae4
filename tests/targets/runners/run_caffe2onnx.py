"""caffe2onnx, then ONNX Runtime."""

import sys

import onnxruntime
from runner import call


def run(job):
    job.versions("caffe2onnx", "onnx", "onnxruntime")
    with job.step("load"):
        files = ["--prototxt", job.prototxt, "--caffemodel", job.caffemodel, "--onnx", "net.onnx"]
        call(sys.executable, "-m", "caffe2onnx.convert", *files)
        session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    with job.step("run"):
        for number, blob in enumerate(job.inputs):
            found = session.run(None, {session.get_inputs()[0].name: blob})
            for output, array in zip(session.get_outputs(), found):
                job.save(number, output.name, array)
