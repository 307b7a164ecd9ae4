"""The files of TensorFlow 2: SavedModel and object-based checkpoint, read without TensorFlow."""
