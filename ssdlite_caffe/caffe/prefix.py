"""Where to find the Caffe that `ssdlite-caffe caffe build` built.

A prefix holds `bin/caffe`, `bin/caffe_layer_tests`, `lib/libcaffe.so`, the package `python/caffe` (pycaffe) and the
stamp of its build; it may be moved.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from ssdlite_caffe.errors import MissingRuntimeError

PREFIX_VARIABLE = "SSDLITE_CAFFE_PREFIX"
"""Environment variable that names another prefix than the default."""

STAMP = "ssdlite-caffe.json"
"""File in a prefix that says what the build was made from; written last, so that a folder which has it is complete."""


def cache_folder() -> Path:
    """Folder for what is downloaded and built: the user's cache folder of this operating system."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("ssdlite-caffe", appauthor=False))


def default_prefix() -> Path:
    """The prefix of SSDLITE_CAFFE_PREFIX, else `caffe` in the cache folder."""
    named = os.environ.get(PREFIX_VARIABLE)
    return Path(named).absolute() if named else cache_folder() / "caffe"


def find_prefix(prefix: Path | None = None) -> Path | None:
    """`prefix` (None: the default one) if a Caffe is built there, else None."""
    folder = default_prefix() if prefix is None else prefix.absolute()
    return folder if (folder / "bin" / "caffe").is_file() else None


def caffe_prefix(prefix: Path | None = None) -> Path:
    """The prefix of the built Caffe.

    Args:
        prefix: a folder named by the user; None for the one of SSDLITE_CAFFE_PREFIX, or else the default one.

    Raises:
        MissingRuntimeError: no Caffe is built there.
    """
    found = find_prefix(prefix)
    if found is None:
        folder = prefix or default_prefix()
        raise MissingRuntimeError(f"no Caffe is built in {folder}; build it with: ssdlite-caffe caffe build")
    return found


def extension_module(prefix: Path) -> Path:
    """The file `_caffe` of pycaffe in a prefix.

    Raises:
        MissingRuntimeError: it was built without pycaffe, or for another Python than the running one.
    """
    path = prefix / "python" / "caffe" / f"_caffe{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not path.is_file():
        others = sorted(other.name for other in path.parent.glob("_caffe*.so"))
        if not others:
            raise MissingRuntimeError(
                f"{path.parent} has no {path.name}: Caffe was built without pycaffe; build it with: "
                "ssdlite-caffe caffe build"
            )
        raise MissingRuntimeError(
            f"{path.parent} has {others[0]}, not {path.name}: pycaffe was built for another Python; build it for this "
            "one with: ssdlite-caffe caffe build"
        )
    return path
