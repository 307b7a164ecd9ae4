"""A TensorFlow Lite file as a DumpedModel: `file` reads it, `lower` makes it a TensorFlow graph, `read` reads that."""
