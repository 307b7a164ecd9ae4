"""Folding the BatchNorms of a trained net: writes the folder that detect, evaluate and other commands read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ssdlite_caffe import __version__
from ssdlite_caffe.coco.label_map import check_classes, load_label_map
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.files import file_sha256, new_folder, write_text
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.load.merge import Merged, fit, merge_batch_norm, without_batch_norm
from ssdlite_caffe.prototxt.binary import read_caffemodel, write_filled
from ssdlite_caffe.prototxt.text import format_message, read_net
from ssdlite_caffe.runtimes.model_folder import DEPLOY, DEPLOY_WEIGHTS, HEADLESS, LABEL_MAP, REPORT, TEST, TRAIN_WEIGHTS

MERGED = "merged.json"
"""Report of `merge_files`; it is not named report.json, since it does not describe a detector."""

_DESCRIPTIONS = (REPORT, "kit.json")


def merge_folder(folder: Path, weights: Path | None, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Fold the BatchNorms of a net that was trained in a training folder or a converted folder.

    Args:
        folder: has test.prototxt with BatchNorms, deploy.prototxt, headless.prototxt and the label map.
        weights: a snapshot of the net; None: the folder's train.caffemodel.
        out: folder to write.
        force: replace an earlier folder.

    Returns:
        The report that is written there as report.json.

    Raises:
        PrototxtError: a file is missing, or the weights do not fit.
        OutputError: `out` exists, or cannot be written.
    """
    description = next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)
    missing = [name for name in (TEST, DEPLOY, LABEL_MAP) if not (folder / name).is_file()]
    if description is None or missing:
        lacks = ", ".join([*missing, *([] if description else [" or ".join(_DESCRIPTIONS)])])
        raise PrototxtError(f"{folder} is not a training folder or a converted model: {lacks} missing")
    arch = _arch(description)
    labels = load_label_map(folder / LABEL_MAP)
    check_classes(labels, arch.num_classes, str(folder / LABEL_MAP))
    source = weights or folder / TRAIN_WEIGHTS
    merged = _merged(folder / TEST, source)
    described = {"arch": arch.to_dict(), "resizer": dataclasses.asdict(arch.resizer)}
    report = {**_report(merged, folder / TEST, source), **described, "files": {}}
    with new_folder(out, marker=REPORT, force=force) as written:
        for name in (DEPLOY, HEADLESS):
            if (folder / name).is_file():
                _write_net(folder / name, written / name)
        deploy = read_net(written / DEPLOY)
        fit(merged.blobs, deploy, f"{source} does not fit {folder / DEPLOY}")
        write_filled(written / DEPLOY_WEIGHTS, deploy, merged.blobs)
        write_text(written / LABEL_MAP, labels.to_prototxt())
        report["files"] = {path.name: {"sha256": file_sha256(path)} for path in sorted(written.iterdir())}
        write_text(written / REPORT, json.dumps(report, indent=2) + "\n")
    return report


def merge_files(prototxt: Path, weights: Path, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Fold the BatchNorms of any test or deploy net, into a folder with deploy.prototxt and deploy.caffemodel.

    Raises:
        PrototxtError: a file cannot be read, or the net cannot be folded.
        OutputError: `out` exists, or cannot be written.
    """
    merged = _merged(prototxt, weights)
    report = _report(merged, prototxt, weights)
    with new_folder(out, marker=MERGED, force=force) as written:
        write_text(written / DEPLOY, format_message(merged.net))
        write_filled(written / DEPLOY_WEIGHTS, merged.net, merged.blobs)
        write_text(written / MERGED, json.dumps(report, indent=2) + "\n")
    return report


def _merged(prototxt: Path, weights: Path) -> Merged:
    if not weights.is_file():
        raise PrototxtError(f"caffemodel {weights} does not exist")
    try:
        return merge_batch_norm(read_net(prototxt), read_caffemodel(weights))
    except PrototxtError as error:
        raise PrototxtError(f"{weights} with {prototxt}: {error}") from error


def _write_net(source: Path, target: Path) -> None:
    """Write the deploy or headless net without BatchNorm layers; a net without any is copied unchanged."""
    net = read_net(source)
    if any(layer.type == "BatchNorm" for layer in net.layer):
        write_text(target, format_message(without_batch_norm(net)))
    else:
        write_text(target, source.read_text("utf-8"))


def _report(merged: Merged, prototxt: Path, weights: Path) -> dict[str, Any]:
    return {
        "ssdlite_caffe": __version__,
        "merged_from": {"net": str(prototxt), "weights": str(weights), "sha256": file_sha256(weights)},
        "layers_folded": len(merged.folded),
        "unused": list(merged.unused),
    }


def _arch(description: Path) -> ArchSpec:
    try:
        content = json.loads(description.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PrototxtError(f"cannot read {description}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("arch"), dict):
        raise PrototxtError(f"{description} has no architecture under the key 'arch'")
    return ArchSpec.from_dict(content["arch"])
