"""Whether a folder was converted from a model: by its weights."""

from __future__ import annotations

from ssdlite_caffe.dump.model import DumpedModel
from ssdlite_caffe.errors import ModelError
from ssdlite_caffe.runtimes.model_folder import ModelFolder
from ssdlite_caffe.tools.convert import tensors_sha256


def check_same(model: DumpedModel, folder: ModelFolder) -> None:
    """Check that a folder was converted from this model.

    Raises:
        ModelError: it was not, or its classes were remapped.
    """
    if "remapped_from" in folder.report:
        raise ModelError(f"{folder.path} has remapped classes; give the folder that it was remapped from")
    tensors = folder.report.get("tensors")
    if isinstance(tensors, dict) and tensors.get("sha256") == tensors_sha256(model):
        return
    origin = folder.report.get("source")
    form = origin.get("form") if isinstance(origin, dict) else None
    hint = ""
    if form != model.form and "TensorFlow Lite" in (form, model.form):
        hint = f"; it was converted from a {form}, and a .tflite file of the same model has folded and rounded weights"
    raise ModelError(
        f"{folder.path} was converted from another model: its weights differ from those of {model.source}{hint}"
    )
