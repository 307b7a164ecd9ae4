"""The same nets as Keras models: import, training, export to frozen graph and TensorFlow Lite, inference."""
