"""NetDesc + Dialect + Stage -> sections of Caffe layers, which the templates print."""

from __future__ import annotations

from dataclasses import replace

from ssdlite_caffe.errors import ArchError
from ssdlite_caffe.gen_model.compat import project_of
from ssdlite_caffe.gen_model.default_boxes import refuse_irregular_boxes
from ssdlite_caffe.gen_model.dialect import DataPaths, Dialect, Stage
from ssdlite_caffe.gen_model.families import family
from ssdlite_caffe.gen_model.layers import (
    Accuracy,
    AnnotatedData,
    Concat,
    Data,
    DetectionEvaluate,
    DetectionOutput,
    Dropout,
    Flatten,
    LayerDesc,
    LayerSection,
    LoweredNet,
    MultiBoxLoss,
    Permute,
    Pixels,
    PriorBox,
    Reshape,
    Sigmoid,
    Softmax,
    SoftmaxWithLoss,
)
from ssdlite_caffe.gen_model.lower_body import BodyLowerer
from ssdlite_caffe.gen_model.lower_clip import CLIPPED, clipped_boxes
from ssdlite_caffe.gen_model.moved_maps import moves
from ssdlite_caffe.gen_model.netdesc import ConvDesc, FeatureMapDesc, NetDesc, NodeDesc, Section
from ssdlite_caffe.gen_model.rewrites import rewritten

_LARGEST_INT = 2**31 - 1
_DEFAULT_LMDB = {"train": "trainval_lmdb", "test": "test_lmdb"}
_DEFAULT_BATCH = {"train": 24, "test": 8}


def lower(net: NetDesc, dialect: Dialect, stage: Stage, data: DataPaths) -> LoweredNet:
    """Write a net's nodes as Caffe layers, with the data, loss and output layers of a stage around them.

    Raises:
        ArchError: the dialect cannot write a padding or the default boxes, or the stage's data layer cannot make such
            an input.
    """
    project = project_of(net.arch)
    fed = stage in ("train", "test")
    if net.arch.irregular_boxes and dialect.priors != "constant":
        if dialect.priors == "layer":
            refuse_irregular_boxes(net.arch, "Caffe's PriorBox puts the same boxes on the centre of each cell")
        dialect = replace(dialect, priors="constant") if fed else dialect
    if dialect.padding == "shift" and fed:  # the rows in front must not count in BatchNorm's means
        dialect = replace(dialect, padding="slice")
    body = BodyLowerer(
        dialect,
        net.arch.batch_norm_epsilon,
        net.arch.gate_scale,
        stage == "train",
        stage in ("deploy", "headless"),
        project,
        moves(net) if dialect.padding == "shift" else {},
    )
    sections = [LayerSection("data", (_data(net, stage, data),))] if fed else []
    sections += [_section(net, body, section, stage) for section in net.sections]
    predictors = [_predictors(net, body, feature_map) for feature_map in net.feature_maps]
    silence = [LayerSection("rows and columns cut off by slices", tuple(body.silence()))] if body.unread else []
    if project:  # the earlier projects' V2 detectors have it here, their other nets not at all
        sections += silence if net.arch.family == "v2" and predictors else []
        sections += predictors
    else:
        sections += predictors + silence
    sections += _classifier_end(net, stage) if net.arch.classifier else _detector_end(net, dialect, stage, data)
    height, width = net.arch.input_size
    lowered = LoweredNet(net.name, tuple(sections), None if fed else (1, 3, height, width))
    return rewritten(lowered, dialect)


def _section(net: NetDesc, body: BodyLowerer, section: Section, stage: Stage) -> LayerSection:
    layers: list[LayerDesc] = []
    for node in section.nodes:
        if isinstance(node, ConvDesc) and node.role == "classifier" and stage == "train" and not net.arch.compat:
            blob = (node.bottom,)
            layers.append(Dropout(name="dropout", bottoms=blob, tops=blob, ratio=family(net.arch.family).dropout))
        layers += body.node(node)
    return LayerSection(section.title, tuple(layers), _shape(section.nodes[-1]))


