"""VeriSilicon's Acuity (pegasus), for NPUs of Amlogic, Allwinner, NXP and others: a headless net.

Read from the names in its Caffe reader: Clip, no ReLU6, no Power, no DetectionOutput. Its preprocessing is
(value - mean) * scale; images are read as RGB, and `reverse_channel: true` makes them BGR.
"""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

ACUITY = Target(
    name="acuity",
    title="VeriSilicon Acuity (pegasus)",
    nets=(
        TargetNet(
            "headless.prototxt",
            "headless.caffemodel",
            "headless",
            Dialect(activation="clip", linear="scale", priors="none"),
        ),
        TargetNet(
            "headless_maps.prototxt",
            "headless.caffemodel",
            "headless",
            Dialect(activation="clip", linear="scale", priors="none", outputs="per-map"),
        ),
    ),
    checked=Checked("read", "the names in its Caffe reader, and settings of its users, not run"),
    limits="acuity",
    files=("README.md", "headless_inputmeta.yml", "convert.sh", "ssd.py"),
    priors=("npy", "raw"),
    calibration="rgb-png",
    calibration_list="dataset.txt",
    decoder=True,
)
