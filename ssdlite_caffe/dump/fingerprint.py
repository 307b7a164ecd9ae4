"""Whether a model is the one that was read before: the hash of its files, without reading the model."""

from __future__ import annotations

from pathlib import Path

from ssdlite_caffe.dump.locate import locate
from ssdlite_caffe.dump.model_bytes import read_bytes, sha256


def model_sha256(path: Path) -> str | None:
    """`DumpedModel.sha256` of the model at `path`; None for dumped weights, which have the hash of their source.

    Raises:
        ModelError: there is no model, or a file of it is missing or damaged.
    """
    found = locate(path)
    if found.kind == "weights folder":
        return None
    if found.kind == "SavedModel":
        from ssdlite_caffe.dump.tf1.saved_model import saved_model_sha256

        return saved_model_sha256(found.path)
    if found.kind == "checkpoint":
        from ssdlite_caffe.dump.tf1.variables import hash_files, shards

        return hash_files(shards(found.path))
    return sha256(read_bytes(found.path))
