"""SSD's loss. Imports TensorFlow: import it after `import_keras`.

    loss = localisation weight * sum of localisation / (n * codesize)
         + classification weight * sum of classification / n

over all default boxes of all images. n is the number of default boxes matched to an object, at least 1, and codesize is
4, the numbers of a box encoding; each is 1 where its option is off.
Sources: Liu et al., SSD, arXiv:1512.02325, section 2.2; loss() in ssd_meta_arch.py, and core/losses.py, of the
TensorFlow OD API; its sample configurations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from ssdlite_caffe.errors import TrainingError
from ssdlite_caffe.gen_model.arch import ArchSpec, ScoreConverter

Kind = Literal["focal", "hard-negatives"]
DELTA = 1.0
CODE_SIZE = 4
"""Numbers of a box encoding."""


@dataclass(frozen=True)
class LossOptions:
    """Which loss.

    Attributes:
        kind: focal: the focal loss of sigmoid scores over all boxes, as in the zoo's V3 configurations;
            hard-negatives: the cross entropy of sigmoid or softmax scores over objects and the hardest background;
            None: by the score converter, see `suited`.
        alpha: of the focal loss; 0.75 in the zoo's V3 configurations (0.25 in the paper's).
        gamma: of the focal loss.
        negatives: background boxes for each matched one, in each image: the OD API's max_negatives_per_positive.
        least_negatives: lowest number of background boxes in each image, its min_negatives_per_image; None: the zoo's
            of the family, see `suited`.
        localisation: weight of the localisation loss.
        classification: weight of the classification loss.
        by_matches: its normalize_loss_by_num_matches: divide both losses by the number of matched boxes.
        by_codesize: its normalize_loc_loss_by_codesize: divide the localisation loss by 4, so that it is the mean over
            a box encoding and not the sum; None: the zoo's of the family, see `suited`.
    """

    kind: Kind | None = None
    alpha: float = 0.75
    gamma: float = 2.0
    negatives: float = 3.0
    least_negatives: int | None = None
    localisation: float = 1.0
    classification: float = 1.0
    by_matches: bool = True
    by_codesize: bool | None = None


def suited(options: LossOptions, arch: ArchSpec) -> LossOptions:
    """The options for a net, with a value for each that is None.

    The kind is focal for sigmoid scores and hard-negatives for softmax scores. The others are those of the family's
    configuration in the zoo (for V1 and V2 the first one, with hard negatives): V3's divide the localisation loss by
    the code size, V1's have no least number of background boxes in an image, V2's three.

    Raises:
        TrainingError: the focal loss of softmax scores is asked for.
    """
    if options.kind == "focal" and arch.score_converter == "softmax":
        raise TrainingError("the focal loss needs sigmoid scores, and this net has softmax scores; take hard-negatives")
    by_codesize, least = options.by_codesize, options.least_negatives
    if by_codesize is None:
        by_codesize = arch.family.startswith("v3")
    if least is None:
        least = 0 if arch.family == "v1" else 3
    kind = options.kind or ("focal" if arch.score_converter == "sigmoid" else "hard-negatives")
    return replace(options, kind=kind, least_negatives=least, by_codesize=by_codesize)


def described(options: LossOptions) -> str:
    """A line on the loss of a training; `options` as `suited` gives them."""
    if options.kind == "focal":
        kind = f"the focal loss of the classes (alpha {options.alpha:g}, gamma {options.gamma:g})"
    else:
        kind = (
            f"the cross entropy of the classes ({options.negatives:g} background boxes for each matched one, at least "
            f"{options.least_negatives} in an image)"
        )
    by = "the number of matched boxes" if options.by_matches else ""
    if not options.by_codesize:
        return f"{kind} and smooth L1 of the boxes, {f'both divided by {by}' if by else 'not divided by anything'}"
    both = f"both divided by {by}, that of the boxes also by {CODE_SIZE}"
    return f"{kind} and smooth L1 of the boxes, {both if by else f'that of the boxes divided by {CODE_SIZE}'}"


def divisors(matches: Any, options: LossOptions) -> tuple[Any, Any]:
    """What the sums of localisation and of classification over a batch are divided by.

    Args:
        matches: scalar, number of default boxes of the whole batch that are matched to objects.
        options: as `suited` gives them.
    """
    by = tf.maximum(tf.cast(matches, tf.float32), 1.0) if options.by_matches else tf.constant(1.0)
    return by * float(CODE_SIZE) if options.by_codesize else by, by


class Sums(NamedTuple):
    """Sums over a batch, not yet divided by anything.

    Attributes:
        localisation: (B,), by image.
        classification: (B,), by image.
        matches: scalar, number of default boxes matched to objects.
    """

    localisation: Any
    classification: Any
    matches: Any


def huber(error: Any, delta: float = DELTA) -> Any:
    """Smooth L1: e^2 / 2 up to `delta`, delta * |e| - delta^2 / 2 beyond.

    Source: WeightedSmoothL1LocalizationLoss of the TensorFlow OD API.
    """
    size = tf.abs(error)
    return tf.where(size <= delta, 0.5 * size * size, delta * size - 0.5 * delta * delta)


def focal(logits: Any, wanted: Any, alpha: float, gamma: float) -> Any:
    """Focal loss of sigmoid scores p, each on its own: -a (1 - q)^gamma ln(q).

    q is p and a is alpha where the target is 1; 1 - p and 1 - alpha where it is 0.

    Source: Lin et al., Focal Loss, arXiv:1708.02002, equation 5; SigmoidFocalClassificationLoss of the OD API.
    """
    score = tf.sigmoid(logits)
    missed = wanted * (1.0 - score) + (1.0 - wanted) * score
    weight = wanted * alpha + (1.0 - wanted) * (1.0 - alpha)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits)
    return weight * tf.pow(missed, gamma) * entropy


def hardest(losses: Any, candidates: Any, counts: Any) -> Any:
    """The candidates of each image with the largest losses.

    Args:
        losses: (B, N), not negative.
        candidates: bool (B, N).
        counts: int32 (B,), how many; where there are fewer candidates, all.

    Returns:
        bool (B, N).

    Source: SSD, section 2.2, "Hard negative mining". The OD API's miner also drops boxes that overlap a harder one by
    0.99, which hardly any do.
    """
    ranked = tf.argsort(tf.where(candidates, losses, -1.0), -1, "DESCENDING", stable=True)
    ranks = tf.argsort(ranked, -1, stable=True)
    return candidates & (ranks < counts[:, None])


def ssd_sums(
    encodings: Any, logits: Any, targets: tuple[Any, Any, Any], options: LossOptions, converter: ScoreConverter
) -> Sums:
    """The loss of a batch, before it is divided.

    Background is class 0. Its target in the focal loss is always 0, as with the OD API's encode_background_as_zeros;
    with hard negatives it is 1 for background boxes.

    Args:
        encodings: box encodings (B, N, 4).
        logits: (B, N, C).
        targets: box encodings (B, N, 4), labels (B, N) and weights (B, N); see `targets.Targets`.
        options: as `suited` gives them.
        converter: score converter of the net.
    """
    wanted, labels, weights = targets
    encodings, logits = tf.cast(encodings, tf.float32), tf.cast(logits, tf.float32)
    objects = labels > 0
    mask = tf.cast(objects, tf.float32)
    localisation = tf.reduce_sum(huber(encodings - wanted), -1) * mask
    one_hot = tf.one_hot(labels, tf.shape(logits)[-1])
    if options.kind == "focal":
        one_hot *= tf.one_hot(0, tf.shape(logits)[-1], 0.0, 1.0)
        classification = tf.reduce_sum(focal(logits, one_hot, options.alpha, options.gamma), -1) * weights
    else:
        if converter == "softmax":
            entropy = tf.nn.softmax_cross_entropy_with_logits(labels=one_hot, logits=logits)
        else:
            entropy = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=one_hot, logits=logits), -1)
        most = tf.minimum(tf.reduce_sum(mask, 1) * options.negatives, tf.cast(tf.shape(labels)[1], tf.float32))
        counts = tf.cast(most, tf.int32)  # more boxes than there are may be more than an int32 holds
        counts = tf.maximum(counts, options.least_negatives)
        negatives = hardest(entropy, ~objects & (weights > 0.0), counts)
        classification = tf.where(objects | negatives, entropy, 0.0)
    return Sums(
        options.localisation * tf.reduce_sum(localisation, 1),
        options.classification * tf.reduce_sum(classification, 1),
        tf.reduce_sum(mask),
    )


def kernel_decay(model: Any, weight: float) -> Any:
    """L2 regularisation: weight * sum of squares / 2, of the kernels of full and pointwise convolutions.

    Depthwise kernels, BatchNorm and biases are not regularised, as in slim's MobileNets by default.
    """
    import keras

    kernels = [layer.kernel for layer in model.layers if type(layer) is keras.layers.Conv2D]
    return weight * tf.add_n([tf.nn.l2_loss(tf.cast(kernel, tf.float32)) for kernel in kernels])
