"""ncnn: `caffe2ncnn`, which is in no Python package and is taken from the PATH, then the library."""

import ncnn
import numpy as np
from runner import call, with_image


def run(job):
    job.versions("ncnn")
    with job.step("load"):
        call("caffe2ncnn", job.prototxt, job.caffemodel, "net.param", "net.bin")
        net = ncnn.Net()
        options = net.opt
        options.use_vulkan_compute = False
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, "use_" + name, False)
        options.use_winograd_convolution = False
        if net.load_param("net.param") or net.load_model("net.bin"):
            raise RuntimeError("ncnn cannot read what caffe2ncnn wrote")
    with job.step("run"):
        for number, blob in enumerate(job.inputs):
            extractor = net.create_extractor()
            extractor.input(net.input_names()[0], ncnn.Mat(np.ascontiguousarray(blob[0])))
            for name in job.outputs:
                status, found = extractor.extract(name)
                if status:
                    raise RuntimeError(f"ncnn cannot compute {name}")
                array = np.array(found)
                job.save(number, name, with_image(array) if name == "detection_out" else array)
