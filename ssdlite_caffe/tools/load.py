"""From a folder of dumped weights and a prototxt to a caffemodel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssdlite_caffe.dump.store import read_folder
from ssdlite_caffe.files import refuse_existing
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.load.fill import FILLED, fill
from ssdlite_caffe.load.inexact import inexact
from ssdlite_caffe.load.recognise import recognise
from ssdlite_caffe.prototxt.binary import write_filled
from ssdlite_caffe.prototxt.text import read_net_for


def load(weights: Path, prototxt: Path, out: Path, *, finetune: bool = False, force: bool = False) -> dict[str, Any]:
    """Fill the net `prototxt` with the weights that `dump` wrote, and write the caffemodel `out`.

    Returns:
        A dict with the counts `layers_filled` and `values`, in `left` the layers that keep their fillers, with the
        reason, and in `inexact` a line for each way in which the net does not compute what the model computes.

    Raises:
        SsdliteError: weights or net cannot be read or do not fit (all misfits are listed), or `out` exists.
    """
    refuse_existing(out, force=force)
    model = read_folder(weights)
    net = read_net_for(prototxt, {*FILLED, "Input", "PriorBox"})
    desc = build(recognise(model))
    filled = fill(net, desc, model, finetune=finetune)
    differences = inexact(net, desc)
    for layer in [layer for layer in net.layer if layer.name in filled.left]:
        net.layer.remove(layer)  # Caffe uses a layer's fillers only if the caffemodel does not have the layer
    write_filled(out, net, filled.blobs, force=force)
    return {
        "layers_filled": len(filled.blobs),
        "values": sum(blob.size for blobs in filled.blobs.values() for blob in blobs),
        "left": filled.left,
        "inexact": differences,
    }
