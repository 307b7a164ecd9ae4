"""One iteration of a training, on one device or several. Imports TensorFlow and Keras: after `import_keras`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ssdlite_caffe.coco.label_map import LabelMap
from ssdlite_caffe.errors import TrainingError
from ssdlite_caffe.gen_model.arch import ArchSpec
from ssdlite_caffe.gen_model.build import build
from ssdlite_caffe.gen_model.default_boxes import tf_default_boxes
from ssdlite_caffe.keras.augment import AugmentOptions, augment
from ssdlite_caffe.keras.feed import Feed, TrainingData, order, share
from ssdlite_caffe.keras.losses import LossOptions, divisors, kernel_decay, ssd_sums, suited
from ssdlite_caffe.keras.model import DType, KerasModel, build_model
from ssdlite_caffe.keras.run_folder import Arrays
from ssdlite_caffe.keras.targets import assign

OptimizerKind = Literal["sgd", "rmsprop", "adam"]
CLASS_BIAS = -4.6
"""First bias of class predictors under the focal loss: scores of 0.01, as in the zoo's configurations."""


@dataclass(frozen=True)
class StepOptions:
    """What an iteration does.

    Attributes:
        batch: batch size, over all devices.
        optimizer: sgd has momentum 0.9; rmsprop the zoo's rho 0.9, momentum 0.9 and epsilon 1; adam Keras' defaults.
        loss: which loss.
        augment: how images are changed.
        decay: L2 regularisation of the kernels (4e-5 in the zoo).
        ema: decay of the moving average of the weights, which the final model gets; 0: no average.
        momentum: decay of BatchNorm's moving statistics.
        freeze_batch_norm: keep BatchNorm as it is, statistics, gamma and beta.
        dtype: Keras' dtype policy.
    """

    batch: int = 32
    optimizer: OptimizerKind = "sgd"
    loss: LossOptions = field(default_factory=LossOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    decay: float = 4e-5
    ema: float = 0.999
    momentum: float = 0.97
    freeze_batch_norm: bool = False
    dtype: DType = "float32"


class Losses(NamedTuple):
    """Losses of an iteration; the total is their sum."""

    localisation: float
    classification: float
    regularisation: float

    @property
    def total(self) -> float:
        """What is minimised."""
        return sum(self)


class Trainer:
    """A model with its optimizer, and the iteration that changes both."""

    def __init__(
        self, arch: ArchSpec, labels: LabelMap, options: StepOptions, data: TrainingData, seed: int, strategy: Any
    ) -> None:
        """Build all variables.

        Raises:
            TrainingError: the batch size is not a multiple of the number of devices.
        """
        replicas = strategy.num_replicas_in_sync
        if options.batch % replicas:
            raise TrainingError(
                f"batch size must be a multiple of the {replicas} devices, got {options.batch}; change --batch-size"
            )
        options = replace(options, loss=suited(options.loss, arch))
        self.arch, self.labels, self.options, self.strategy = arch, labels, options, strategy
        self._data, self._seed = data, seed
        self._feed: Feed | None = None
        self._defaults = tf_default_boxes(build(arch)).astype(np.float32)
        keras.utils.set_random_seed(seed)
        bias = CLASS_BIAS if options.loss.kind == "focal" else 0.0
        with strategy.scope():
            self.model = build_model(arch, labels, dtype=options.dtype, momentum=options.momentum, class_bias=bias)
            if options.freeze_batch_norm:
                for layer in self.model.layers:
                    if isinstance(layer, keras.layers.BatchNormalization):
                        layer.trainable = False
            self.optimizer = _optimizer(options.optimizer)
            if options.dtype == "mixed_float16":
                self.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer)
            self.optimizer.build(self.model.trainable_variables)
            self._averages = (
                [tf.Variable(v.value, trainable=False) for v in self.model.trainable_variables] if options.ema else []
            )
        self._function = tf.function(self._distributed_step)

    def restart_averages(self) -> None:
        """Set the averages to the weights as they are."""
        for average, variable in zip(self._averages, self.model.trainable_variables, strict=False):
            average.assign(variable.value)

    def batches(self, start: int) -> Any:
        """An iterator over the batches of the iterations from `start` on."""
        batch, arch, augmenting = self.options.batch, self.arch, self.options.augment

        def prepare(item: Any, image: Any, boxes: Any, labels: Any, ignored: Any) -> Any:
            seed = tf.stack([tf.constant(self._seed, tf.int64), item])
            pixels, moved, kept = augment(image, boxes, seed, arch.input_size, arch.pixel_mean, augmenting)
            targets = assign(
                moved, tf.boolean_mask(labels, kept), tf.boolean_mask(ignored, kept), self._defaults, arch.variances
            )
            return item, pixels, tuple(targets)

        def pipeline(context: Any) -> Any:
            items = order(self._seed, len(self._data), start * batch)
            mine = share(items, batch, context.input_pipeline_id, context.num_input_pipelines)
            self._feed = Feed(self._data, mine)
            signature = (
                tf.TensorSpec((), tf.int64),
                tf.TensorSpec((None, None, 3), tf.uint8),
                tf.TensorSpec((None, 4), tf.float32),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((None,), tf.bool),
            )
            images = tf.data.Dataset.from_generator(self._feed, output_signature=signature)
            prepared = images.map(prepare, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            return prepared.batch(context.get_per_replica_batch_size(batch), drop_remainder=True).prefetch(2)

        return iter(self.strategy.distribute_datasets_from_function(pipeline))

    def step(self, batches: Any, number: int, rate: float) -> Losses:
        """Train on the next batch.

        Args:
            batches: what `batches` gave.
            number: of the iteration, from 0.
            rate: learning rate.

        Raises:
            TrainingError: the loss is NaN or Inf; the images of the batch are named.
            DatasetError: an image cannot be read.
        """
        self.optimizer.learning_rate = rate
        # Rises to its value, so that the first weights are soon forgotten: TensorFlow 1's num_updates.
        ema = min(self.options.ema, (1.0 + number) / (10.0 + number))
        try:
            totals, items, by_image = self._function(next(batches), tf.constant(ema, tf.float32))
        except (tf.errors.OpError, StopIteration) as error:
            if self._feed is not None and self._feed.error is not None:
                raise self._feed.error from error
            raise
        losses = Losses(*(float(v) for v in totals))
        if not np.isfinite(losses.total):
            raise TrainingError(self._not_finite(number, losses, items, by_image))
        return losses

    def _distributed_step(self, batch: Any, ema: Any) -> Any:
        totals, items, by_image = self.strategy.run(self._replica_step, (batch,))
        totals = [self.strategy.reduce(tf.distribute.ReduceOp.SUM, total, None) for total in totals]
        for average, variable in zip(self._averages, self.model.trainable_variables, strict=False):
            average.assign(average * ema + tf.cast(variable.value, tf.float32) * (1.0 - ema))
        return totals, items, by_image

    def _replica_step(self, batch: Any) -> Any:
        items, pixels, targets = batch
        replicas = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            data = pixels * self.arch.pixel_scale - self.arch.pixel_mean * self.arch.pixel_scale
            raw = self.model(data, training=True)
            sums = ssd_sums(
                raw["box_encodings"], raw["class_predictions_with_background"], targets, self.options.loss,
                self.arch.score_converter,
            )  # fmt: skip
            matches = replicas.all_reduce(tf.distribute.ReduceOp.SUM, sums.matches)
            by_place, by_class = divisors(matches, self.options.loss)
            parts = [
                tf.reduce_sum(sums.localisation) / by_place,
                tf.reduce_sum(sums.classification) / by_class,
                kernel_decay(self.model, self.options.decay) / self.strategy.num_replicas_in_sync,
            ]
            loss = self.optimizer.scale_loss(tf.add_n(parts))
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return parts, items, sums.localisation + sums.classification

    def _not_finite(self, number: int, losses: Losses, items: Any, by_image: Any) -> str:
        local = self.strategy.experimental_local_results
        places = np.concatenate([np.asarray(part) for part in local(items)])
        values = np.concatenate([np.asarray(part) for part in local(by_image)])
        chosen = [int(next(order(self._seed, len(self._data), int(place)))[1]) for place in places]
        names = [self._data.names[image] for image in chosen]
        bad = [name for name, value in zip(names, values, strict=True) if not np.isfinite(value)]
        culprits = f"; it is NaN or Inf for {', '.join(bad)}" if 0 < len(bad) < len(names) else ""
        return (
            f"the loss of iteration {number} is NaN or Inf (localisation {losses.localisation:g}, classification "
            f"{losses.classification:g}, regularisation {losses.regularisation:g}); its batch: {', '.join(names)}"
            f"{culprits}; lower --learning-rate, or check these images and their boxes"
        )

    def state(self) -> Arrays:
        """All that an iteration changes, by name."""
        return {name: np.asarray(tf.convert_to_tensor(variable)) for name, variable in self._variables()}

    def restore(self, arrays: Arrays) -> None:
        """Inverse of `state`: arrays of the same names, shapes and dtypes."""
        with self.strategy.scope():
            for name, variable in self._variables():
                variable.assign(arrays[name])

    def _variables(self) -> list[tuple[str, Any]]:
        named = [("model", self.model.variables), ("optimizer", self.optimizer.variables), ("ema", self._averages)]
        return [
            (f"{kind}/{i:04d}", getattr(v, "value", v) if kind != "ema" else v)
            for kind, vs in named
            for i, v in enumerate(vs)
        ]

    def detector(self) -> KerasModel:
        """The model as it is now, in float32, with the averaged weights where there are any; a copy."""
        values = [np.asarray(v) for v in self.model.weights]
        if self._averages:
            averaged = {
                v.path: np.asarray(a) for v, a in zip(self.model.trainable_variables, self._averages, strict=True)
            }
            values = [averaged.get(v.path, value) for v, value in zip(self.model.weights, values, strict=True)]
        made = build_model(self.arch, self.labels)
        made.set_weights(values)
        return KerasModel(made, self.arch, self.labels)


def _optimizer(kind: OptimizerKind) -> Any:
    if kind == "sgd":
        return keras.optimizers.SGD(0.1, momentum=0.9)
    if kind == "rmsprop":
        return keras.optimizers.RMSprop(0.1, rho=0.9, momentum=0.9, epsilon=1.0)
    return keras.optimizers.Adam(0.1)