def _shape(node: NodeDesc) -> str:
    if isinstance(node, ConvDesc):
        return _dims(node.num_output, node.out_size)
    size = node.in_size if not hasattr(node, "size") else node.size
    return _dims(node.channels, size)


def _dims(channels: int, size: tuple[int, int]) -> str:
    return f"{channels} x {size[0]} x {size[1]}"


def _predictors(net: NetDesc, body: BodyLowerer, feature_map: FeatureMapDesc) -> LayerSection:
    """Box predictor, class predictor and PriorBox of one feature map."""
    layers: list[LayerDesc] = []
    for convs in (feature_map.loc, feature_map.conf):
        for conv in convs:
            layers += body.conv(conv)
        name = convs[-1].top
        layers.append(Permute(name=f"{name}_perm", bottoms=(name,), tops=(f"{name}_perm",)))
        layers.append(Flatten(name=f"{name}_flat", bottoms=(f"{name}_perm",), tops=(f"{name}_flat",)))
    prior = f"{feature_map.blob}_mbox_priorbox"
    boxes = len(feature_map.tf_boxes)
    layers.append(
        PriorBox(
            name=prior,
            bottoms=(feature_map.blob, "data"),
            tops=(prior,),
            prior=feature_map.prior,
            boxes=boxes * feature_map.size[0] * feature_map.size[1],
        )
    )
    title = f"predictors on {feature_map.blob}: {boxes} boxes a cell"
    return LayerSection(title, tuple(layers), _dims(feature_map.channels, feature_map.size))


def _data(net: NetDesc, stage: Stage, data: DataPaths) -> LayerDesc:
    arch, train = net.arch, stage == "train"
    source = data.lmdb or _DEFAULT_LMDB[stage]
    batch = data.batch_size or _DEFAULT_BATCH[stage]
    pixels = Pixels(mean=arch.pixel_mean, scale=arch.pixel_scale)
    if not arch.classifier or (arch.compat and not train):
        return AnnotatedData(
            name="data",
            bottoms=(),
            tops=("data", "label"),
            phase="TRAIN" if train else "TEST",
            source=source,
            batch_size=batch,
            label_map=data.label_map,
            size=arch.input_size,
            pixels=pixels,
            augment=train,
            zoom=data.zoom,
        )
    if arch.input_size[0] != arch.input_size[1]:
        raise ArchError(
            f"input size of a classifier's {stage} net must be square (Caffe's Data layer crops squares only), got "
            f"{arch.input_size[0]}x{arch.input_size[1]}"
        )
    return Data(
        name="data",
        bottoms=(),
        tops=("data", "label"),
        phase="TRAIN" if train else "TEST",
        source=source,
        batch_size=batch,
        crop=arch.input_size[0],
        pixels=pixels,
        mirror=train,
    )


def _detector_end(net: NetDesc, dialect: Dialect, stage: Stage, data: DataPaths) -> list[LayerSection]:
    """The concatenation of all maps, and the loss or detection layers of the stage."""
    concats: list[LayerDesc] = [
        Concat(
            name=f"mbox_{part}",
            bottoms=tuple(f"{m.blob}_mbox_{part}{suffix}" for m in net.feature_maps),
            tops=(f"mbox_{part}",),
            axis=axis,
        )
        for part, suffix, axis in (("loc", "_flat", 1), ("conf", "_flat", 1), ("priorbox", "", 2))
    ]
    sections = [LayerSection(f"all {net.num_default_boxes} default boxes", tuple(concats))]
    if stage == "train":
        sections.append(LayerSection("loss", (_loss(net, data.loc_weight),)))
    elif stage != "headless":
        # The clipping layers work for one image; the test net has larger batches.
        clips = net.arch.nms.clip_first and dialect.clip == "exact" and stage == "deploy"
        if clips:
            limit = net.arch.code_limit if dialect.priors == "constant" else None
            sections.append(
                LayerSection("boxes decoded, and clipped to the image before suppression", tuple(clipped_boxes(limit)))
            )
        sections.append(LayerSection("detections", tuple(_detections(net, stage, data, clips))))
    return sections


