"""A TensorFlow graph: its nodes, the functions it calls, and the parts that are computed without TensorFlow."""
