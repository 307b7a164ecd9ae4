"""Average precision of a training folder's weights: of the folded net, and by Caffe's own layer of the trained net."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ssdlite_caffe.caffe.prefix import caffe_prefix, extension_module
from ssdlite_caffe.data.labelled_images import open_images
from ssdlite_caffe.errors import CaffeError, DatasetError
from ssdlite_caffe.evaluation.detection_evaluate import detection_evaluate_score
from ssdlite_caffe.evaluation.evaluate import Evaluation, evaluate
from ssdlite_caffe.evaluation.forms import ModelForms
from ssdlite_caffe.evaluation.report import write_plot
from ssdlite_caffe.files import write_text
from ssdlite_caffe.imports import import_pyplot
from ssdlite_caffe.runtimes.model_folder import TEST, ModelFolder
from ssdlite_caffe.tools.merge_bn import merge_folder
from ssdlite_caffe.training.kit_check import INITIAL, LABEL_MAP, SOLVER_TEST, SOLVER_TRAIN, check_kit
from ssdlite_caffe.training.snapshots import find_snapshots, newest_whole
from ssdlite_caffe.training.start_weights import check_classes_of_weights

RESULT, PLOT = "test.json", "precision_recall.png"


def evaluate_kit(
    folder: Path,
    weights: Path | None,
    runtimes: Sequence[str],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Evaluate weights on the test LMDB; test.json and precision_recall.png in the folder get the result, too.

    Args:
        folder: what `write_kit` wrote.
        weights: caffemodel; None: the newest whole snapshot's.
        runtimes: opencv, caffe: what runs the folded net.
        progress: called with images done and images in all.

    Raises:
        SsdliteError: the folder or the weights cannot be used, or no Caffe is built.
    """
    import_pyplot()  # fails before the work is done, not after it
    weights = weights or newest_weights(folder)
    kit = check_kit(folder, SOLVER_TEST, weights=weights)
    check_classes_of_weights(kit)
    if len(kit.test) != 1 or len(kit.test[0].lmdbs) != 1:
        raise DatasetError(f"{folder / SOLVER_TEST} must lead to one test net with one LMDB, got {len(kit.test)} nets")
    lmdb = kit.test[0].lmdbs[0]
    extension_module(caffe_prefix())  # the score of DetectionEvaluate needs it, whatever the runtimes are
    with tempfile.TemporaryDirectory(prefix="ssdlite-caffe.") as scratch:
        merge_folder(folder, weights, Path(scratch) / "deploy")
        model = ModelFolder.open(Path(scratch) / "deploy")
        images = open_images(lmdb, model.labels)
        result = evaluate(
            ModelForms(model.labels, model), images, runtimes, data=os.path.normpath(lmdb), progress=progress
        )
    own = detection_evaluate_score(result, folder / TEST, weights, lmdb, folder / LABEL_MAP)
    # What ran was folded from these weights, in a folder that is gone.
    ran = (dataclasses.replace(score, path=str(weights) if score.path else "") for score in result.scores)
    result = dataclasses.replace(result, model=str(weights), scores=(*ran, own))
    write_text(folder / RESULT, json.dumps(result.to_dict(), indent=2) + "\n", force=True)
    write_plot(result, folder / PLOT, force=True)
    return result


def newest_weights(folder: Path) -> Path:
    """The caffemodel of the newest whole snapshot, or what the training starts from.

    Raises:
        CaffeError: there is neither.
        SsdliteError: the folder cannot be used.
    """
    kit = check_kit(folder, SOLVER_TRAIN)
    found, _ = newest_whole(find_snapshots(folder, kit.solver), kit.train.net, kit.solver)
    if found is not None:
        return found.model
    if kit.weights is None:
        raise CaffeError(
            f"{folder} has no whole snapshot and no {INITIAL}; train it first with `ssdlite-caffe train {folder}`, or "
            "give --weights"
        )
    return kit.weights
