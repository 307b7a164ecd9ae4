"""The first half of the earlier scripts: TensorFlow writes the weights of a frozen graph as .npy files.

`convert_speed.py` compares `convert` with it. The second half of the scripts, which loads the .npy files into a net
with pycaffe and saves it, is not included, and neither is recognising the architecture.

    python earlier_way.py GRAPH FOLDER [--at-once]

The scripts called the session for each constant; with --at-once it is called once for all constants.
"""

from __future__ import annotations

import sys
from pathlib import Path

WEIGHTS = ("weights", "depthwise_weights", "biases", "beta", "gamma", "moving_mean", "moving_variance")


def main(graph: Path, folder: Path, *, at_once: bool) -> None:
    import numpy as np
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(graph.read_bytes())
    folder.mkdir(parents=True)
    with tf.Graph().as_default() as imported, tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(definition, name="")
        tensors = [
            operation.outputs[0]
            for operation in imported.get_operations()
            if operation.type == "Const" and operation.name.rpartition("/")[2] in WEIGHTS
        ]
        values = session.run(tensors) if at_once else map(session.run, tensors)
        for tensor, value in zip(tensors, values, strict=True):
            np.save(folder / f"{tensor.op.name.replace('/', '_')}.npy", value)
    print(f"{len(tensors)} tensors in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), at_once="--at-once" in sys.argv[3:])
