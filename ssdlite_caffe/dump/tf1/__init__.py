"""The files of TensorFlow 1: frozen graph, checkpoint, SavedModel."""
