"""Filling a Caffe net with a TensorFlow model's weights."""
