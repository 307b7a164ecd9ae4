"""MNN: `mnnconvert -f CAFFE`, then its interpreter."""

import _tools
import MNN
import numpy as np
from runner import with_image, without_pip


def run(job):
    job.versions("MNN")
    # When a conversion fails, mnnconvert may start pip. Its own main() would also report usage over the network.
    without_pip(job.folder)
    with job.step("load"):
        convert(job)
    with job.step("run"):
        interpreter = MNN.Interpreter("net.mnn")
        session = interpreter.createSession()
        (feed,) = interpreter.getSessionInputAll(session).values()
        for number, blob in enumerate(job.inputs):
            feed.copyFrom(tensor(blob))
            interpreter.runSession(session)
            for name, output in interpreter.getSessionOutputAll(session).items():
                job.save(number, name, values(output, name))


def convert(job):
    files = ["--modelFile", str(job.caffemodel), "--prototxt", str(job.prototxt), "--MNNModel", "net.mnn"]
    _tools.mnnconvert(["mnnconvert", "-f", "CAFFE", *files, "--bizCode", "ssdlite-caffe"])
    if not (job.folder / "net.mnn").exists():
        raise RuntimeError("mnnconvert wrote no file")


def values(output, name):
    if not all(output.getShape()):  # an output that MNN does not compute has no size
        return np.zeros(0)
    host = tensor(np.zeros(output.getShape(), np.float32))
    output.copyToHostTensor(host)
    array = np.array(host.getData())
    return with_image(array) if name == "detection_out" else array


def tensor(array):
    array = np.ascontiguousarray(array)
    return MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)
