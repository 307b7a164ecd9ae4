"""The same nets as Keras models: from checkpoint to Keras, frozen graph and TFLite, and running them."""
