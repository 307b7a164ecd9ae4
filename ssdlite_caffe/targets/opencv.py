"""OpenCV DNN: `cv2.dnn.readNetFromCaffe`."""

from __future__ import annotations

from ssdlite_caffe.targets.target import Checked, Target, TargetNet

OPENCV = Target(
    name="opencv",
    title="OpenCV DNN",
    nets=(TargetNet("model.prototxt", "model.caffemodel", "deploy", irregular="constant"),),
    checked=Checked("run", "OpenCV 4.8 to 4.14"),
    limits="opencv",
    files=("README.md", "detect.py", "ssd.py"),
)
