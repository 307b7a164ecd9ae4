"""Cutting a net at a blob: writes the prototxt of the part that computes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssdlite_caffe.errors import OutputError, PrototxtError
from ssdlite_caffe.files import write_text
from ssdlite_caffe.prototxt.cut import cut_net
from ssdlite_caffe.prototxt.shapes import infer
from ssdlite_caffe.prototxt.text import format_message, read_net
from ssdlite_caffe.runtimes.model_folder import DEPLOY, HEADLESS


def net_in(path: Path) -> Path:
    """The prototxt of a net, or deploy.prototxt (else headless.prototxt) of a folder.

    Raises:
        PrototxtError: the folder has neither.
    """
    if not path.is_dir():
        return path
    found = next((path / name for name in (DEPLOY, HEADLESS) if (path / name).is_file()), None)
    if found is None:
        raise PrototxtError(f"{path} has no {DEPLOY} and no {HEADLESS}; give a prototxt")
    return found


def cut_file(path: Path, name: str, out: Path, *, at_layer: bool = False, force: bool = False) -> dict[str, Any]:
    """Write the part of a net that computes one blob; the caffemodel stays the same file.

    Args:
        path: prototxt of a net, or a folder with one.
        name: a blob, or a layer; see `cut_net`.
        out: the prototxt to write.
        at_layer: `name` is a layer.
        force: replace an earlier file, though not the net itself.

    Returns:
        What was kept: net, blob, layer, shape (null where it is not known), layers, of, unread.

    Raises:
        PrototxtError: the net cannot be read, or has no such blob or layer.
        OutputError: `out` exists, is the net itself, or cannot be written.
    """
    source = net_in(path)
    net = read_net(source)
    if out.exists() and source.exists() and source.samefile(out):
        raise OutputError(f"{out} is the net that is cut; give another name")
    try:
        cut = cut_net(net, name, at_layer=at_layer)
    except PrototxtError as error:
        raise PrototxtError(f"{source}: {error}") from error
    write_text(out, format_message(cut.net), force=force)
    shape = infer(cut.net).blobs.get(cut.blob)
    return {
        "net": str(source),
        "blob": cut.blob,
        "layer": cut.layer,
        "shape": None if shape is None else list(shape),
        "layers": cut.layers,
        "of": cut.of,
        "unread": list(cut.unread),
    }
