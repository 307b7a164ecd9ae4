"""A training step of V3-large SSDLite 320, 90 classes: ours in Keras against torchvision's, pictures a second.

    python benchmarks/keras_speed.py [--batch 8] [--steps 10] [--threads 2]

Both take pictures that are in memory already, with the same number of objects, and do forward, loss, backward and
update with momentum, in a process each. The shortest step counts. torchvision matches boxes in the step; ours has its
targets from tf.data, so matching is timed with the step here too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time

SIDE, CLASSES, OBJECTS = 320, 91, 8


def ours(batch: int, steps: int, threads: int) -> float:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    from ssdlite_caffe.keras.runtime import import_keras

    keras, tf = import_keras()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from ssdlite_caffe.gen_model.build import build, default_arch
    from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
    from ssdlite_caffe.keras.losses import LossOptions, kernel_decay, ssd_sums
    from ssdlite_caffe.keras.model import build_model
    from ssdlite_caffe.keras.targets import assign

    arch = default_arch("v3-large", CLASSES)
    model = build_model(arch)
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    optimizer.build(model.trainable_variables)
    defaults = tf_default_boxes(build(arch))

    @tf.function
    def step(pixels: object, boxes: object, labels: object) -> object:
        def targets(item: object) -> object:
            return tuple(assign(item[0], item[1], tf.zeros_like(item[1], tf.bool), defaults, arch.variances))

        types = (tf.float32, tf.int32, tf.float32)
        wanted = tf.map_fn(targets, (boxes, labels), fn_output_signature=types)
        with tf.GradientTape() as tape:
            raw = model(pixels, training=True)
            sums = ssd_sums(*raw.values(), wanted, LossOptions("hard-negatives"), "softmax")
            loss = tf.reduce_sum(sums.localisation + sums.classification) / tf.maximum(sums.matches, 1.0)
            loss += kernel_decay(model, 4e-5)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    corner = tf.random.uniform((batch, OBJECTS, 2), 0.0, 0.7)
    data = (
        tf.random.uniform((batch, SIDE, SIDE, 3), -1.0, 1.0),
        tf.concat([corner, corner + 0.2], -1),
        tf.random.uniform((batch, OBJECTS), 1, CLASSES, tf.int32),
    )
    return shortest(lambda: float(step(*data)), steps)


def torchvisions(batch: int, steps: int, threads: int) -> float:
    import torch
    import torchvision

    torch.set_num_threads(threads)
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES
    ).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=4e-5)
    pictures = [torch.rand(3, SIDE, SIDE) for _ in range(batch)]
    corners = torch.rand(batch, OBJECTS, 2) * 0.7 * SIDE
    targets = [
        {"boxes": torch.cat([c, c + 0.2 * SIDE], 1), "labels": torch.randint(1, CLASSES, (OBJECTS,))} for c in corners
    ]

    def step() -> float:
        optimizer.zero_grad()
        loss = sum(model(pictures, targets).values())
        loss.backward()
        optimizer.step()
        return float(loss)

    return shortest(step, steps)


def shortest(step: object, steps: int) -> float:
    for _ in range(2):
        step()
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["ours", "torchvision"])
    options = parser.parse_args()
    sizes = options.batch, options.steps, options.threads
    if options.only:
        seconds = (ours if options.only == "ours" else torchvisions)(*sizes)
        print(json.dumps(seconds))
        return
    sides = ["ours", "torchvision"]
    if importlib.util.find_spec("torchvision") is None:
        print("torchvision is not installed, so there is nothing to compare with: pip install torch torchvision")
        sides = ["ours"]
    speeds = {}
    for side in sides:
        command = [sys.executable, __file__, "--only", side]
        for name in ("batch", "steps", "threads"):
            command += [f"--{name}", str(getattr(options, name))]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        speeds[side] = options.batch / float(found.stdout.splitlines()[-1])
        print(f"{side:12} {speeds[side]:7.2f} pictures a second")
    if len(speeds) == 2:
        print(f"ours / torchvision: {speeds['ours'] / speeds['torchvision']:.2f}")


if __name__ == "__main__":
    main()
