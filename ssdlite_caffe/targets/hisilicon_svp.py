"""HiSilicon's ATC for the SVP_NNN chips (SS927, SS928): a headless net, its preprocessing and calibration.

Its guide: no PriorBox; names and types of layers are the same in both files; `image_list` has a path a line and takes
usual image files where `insert_op.cfg` says how they are preprocessed; preprocessing is (value - mean) * factor in
float32, in the channel order of `model_format`.
"""

from __future__ import annotations

from ssdlite_caffe.gen_model.dialect import Dialect
from ssdlite_caffe.targets.target import Checked, Target, TargetNet

HISILICON_SVP = Target(
    name="hisilicon-svp",
    title="HiSilicon SVP_NNN (ATC)",
    nets=(
        TargetNet("headless.prototxt", "headless.caffemodel", "headless", Dialect(priors="none")),
        TargetNet(
            "headless_maps.prototxt", "headless.caffemodel", "headless", Dialect(priors="none", outputs="per-map")
        ),
    ),
    checked=Checked("read", "HiSilicon's ATC guide of 2025-12, not run"),
    limits="hisilicon-svp",
    files=("README.md", "insert_op.cfg", "convert.sh", "ssd.py"),
    priors=("npy", "raw", "anchors"),
    calibration="rgb-png",
    calibration_list="image_list.txt",
    decoder=True,
)
