"""Folding the BatchNorms of a trained net: writes the folder that detect, evaluate and other commands read."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssdlite_caffe import __version__
from ssdlite_caffe.coco.label_map import check_classes, load_label_map
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.files import file_sha256, new_folder, write_text
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.layers import BOXES_LAYER
from ssdlite_caffe.gen_model.render import quoted
from ssdlite_caffe.load.constants import constants
from ssdlite_caffe.load.merge import Blobs, Merged, fit, merge_batch_norm, without_batch_norm
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import blob_to_array, read_caffemodel, write_filled
from ssdlite_caffe.prototxt.rules_opencv import infer_for_any
from ssdlite_caffe.prototxt.text import format_message, read_net, read_text
from ssdlite_caffe.runtimes.folder_files import without_proofs
from ssdlite_caffe.runtimes.model_folder import (
    DEPLOY,
    DEPLOY_WEIGHTS,
    DIALECT_KEYS,
    HEADLESS,
    LABEL_MAP,
    PRIORS,
    REPORT,
    TEST,
    TRAIN,
    TRAIN_WEIGHTS,
    ModelFolder,
    without_targets,
)
from ssdlite_caffe.tools.convert import moved_places
from ssdlite_caffe.tools.replaced import refuse_losses

MERGED = "merged.json"
"""Report of `merge_files`; it is not named report.json, since it does not describe a detector."""

_DESCRIPTIONS = (REPORT, "kit.json")
_OF_THE_SOURCE = ("source", "reading", "tensors")
"""What report.json says of the weights' TensorFlow model, which does not hold for weights that were trained since."""


class _Folder(NamedTuple):
    """A folder to merge: its description's content, and the net and weights that are folded."""

    path: Path
    description: dict[str, Any]
    net: Path
    weights: Path