def _loss(net: NetDesc, loc_weight: float) -> MultiBoxLoss:
    return MultiBoxLoss(
        name="mbox_loss",
        bottoms=("mbox_loc", "mbox_conf", "mbox_priorbox", "label"),
        tops=("mbox_loss",),
        phase="TRAIN",
        num_classes=net.arch.num_classes,
        conf_loss_type="LOGISTIC" if net.arch.score_converter == "sigmoid" else "SOFTMAX",
        loc_weight=loc_weight,
    )


def _detections(net: NetDesc, stage: Stage, data: DataPaths, clips: bool) -> list[LayerDesc]:
    arch, nms = net.arch, net.arch.nms
    converter = arch.score_converter
    reshaped, scored, flat = "mbox_conf_reshape", f"mbox_conf_{converter}", "mbox_conf_flatten"
    score: LayerDesc = Sigmoid(name=scored, bottoms=(reshaped,), tops=(scored,))
    if converter == "softmax":
        score = Softmax(name=scored, bottoms=(reshaped,), tops=(scored,), axis=2)
    test = stage == "test"
    layers = [
        Reshape(name=reshaped, bottoms=("mbox_conf",), tops=(reshaped,), dims=(0, -1, arch.num_classes)),
        score,
        Flatten(name=flat, bottoms=(scored,), tops=(flat,)),
        DetectionOutput(
            name="detection_out",
            bottoms=(CLIPPED if clips else "mbox_loc", flat, "mbox_priorbox"),
            tops=("detection_out",),
            corners=clips,
            phase="TEST" if test or arch.compat else "",
            num_classes=arch.num_classes,
            nms_threshold=nms.iou_threshold,
            # TensorFlow has no limit of boxes before NMS, so top_k is the number of all boxes.
            top_k=net.num_default_boxes if nms.top_k is None else nms.top_k,
            keep_top_k=_kept(net) if stage == "deploy" else nms.max_total,
            confidence_threshold=nms.score_threshold,
        ),
    ]
    if test:
        layers.append(
            DetectionEvaluate(
                name="detection_eval",
                bottoms=("detection_out", "label"),
                tops=("detection_eval",),
                phase="TEST",
                num_classes=arch.num_classes,
                name_size_file=data.name_size_file,
            )
        )
    return layers


def _kept(net: NetDesc) -> int:
    """How many detections a deploy net gives: of a letterbox all, since those in its padding are dropped afterwards.

    Not -1, with which OpenCV writes beyond its memory.
    """
    arch = net.arch
    if not arch.resizer.letterboxes:
        return arch.nms.max_total
    return min(net.num_default_boxes * (arch.num_classes - 1), _LARGEST_INT)


def _classifier_end(net: NetDesc, stage: Stage) -> list[LayerSection]:
    logits = net.convolutions[-1].top
    if stage == "headless" or (net.arch.compat and stage != "train"):
        return []
    if stage == "deploy":
        return [LayerSection("scores", (Softmax(name="prob", bottoms=(logits,), tops=("prob",), axis=1),))]
    bottoms = (logits, "label")
    if net.arch.compat:
        return [
            LayerSection(
                "accuracy and loss",
                (
                    Softmax(name="softmax", bottoms=(logits,), tops=("prob",), axis=1),
                    Accuracy(name="accuracy", bottoms=("prob", "label"), tops=("accuracy",)),
                    SoftmaxWithLoss(name="loss", bottoms=bottoms, tops=()),
                ),
            )
        ]
    loss = SoftmaxWithLoss(name="loss", bottoms=bottoms, tops=("loss",))
    accuracy = Accuracy(name="accuracy", bottoms=bottoms, tops=("accuracy",))
    return [LayerSection("loss and accuracy", (loss, accuracy))]
