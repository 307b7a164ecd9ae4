"""What pyproject.toml cannot say: `src_cuda` goes into the wheel as `ssdlite_caffe/src_cuda`."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Copies the C++ sources beside the modules; an editable install finds them in the checkout."""

    def run(self) -> None:
        """Called by setuptools."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "ssdlite_caffe" / "src_cuda"
            shutil.rmtree(target, ignore_errors=True)  # of an earlier wheel, with files that are gone since
            shutil.copytree("src_cuda", target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildPy})
