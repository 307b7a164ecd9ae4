"""The Python API: what the commands do, as functions.

    from ssdlite_caffe import Detector, convert, evaluate, remap, verify

Paths may be given as text. Every error that a user can cause is an `ssdlite_caffe.errors.SsdliteError` with one line
of text. docs/api.md shows each in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssdlite_caffe.dump.read import ReadOptions
from ssdlite_caffe.dump.suppression import NmsChoice
from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect

if TYPE_CHECKING:
    from ssdlite_caffe.evaluation.evaluate import Evaluation
    from ssdlite_caffe.runtimes.net import NetRuntime
    from ssdlite_caffe.tools.proof_check import ProofCheck
    from ssdlite_caffe.tools.verify import VerifyReport

AnyPath = str | os.PathLike[str]


def _silent(_: str) -> None:
    pass


def convert(
    model: AnyPath,
    out: AnyPath,
    *,
    label_map: AnyPath | None = None,
    dialect: Dialect | None = None,
    score_threshold: float | None = None,
    pipeline_config: AnyPath | None = None,
    nms: NmsChoice = "auto",
    dequantize: bool = False,
    ema: bool = False,
    data: str = "",
    batch_size: int = 0,
    expected: Sequence[AnyPath] = (),
    targets: Sequence[str] = (),
    calibrate: Sequence[AnyPath] = (),
    calibration_count: int = 100,
    calibration_split: str = "trainval",
    calibration_images: AnyPath | None = None,
    force: bool = False,
    progress: Callable[[str], None] = _silent,
) -> dict[str, Any]:
    """Convert a detector into a folder of Caffe files.

    Args:
        model: frozen graph, TensorFlow Lite file, SavedModel folder, checkpoint, state_dict of torchvision, Keras file,
            or a folder with one.
        out: the folder to write.
        label_map: `coco`, `voc`, or a label map file; None: the model's own, or numbered names.
        dialect: how the deploy and headless nets are written; None: the default, which is exact.
        score_threshold: least score of a detection, 0 to 1; None: the model's.
        pipeline_config: of the training; None: the one beside the model.
        nms: `auto`, `graph`, `config` or `regular`; see --nms of the command.
        dequantize: convert a fully quantised .tflite; its detections will differ.
        ema: take the moving averages of the weights from a training checkpoint of PyTorch.
        data: path of the LMDB in the train and test nets.
        batch_size: of the train and test nets; 0: 24 and 8.
        expected: images and folders; what a device gets and should give for them is written to `out`/expected.
        targets: names of programs; each gets a folder of its name in `out`, see docs/targets.md.
        calibrate: images for the quantisers of these programs: one folder in VOC's layout, one COCO instances_*.json,
            or images and folders of images.
        calibration_count: how many of them to take.
        calibration_split: of VOC data.
        calibration_images: folder of COCO's images.
        force: replace an earlier folder.
        progress: called with a text when the next step begins.

    Returns:
        The report that is written as report.json.

    Raises:
        SsdliteError: the model cannot be read or is not an SSD MobileNet, its weights do not fit, or `out` exists.
    """
    from ssdlite_caffe.tools.convert import ConvertOptions
    from ssdlite_caffe.tools.convert import convert as run

    additions = []
    if targets or calibrate:
        from ssdlite_caffe.targets.calibration import Wanted
        from ssdlite_caffe.targets.convert import targets_addition
        from ssdlite_caffe.targets.table import targets_named

        places = tuple(Path(path) for path in calibrate)
        where = None if calibration_images is None else Path(calibration_images)
        wanted = Wanted(places, calibration_count, calibration_split, where) if places else None
        additions.append(targets_addition(targets_named(targets), wanted))
    options = ConvertOptions(
        dialect=dialect or Dialect(),
        label_map=None if label_map is None else os.fspath(label_map),
        reading=ReadOptions(None if pipeline_config is None else Path(pipeline_config), nms, dequantize, ema),
        score_threshold=score_threshold,
        data=DataPaths(lmdb=data, batch_size=batch_size),
        expected=tuple(Path(image) for image in expected),
    )
    return run(Path(model), Path(out), options, additions=additions, force=force, progress=progress)


def verify(
    model: AnyPath,
    folder: AnyPath,
    images: Sequence[AnyPath] = (),
    *,
    limit: int = 8,
    runtime: NetRuntime = "opencv",
    pipeline_config: AnyPath | None = None,
    tolerance: float | None = None,
    quick: bool = False,
    html: AnyPath | None = None,
    force: bool = False,
    record: bool = False,
    progress: Callable[[str], None] = _silent,
) -> VerifyReport:
    """Run TensorFlow and the converted net on the same inputs and compare them layer by layer.

    Args:
        model: what `folder` was converted from.
        folder: what `convert` wrote.
        images: files and folders; empty: drawn images.
        limit: largest number of images to compare.
        runtime: `opencv` or `caffe`.
        pipeline_config: of the model; None: the one used in the conversion.
        tolerance: compare in float32 alone, with this bound of boxes (as fractions of the image) and scores.
        quick: compare in float32 alone, with the bounds in tools/tolerances.py.
        html: HTML page to write.
        force: replace that page.
        record: write the result and the hashes of all files into report.json of `folder`, whether the sides are equal
            or not, in place of an earlier result of the same runtime.
        progress: called with a text when the next step begins.

    Returns:
        All differences; `first_failure` is None if they are within the bounds.

    Raises:
        SsdliteError: a side cannot be loaded, an image cannot be read, or the result cannot be recorded.
    """
    from ssdlite_caffe.tools.verify_report import verify_images

    paths = [Path(image) for image in images]
    writer = None
    if record:
        from ssdlite_caffe.tools.proof_write import ProofWriter

        writer = ProofWriter(Path(model), Path(folder), paths, limit)
    report = verify_images(
        Path(model), Path(folder), paths, runtime=runtime,
        pipeline_config=None if pipeline_config is None else Path(pipeline_config), tolerance=tolerance, quick=quick,
        limit=limit,
        html=None if html is None else Path(html), force=force, progress=progress,
    )  # fmt: skip
    if writer is not None:
        writer.write(report, runtime, tolerance)
    return report


def check_proof(folder: AnyPath, model: AnyPath | None = None, *, runtime: NetRuntime | None = None) -> ProofCheck:
    """Whether the files of a converted folder are still those that `verify(record=True)` compared.

    Hashes are compared, and nothing is run: it takes a moment, and neither TensorFlow nor OpenCV.

    Args:
        folder: what `convert` wrote.
        model: what it was compared with, whose hash is compared too; None: the folder alone.
        runtime: the one whose result is checked; None: all that are recorded.

    Returns:
        The recorded results and the state of each file; `ok` if nothing has changed and all were equal.

    Raises:
        SsdliteError: nothing is recorded, or what is recorded is not valid.
    """
    from ssdlite_caffe.tools.proof_check import check_proof as check

    return check(Path(folder), None if model is None else Path(model), runtime=runtime)


def remap(folder: AnyPath, mapping: AnyPath, out: AnyPath, *, force: bool = False) -> dict[str, Any]:
    """Give a converted model other classes, by moving the rows of its class predictors.

    Args:
        folder: what `convert` wrote.
        mapping: `coco2voc`, or a mapping file.
        out: the folder to write.
        force: replace an earlier folder.

    Returns:
        The report that is written as report.json.

    Raises:
        SsdliteError: the mapping asks for a class that the model does not have, or files cannot be read or written.
    """
    from ssdlite_caffe.tools.remap import remap_folder

    return remap_folder(Path(folder), os.fspath(mapping), Path(out), force=force)


def evaluate(
    model: AnyPath,
    data: AnyPath,
    *,
    runtimes: Sequence[str] = (),
    label_map: AnyPath | None = None,
    split: str = "test",
    images: AnyPath | None = None,
    limit: int | None = None,
    score_threshold: float | None = None,
    tensorflow: AnyPath | None = None,
    keras: AnyPath | None = None,
    tflite: AnyPath | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Average precision of a detector on annotated images, as defined by Pascal VOC and by COCO.

    Args:
        model: folder that `convert` wrote, or a TensorFlow, Keras or TensorFlow Lite model.
        data: folder in VOC's layout, LMDB, or COCO's instances_*.json.
        runtimes: any of `tensorflow`, `opencv`, `caffe`, `keras`, `tflite`, `torch`; empty: one for each form that is
            given.
        label_map: `coco`, `voc` or a file, in place of the model's class names.
        split: list in ImageSets/Main of VOC data.
        images: folder of COCO's images.
        limit: largest number of images to use; None: all.
        score_threshold: least score of a detection in every runtime, 0 to 1; None: each form's own.
        tensorflow: the TensorFlow model; None: the one that the folder was converted from.
        keras: the same detector as a Keras model.
        tflite: the same detector as a TensorFlow Lite model.
        progress: called with the number of images done and the total.

    Returns:
        The scores of each runtime.

    Raises:
        SsdliteError: the model, a runtime or the data cannot be used.
    """
    from ssdlite_caffe.data.labelled_images import open_images
    from ssdlite_caffe.evaluation import evaluate as tool
    from ssdlite_caffe.evaluation.detection_evaluate import with_detection_evaluate
    from ssdlite_caffe.evaluation.detectors import check_runtimes
    from ssdlite_caffe.evaluation.forms import model_kind, open_model_forms

    forms = {
        name: Path(path)
        for name, path in (("tensorflow", tensorflow), ("keras", keras), ("tflite", tflite))
        if path is not None
    }
    check_runtimes(runtimes)
    opened = open_model_forms(
        Path(model), **forms, label_map=None if label_map is None else os.fspath(label_map),
        score_threshold=score_threshold,
    )  # fmt: skip
    labelled = open_images(Path(data), opened.labels, split=split, images=None if images is None else Path(images))
    own = model_kind(opened.path or Path(model)) or ("opencv" if opened.folder else "tensorflow")
    names = list(dict.fromkeys(runtimes or [own, *forms]))
    result = tool.evaluate(opened, labelled, names, data=os.fspath(data), limit=limit, progress=progress)
    return with_detection_evaluate(result, opened, Path(data)) if "caffe" in names and limit is None else result
