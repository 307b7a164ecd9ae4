"""Drawn scenes of circles, squares and triangles: what the example model was trained on."""

from ssdlite_caffe.data.toy_scenes import Shape, draw_scene

__all__ = ["Shape", "draw_scene"]
