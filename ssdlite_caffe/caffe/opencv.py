"""A small OpenCV for builds that go to other machines: what Caffe calls, with JPEG and PNG, as static libraries.

A distribution's OpenCV reads dozens of formats, by some 250 other libraries; an archive with them would take 100 MB.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from ssdlite_caffe.caffe.compile import Log, Report, Step, run
from ssdlite_caffe.caffe.release import Release, downloaded_release

_SHA256 = "cfdc017ddf2e59b6c2f53bc12d74b6b0be7ded4ec59083ea70763921af2b6c09"
OPENCV = Release("opencv-python-headless", "4.12.0.88", _SHA256, ("opencv",))
"""The Python package's source archive has OpenCV's own sources in it."""

_OFF = (
    "1394", "ADE", "AVIF", "EIGEN", "FFMPEG", "FLATBUFFERS", "GSTREAMER", "GTK", "IPP", "ITT", "JASPER", "JPEGXL",
    "LAPACK", "OBSENSOR", "OPENCL", "OPENEXR", "OPENJPEG", "PROTOBUF", "QT", "QUIRC", "TIFF", "V4L", "VTK", "WEBP",
)  # fmt: skip
_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_LIST=core,imgproc,imgcodecs,highgui,videoio",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DCMAKE_POSITION_INDEPENDENT_CODE=ON",
    "-DENABLE_PRECOMPILED_HEADERS=OFF",
    "-DVIDEOIO_ENABLE_PLUGINS=OFF",
    "-DHIGHGUI_ENABLE_PLUGINS=OFF",
    *(f"-DBUILD_{name}=ON" for name in ("JPEG", "PNG", "ZLIB")),
    *(
        f"-DBUILD_{name}=OFF"
        for name in ("TESTS", "PERF_TESTS", "JAVA", "opencv_apps", "opencv_python2", "opencv_python3")
    ),
    *(f"-DWITH_{name}=OFF" for name in _OFF),
)


def built_opencv(cache: Path, jobs: int, log: Log, report: Report, lock: int) -> Path:
    """Where it is installed in the cache; downloaded and built there, some 5 minutes on 2 cores, if it is not.

    Raises:
        BuildError: it cannot be downloaded or built.
    """
    prefix = cache / "build" / f"opencv-{OPENCV.version}"
    if prefix.is_dir():
        return prefix
    sources = downloaded_release(OPENCV, cache, lambda what: report(Step(what))) / "opencv"
    with tempfile.TemporaryDirectory(dir=cache / "build", prefix="opencv.") as temporary:
        folder, new = Path(temporary) / "build", Path(temporary) / "new"
        folder.mkdir()
        configure = ["cmake", "-G", "Ninja", "-S", os.fspath(sources), "-B", os.fspath(folder), *_FLAGS]
        configure.append(f"-DCMAKE_INSTALL_PREFIX={new}")
        if shutil.which("ccache"):
            configure += [f"-DCMAKE_{language}_COMPILER_LAUNCHER=ccache" for language in ("C", "CXX")]
        run(configure, log, report, "configuring OpenCV", keep_open=lock, folder=folder)
        run(["ninja", "-j", str(jobs), "install"], log, report, "compiling OpenCV", keep_open=lock, folder=folder)
        with contextlib.suppress(FileExistsError):  # another build was faster
            new.rename(prefix)
    return prefix
