"""The group `ssdlite-caffe keras`."""

from __future__ import annotations

from ssdlite_caffe.commands.app import add, group
from ssdlite_caffe.commands.keras_export import export_pb, export_tflite
from ssdlite_caffe.commands.keras_import import import_
from ssdlite_caffe.commands.keras_infer import infer
from ssdlite_caffe.commands.keras_test import run_test
from ssdlite_caffe.commands.keras_train import train

app = group("The same nets as Keras models: import, export, train, run.")
export = group("Write a Keras model as a frozen graph or for TensorFlow Lite.")
add(export, "pb", export_pb)
add(export, "tflite", export_tflite)
add(app, "import", import_)
add(app, "train", train)
add(app, "test", run_test)
add(app, "infer", infer)
app.add_typer(export, name="export")
