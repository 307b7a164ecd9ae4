"""HiSilicon's NNIE mapper, for the chips before SVP_NNN: a headless net on stock layers, and its configuration.

`norm_type` 5 subtracts each channel's mean, a number a line in `mean_file`, and then multiplies by `data_scale`.
"""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

HISILICON_NNIE = Target(
    name="hisilicon-nnie",
    title="HiSilicon NNIE (nnie_mapper)",
    nets=(
        TargetNet(
            "headless.prototxt", "headless.caffemodel", "headless", Dialect(activation="stock", priors="none")
        ),
        TargetNet(
            "headless_maps.prototxt", "headless.caffemodel", "headless",
            Dialect(activation="stock", priors="none", outputs="per-map"),
        ),
    ),
    checked=Checked("read", "configurations and reports of its users, not run"),
    limits="hisilicon-nnie",
    files=("README.md", "nnie.cfg", "mean.txt", "ssd.py"),
    priors=("npy", "raw"),
    calibration="rgb-png",
    calibration_list="image_list.txt",
    decoder=True,
)  # fmt: skip
