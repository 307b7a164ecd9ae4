"""Names of TensorFlow 2's layers, and the scopes that they are here."""

from __future__ import annotations

import pytest

from ssdlite_caffe.dump.detector.keras_scopes import keras_scope
from ssdlite_caffe.dump.tf2.variables import Part, parts_of

SSD = "StatefulPartitionedCall/StatefulPartitionedCall/ssd_mobile_net_v2_keras_feature_extractor"
FPN = "ssd_mobile_net_v2_fpn_keras_feature_extractor"
SHARED = "StatefulPartitionedCall/WeightSharedConvolutionalBoxPredictor"
BACKBONE = "FeatureExtractor/MobilenetV2"


@pytest.mark.parametrize(
    ("node", "scope"),
    [
        (f"{SSD}/model/Conv1/Conv2D", f"{BACKBONE}/Conv"),
        (f"{SSD}_1/functional_1/expanded_conv_depthwise/depthwise", f"{BACKBONE}/expanded_conv/depthwise"),
        (f"{SSD}/model/block_13_expand/Conv2D", f"{BACKBONE}/expanded_conv_13/expand"),
        (f"{SSD}/model/Conv_1/Conv2D", f"{BACKBONE}/Conv_1"),
        (
            f"{SSD}/FeatureMaps/layer_19_2_Conv2d_2_3x3_s2_256_conv/Conv2D",
            f"{BACKBONE}/layer_19_2_Conv2d_2_3x3_s2_256",
        ),
        (
            f"{SSD}/FeatureMaps/layer_19_2_Conv2d_2_3x3_s2_256_depthwise_conv/depthwise",
            f"{BACKBONE}/layer_19_2_Conv2d_2_3x3_s2_256_depthwise",
        ),
        ("BoxPredictor/ConvolutionalClassHead_4/ClassPredictor/Conv2D", "BoxPredictor_4/ClassPredictor"),
        (
            "a/BoxPredictor/ConvolutionalBoxHead_0/BoxEncodingPredictor_depthwise/depthwise",
            "BoxPredictor_0/BoxEncodingPredictor_depthwise",
        ),
        (f"{FPN}/FeatureMaps/top_down/projection_3/Conv2D", f"{BACKBONE}/fpn/projection_3"),
        (
            f"{FPN}/FeatureMaps/top_down/smoothing_2_depthwise_conv/separable_conv2d/depthwise",
            f"{BACKBONE}/fpn/smoothing_2_depthwise",
        ),
        (
            f"{FPN}/FeatureMaps/top_down/smoothing_2_depthwise_conv/separable_conv2d",
            f"{BACKBONE}/fpn/smoothing_2",
        ),
        (f"{FPN}/bottom_up_Conv2d_20_conv/Conv2D", f"{BACKBONE}/fpn/bottom_up_Conv2d_20"),
        (
            f"{SHARED}/PredictionTower/conv2d_1/separable_conv2d_3/depthwise",
            "BoxPredictor_3/PredictionTower/conv2d_1_depthwise",
        ),
        (f"{SHARED}/ClassPredictionTower/conv2d_0/Conv2D_2", "BoxPredictor_2/ClassPredictionTower/conv2d_0"),
        (
            f"{SHARED}/WeightSharedConvolutionalBoxHead/BoxPredictor/separable_conv2d_4",
            "BoxPredictor_4/BoxEncodingPredictor",
        ),
        ("FeatureExtractor/MobilenetV2/Conv/Conv2D", None),
        ("BoxPredictor_0/BoxEncodingPredictor/Conv2D", None),
        (f"{SSD}/model/Conv1_relu/Relu6", None),
    ],
)
def test_nodes(node: str, scope: str | None) -> None:
    assert keras_scope(node) == scope


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Conv1/kernel", [Part(f"{BACKBONE}/Conv", "weights", False)]),
        ("bn_Conv1/gamma", [Part(f"{BACKBONE}/Conv", "gamma")]),
        ("Conv_1_bn/moving_mean", [Part(f"{BACKBONE}/Conv_1", "moving_mean")]),
        ("block_2_depthwise/depthwise_kernel", [Part(f"{BACKBONE}/expanded_conv_2/depthwise", "weights", True)]),
        (
            f"{SSD}/FeatureMaps/layer_19_2_Conv2d_2_3x3_s2_256_depthwise_batchnorm/beta",
            [Part(f"{BACKBONE}/layer_19_2_Conv2d_2_3x3_s2_256_depthwise", "beta")],
        ),
        (
            f"{SSD}/FeatureMaps/layer_19_2_Conv2d_2_3x3_s2_256_batchnorm/beta",
            [Part(f"{BACKBONE}/layer_19_2_Conv2d_2_3x3_s2_256", "beta")],
        ),
        ("block_2_depthwise_BN/beta", [Part(f"{BACKBONE}/expanded_conv_2/depthwise", "beta")]),
        (
            f"{FPN}/FeatureMaps/top_down/smoothing_1_batchnorm/moving_variance",
            [Part(f"{BACKBONE}/fpn/smoothing_1", "moving_variance")],
        ),
        (
            "WeightSharedConvolutionalBoxPredictor/PredictionTower/conv2d_0/BatchNorm/feature_1/gamma",
            [Part("BoxPredictor_1/PredictionTower/conv2d_0", "gamma")],
        ),
        (
            "WeightSharedConvolutionalBoxPredictor/PredictionTower/conv2d_0/depthwise_kernel",
            [Part(f"BoxPredictor_{i}/PredictionTower/conv2d_0_depthwise", "weights", True) for i in (0, 1)],
        ),
        (
            "WeightSharedConvolutionalBoxPredictor/WeightSharedConvolutionalClassHead/ClassPredictor/bias",
            [Part(f"BoxPredictor_{i}/ClassPredictor", "biases") for i in (0, 1)],
        ),
        ("save_counter", []),
        ("SGD/momentum", []),
        ("dense/kernel", []),
    ],
)
def test_variables(name: str, parts: list[Part]) -> None:
    assert parts_of(name, 2) == parts