def merge_folder(folder: Path, weights: Path | None, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Fold the BatchNorms of a net that was trained in a training folder or a converted folder.

    The folder that is written is a converted folder: its train and test nets and train.caffemodel keep their
    BatchNorms, so that it can be trained further, and report.json has all that the source's has.

    Args:
        folder: has deploy.prototxt, headless.prototxt and the label map, and test.prototxt with BatchNorms.
        weights: a snapshot of the net; None: the folder's train.caffemodel, or without test net its deploy.caffemodel.
        out: folder to write.
        force: replace an earlier folder.

    Returns:
        The report that is written there as report.json; its `layers_folded` is 0 if the folder was merged before.

    Raises:
        PrototxtError: a file is missing, or the weights do not fit.
        OutputError: `out` exists, or cannot be written.
    """
    refuse_losses(out, [] if weights is None else [("the caffemodel", weights)], within=folder, force=force)
    source = _opened(folder, weights)
    labels = load_label_map(folder / LABEL_MAP)
    arch = ArchSpec.from_dict(source.description["arch"])
    check_classes(labels, arch.num_classes, str(folder / LABEL_MAP))
    merged = _merged(source.net, source.weights)
    report = _folder_report(source, merged, arch, out)
    with new_folder(out, marker=REPORT, force=force) as written:
        for name in (DEPLOY, HEADLESS):
            if (folder / name).is_file():
                _write_net(folder / name, written / name)
        if (folder / PRIORS).is_file():
            shutil.copyfile(folder / PRIORS, written / PRIORS)
        final = _final(folder)
        deploy = read_net(written / final)
        blobs = _with_constants(merged, deploy)
        fit(blobs, deploy, f"{source.weights} does not fit {folder / final}")
        files = {DEPLOY_WEIGHTS: _write_weights(written / DEPLOY_WEIGHTS, deploy, final, blobs)}
        if source.net.name == TEST:
            try:
                files |= _write_train(written, out, source, merged)
            except PrototxtError as error:  # as after changes by hand; the deploy net does not depend on it
                report["notes"] = [*report.get("notes", ()), f"{TRAIN} and its weights are skipped: {error}"]
        write_text(written / LABEL_MAP, labels.to_prototxt())
        report["files"] = {
            path.name: {**_entry(source, path.name), **files.get(path.name, {"sha256": file_sha256(path)})}
            for path in sorted(written.iterdir())
        }
        write_text(written / REPORT, json.dumps(report, indent=2) + "\n")
    return report


def merge_files(
    prototxt: Path, weights: Path, out: Path, *, force: bool = False, keep_rest: bool = False
) -> dict[str, Any]:
    """Fold the BatchNorms of any test or deploy net, into a folder with deploy.prototxt and deploy.caffemodel.

    Args:
        prototxt: the net; of a net for both phases the layers for TEST are taken.
        weights: its caffemodel.
        out: folder to write.
        force: replace an earlier folder.
        keep_rest: leave BatchNorms that cannot be folded where they are.

    Raises:
        PrototxtError: a file cannot be read, or the net cannot be folded.
        OutputError: `out` exists, or cannot be written.
    """
    refuse_losses(out, [("the net", prototxt), ("the caffemodel", weights)], marker=MERGED, force=force)
    merged = _merged(prototxt, weights, keep_rest=keep_rest)
    report = {
        **_report(merged, prototxt, weights),
        "layers_folded": len(merged.folded),
        "kept": list(merged.kept),
        "train_only": list(merged.train_only),
    }
    with new_folder(out, marker=MERGED, force=force) as written:
        write_text(written / DEPLOY, format_message(merged.net))
        write_filled(written / DEPLOY_WEIGHTS, merged.net, merged.blobs)
        write_text(written / MERGED, json.dumps(report, indent=2) + "\n")
    return report


def _opened(folder: Path, weights: Path | None) -> _Folder:
    """Check which files there are, and choose the net and the weights to fold."""
    description = next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)
    # A folder that version 0.2 merged has a deploy net alone.
    bare = weights is None and not any((folder / name).is_file() for name in (TEST, TRAIN_WEIGHTS))
    final = _final(folder)
    net, chosen = (final, folder / DEPLOY_WEIGHTS) if bare else (TEST, weights or folder / TRAIN_WEIGHTS)
    bare = bare and chosen.is_file()
    needed = (final, LABEL_MAP) if bare else (TEST, final, LABEL_MAP)
    missing = [name for name in needed if not (folder / name).is_file()]
    if description is None or missing:
        lacks = ", ".join([*missing, *([] if description else [" or ".join(_DESCRIPTIONS)])])
        raise PrototxtError(f"{folder} is not a training folder or a converted model: {lacks} missing")
    return _Folder(folder, _described(description), folder / net, chosen)


def _final(folder: Path) -> str:
    """The prototxt for the merged weights: deploy, or headless in a folder whose default boxes are in a file."""
    return HEADLESS if (folder / PRIORS).is_file() and not (folder / DEPLOY).is_file() else DEPLOY


def _merged(prototxt: Path, weights: Path, *, keep_rest: bool = False) -> Merged:
    if not weights.is_file():
        raise PrototxtError(f"caffemodel {weights} {'is a folder' if weights.is_dir() else 'does not exist'}")
    net = read_net(prototxt)
    try:
        return merge_batch_norm(net, read_caffemodel(weights), keep_rest=keep_rest)
    except PrototxtError as error:
        raise PrototxtError(f"{weights} with {prototxt}: {error}") from error


def _write_net(source: Path, target: Path) -> None:
    """Write the deploy or headless net without BatchNorm layers; a net without any is copied unchanged."""
    net = read_net(source)
    if any(layer.type == "BatchNorm" for layer in net.layer):
        write_text(target, format_message(without_batch_norm(net)))
    else:
        write_text(target, read_text(source))


def _with_constants(merged: Merged, deploy: caffe_pb2.NetParameter) -> Blobs:
    """The merged blobs for a deploy net whose layers that learn nothing may be others than the test net's."""
    shapes = infer_for_any(deploy, phase="TEST").param_shapes
    own = constants(merged.net, infer_for_any(merged.net, phase="TEST").param_shapes)
    left = {BOXES_LAYER} - {layer.name for layer in deploy.layer}  # a headless net may have its default boxes in a file
    kept = {
        name: blobs for name, blobs in merged.blobs.items() if name not in left and (name not in own or name in shapes)
    }
    return {**constants(deploy, shapes), **kept}


def _write_train(written: Path, out: Path, source: _Folder, merged: Merged) -> dict[str, Any]:
    """Write the train and test nets and their weights, which keep their BatchNorms; the weights' entry in the report.

    Raises:
        PrototxtError: there is no train net, or it learns other layers than the test net.
    """
    train = read_net(source.path / TRAIN)
    fit(merged.unfolded, train, f"{source.weights} does not fit {source.path / TRAIN}", phase="TRAIN")
    for name in (TRAIN, TEST):
        write_text(written / name, _moved(source.path / name, out))
    net = read_net(written / TRAIN)
    return {TRAIN_WEIGHTS: _write_weights(written / TRAIN_WEIGHTS, net, TRAIN, merged.unfolded)}


def _write_weights(path: Path, net: caffe_pb2.NetParameter, prototxt: str, blobs: Blobs) -> dict[str, Any]:
    """Write a caffemodel, and return its entry in the report."""
    return {
        "net": prototxt,
        "layers_filled": len(blobs),
        "values": sum(blob.size for each in blobs.values() for blob in each),
        "sha256": write_filled(path, net, blobs),
    }


def _moved(source: Path, out: Path) -> str:
    """The text of a train or test net; files that it names relative to its folder are named relative to `out`."""
    text, net = read_text(source), read_net(source)
    named = {layer.data_param.source for layer in net.layer}
    named |= {layer.detection_evaluate_param.name_size_file for layer in net.layer}
    for name in named:
        if name and not Path(name).is_absolute() and (source.parent / name).exists():
            moved = os.path.relpath((source.parent / name).resolve(), out.resolve())
            text = text.replace(quoted(name), quoted(moved))
    return text


def _folder_report(source: _Folder, merged: Merged, arch: ArchSpec, out: Path) -> dict[str, Any]:
    """The report without its list of files."""
    described = source.description if "files" in source.description else {}
    report = {
        **without_proofs(without_targets(copy.deepcopy(described))),
        "ssdlite_caffe": __version__,
        "arch": arch.to_dict(),
        "resizer": dataclasses.asdict(arch.resizer),
    }
    if described:
        report |= moved_places(ModelFolder.open(source.path), out)
    if not _unchanged(source):
        report = {key: value for key, value in report.items() if key not in _OF_THE_SOURCE}
    folded = 0 if _is_merged_already(source, merged) else len(merged.folded)
    if folded or "merged_from" not in report:
        report |= _report(merged, source.net, source.weights)
    return {**report, "layers_folded": folded, "unused": list(merged.unused)}


def _report(merged: Merged, prototxt: Path, weights: Path) -> dict[str, Any]:
    return {
        "ssdlite_caffe": __version__,
        "merged_from": {"net": str(prototxt), "weights": str(weights), "sha256": file_sha256(weights)},
        "unused": list(merged.unused),
    }


def _entry(source: _Folder, name: str) -> dict[str, Any]:
    """A file's entry in the source's report; deploy and headless nets are folded now."""
    entries = source.description.get("files")
    entry = copy.deepcopy(entries.get(name)) if isinstance(entries, dict) else None
    if not isinstance(entry, dict):
        return {}
    for key in DIALECT_KEYS if name in (DEPLOY, HEADLESS) else ():
        if isinstance(entry.get(key), dict):
            entry[key]["batch_norm"] = "fold"
    return entry


def _unchanged(source: _Folder) -> bool:
    """Whether the weights are those that the folder was converted with, by the hashes in its report."""
    entries = source.description.get("files")
    listed = entries.values() if isinstance(entries, dict) else ()
    known = [entry.get("sha256") for entry in listed if isinstance(entry, dict)]
    return file_sha256(source.weights) in known


def _is_merged_already(source: _Folder, merged: Merged) -> bool:
    """Whether the folder was merged before, and its deploy net has what folding gives now, bit for bit."""
    path = source.path / DEPLOY_WEIGHTS
    if (
        "merged_from" not in source.description
        or not path.is_file()
        or any(layer.type == "BatchNorm" for layer in read_net(source.path / _final(source.path)).layer)
    ):
        return False
    own = {layer.name: layer.blobs for layer in read_caffemodel(path).layer if layer.blobs}
    blobs = _with_constants(merged, read_net(source.path / _final(source.path)))
    return own.keys() == blobs.keys() and all(_same(own[name], arrays) for name, arrays in blobs.items())


def _same(blobs: Any, arrays: tuple[np.ndarray[Any, Any], ...]) -> bool:
    return len(blobs) == len(arrays) and all(
        blob_to_array(blob).tobytes() == array.tobytes() for blob, array in zip(blobs, arrays, strict=True)
    )


def _described(description: Path) -> dict[str, Any]:
    try:
        content = json.loads(description.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PrototxtError(f"cannot read {description}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("arch"), dict):
        raise PrototxtError(f"{description} has no architecture under the key 'arch'")
    return content
