"""Drawn scenes of circles, squares and triangles: what the example model was trained on."""

from ssdlite_caffe.data.toy_scenes import ToyObject, draw_scene

__all__ = ["ToyObject", "draw_scene"]
