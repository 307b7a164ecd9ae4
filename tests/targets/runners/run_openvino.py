"""OpenVINO: `mo`, the last converter that reads Caffe files, then the runtime."""

import os
import sys
from pathlib import Path

from openvino.runtime import Core
from runner import call

_MO = "import sys; from openvino.tools.mo.__main__ import main; sys.exit(main())"


def run(job):
    job.versions("openvino-dev", "openvino")
    consent = Path(os.environ["HOME"]) / "intel" / "openvino_telemetry"  # 0: mo does not report its use
    consent.parent.mkdir(parents=True, exist_ok=True)
    consent.write_text("0")
    with job.step("load"):
        files = ["--input_model", job.caffemodel, "--input_proto", job.prototxt]
        call(
            sys.executable, "-c", _MO, "--framework", "caffe", *files, "--compress_to_fp16=False", "--model_name", "net"
        )
    with job.step("run"):
        core = Core()
        core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        model = core.compile_model(core.read_model("net.xml"), "CPU")
        for number, blob in enumerate(job.inputs):
            found = model([blob])
            for output in model.outputs:
                job.save(number, output.get_any_name(), found[output])
