"""Giving a converted model other classes: the rows of its class predictors are moved, all other weights are copied."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssdlite_caffe.coco.label_map import LabelMap, builtin, numbered
from ssdlite_caffe.coco.mapping import load_mapping
from ssdlite_caffe.coco.remap import remap_rows
from ssdlite_caffe.errors import PrototxtError
from ssdlite_caffe.files import file_sha256, new_folder, write_text
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.dialect import Stage
from ssdlite_caffe.gen_model.netdesc import NetDesc
from ssdlite_caffe.gen_model.render import render
from ssdlite_caffe.prototxt import caffe_pb2
from ssdlite_caffe.prototxt.binary import (
    blob_from_array,
    blob_to_array,
    read_caffemodel,
    write_caffemodel,
)
from ssdlite_caffe.prototxt.text import format_message, parse_net, read_net
from ssdlite_caffe.runtimes.folder_files import without_proofs
from ssdlite_caffe.runtimes.model_folder import HEADLESS, LABEL_MAP, PRIORS, REPORT, ModelFolder, without_targets
from ssdlite_caffe.tools.convert import STAGES, WEIGHTS, moved_places
from ssdlite_caffe.tools.replaced import refuse_losses


def remap_folder(source: Path, mapping: str | Path, out: Path, *, force: bool = False) -> dict[str, Any]:
    """Write the model of the folder `source` with the classes of `mapping` into the folder `out`.

    Prototxts are rendered again from the architecture and the dialect in the report. Where a prototxt was changed by
    hand, or the report does not say its dialect, the class counts in it are changed instead. In the caffemodels, the
    rows of the class predictors are moved and all other blobs are copied, so that the sigmoid scores of the remaining
    classes are bit-exact.

    Args:
        source: a folder that `convert`, `remap` or `merge-bn` wrote; it may be `out`, with `force`.
        mapping: `coco2voc`, or a mapping file (see `coco/mapping.py`).
        out: the folder to write.
        force: replace an earlier folder.

    Returns:
        The report that is written as report.json: the source's, with the new classes and `remapped_from`.

    Raises:
        LabelMapError: the mapping is not valid, or asks for a class that the model does not have.
        PrototxtError: `source` is not a converted model, or its files do not fit together.
        OutputError: `out` exists already or cannot be written.
    """
    refuse_losses(out, [("the mapping", Path(mapping))] if Path(mapping).exists() else [], within=source, force=force)
    old = ModelFolder.open(source)
    classes = load_mapping(mapping)
    labels = _source_labels(old.labels, mapping)
    rows = classes.rows(labels)
    nets = build(old.arch), build(dataclasses.replace(old.arch, num_classes=len(rows)))
    with new_folder(out, marker=REPORT, force=force) as folder:
        files, hashes = _write_files(folder, old, nets, rows, classes.target())
        report = {**_report(old, nets[1], files), **moved_places(old, out)}
        report["remapped_from"] = {
            "mapping": str(mapping),
            "rows": list(rows),
            "classes": [labels.entries[row].display_name for row in rows],
            "sha256": hashes,
            **({"remapped_from": old.report["remapped_from"]} if "remapped_from" in old.report else {}),
        }
        write_text(folder / REPORT, json.dumps(report, indent=2) + "\n")
    return report


def _source_labels(labels: LabelMap, mapping: str | Path) -> LabelMap:
    """The model's class names; COCO's for `coco2voc` of a model with as many classes and only numbered names."""
    coco = builtin("coco")
    unnamed = labels == numbered(len(coco))
    return coco if unnamed and str(mapping) == "coco2voc" else labels


def move_classes(
    source: caffe_pb2.NetParameter, net: caffe_pb2.NetParameter, nets: tuple[NetDesc, NetDesc], rows: Sequence[int]
) -> list[str]:
    """Fill `net` with the blobs of `source`, with the rows of the class predictors moved.

    Args:
        source: the old weights.
        net: the new net without blobs; filled in place.
        nets: the old and the new detector.
        rows: for each new class id the old class id, which is the row in the class predictors.

    Returns:
        What does not fit; empty when the net is filled.
    """
    blobs = {layer.name: layer.blobs for layer in source.layer if layer.blobs}
    layers = {layer.name: layer for layer in net.layer}
    num_classes = nets[0].arch.num_classes
    predictors = {m.conf[-1].name: len(m.tf_boxes) for m in nets[0].feature_maps}
    problems = [f"layer {name!r} is not in the net" for name in blobs if name not in layers]
    problems += [f"layer {c.name!r} has no weights" for c in nets[1].convolutions if c.name not in blobs]
    for name in (name for name in blobs if name in layers):
        boxes = predictors.get(name)
        if boxes is None:
            layers[name].blobs.extend(blobs[name])
            continue
        arrays = [blob_to_array(blob, f"a blob of layer {name!r}") for blob in blobs[name]]
        odd = [array.shape for array in arrays if array.shape[:1] != (boxes * num_classes,)]
        if odd:
            problems.append(
                f"layer {name!r} must have {boxes} boxes x {num_classes} classes = {boxes * num_classes} outputs, its "
                f"weights have the shape {odd[0]}"
            )
            continue
        layers[name].blobs.extend(blob_from_array(remap_rows(array, boxes, num_classes, rows)) for array in arrays)
    return problems


def _write_files(
    folder: Path, old: ModelFolder, nets: tuple[NetDesc, NetDesc], rows: Sequence[int], labels: LabelMap
) -> tuple[dict[str, Any], dict[str, str]]:
    """Write all files except the report; returns the report's `files` and the hashes of the source's caffemodels."""
    entries = old.report.get("files")
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise PrototxtError(f"{old.path / REPORT} has no list of files under the key 'files'; convert the model again")
    files: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    texts: dict[str, str] = {}
    for name, stage in STAGES:
        if name in entries:
            texts[name] = _text(old, name, stage, nets)
            write_text(folder / name, texts[name])
            files[name] = {**entries[name], "sha256": file_sha256(folder / name)}
    if old.priors is not None:
        shutil.copyfile(old.priors, folder / PRIORS)
        files[PRIORS] = {**entries.get(PRIORS, {}), "sha256": file_sha256(folder / PRIORS)}
    for name, prototxt in WEIGHTS.items():
        prototxt = prototxt if prototxt in texts else HEADLESS
        if name in entries and prototxt in texts:
            net = parse_net(texts[prototxt], name=prototxt)
            problems = move_classes(read_caffemodel(old.path / name), net, nets, rows)
            if problems:
                raise PrototxtError(
                    f"{old.path / name} does not fit {REPORT} and {LABEL_MAP} ({len(old.labels)} classes): "
                    + "; ".join(problems)
                )
            write_caffemodel(folder / name, net)
            values = sum(len(blob.data) for layer in net.layer for blob in layer.blobs)
            files[name] = {**entries[name], "values": values, "sha256": file_sha256(folder / name)}
            hashes[name] = file_sha256(old.path / name)
    write_text(folder / LABEL_MAP, labels.to_prototxt())
    files[LABEL_MAP] = {"sha256": file_sha256(folder / LABEL_MAP)}
    return files, hashes


def _text(old: ModelFolder, name: str, stage: Stage, nets: tuple[NetDesc, NetDesc]) -> str:
    """The text of a prototxt with the new classes."""
    written = old.written_as(name)
    if written is not None and old.report["files"][name].get("sha256") == file_sha256(old.path / name):
        return render(nets[1], written[0], stage, written[1])
    net = read_net(old.path / name)
    change_classes(net, nets)
    return format_message(net)


def change_classes(net: caffe_pb2.NetParameter, nets: tuple[NetDesc, NetDesc]) -> None:
    """Change the class count in all layers of a prototxt that have it; the net is changed in place."""
    before, after = (desc.arch.num_classes for desc in nets)
    outputs = {m.conf[-1].name: len(m.tf_boxes) * after for m in nets[1].feature_maps}
    for layer in net.layer:
        if layer.name in outputs:
            layer.convolution_param.num_output = outputs[layer.name]
        for block in ("multibox_loss_param", "detection_output_param", "detection_evaluate_param"):
            if layer.HasField(block):
                getattr(layer, block).num_classes = after
        dims = layer.reshape_param.shape.dim
        if layer.type == "Reshape" and layer.bottom[:1] == ["mbox_conf"] and dims and dims[-1] == before:
            dims[-1] = after


def _report(old: ModelFolder, net: NetDesc, files: dict[str, Any]) -> dict[str, Any]:
    kept = without_proofs(without_targets(copy.deepcopy(old.report)))
    report = {**kept, "arch": net.arch.to_dict(), "files": files}
    if net.arch.score_converter == "softmax" and net.arch.num_classes < old.arch.num_classes:
        note = "softmax is computed over the remaining classes, so their scores are higher than the source model's"
        report["notes"] = [*(n for n in report.get("notes", []) if n != note), note]
    return report
