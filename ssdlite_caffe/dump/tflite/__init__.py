"""A TensorFlow Lite file as a DumpedModel: `file` reads it, `lower` writes it as a graph, `read` takes that apart."""
