// DetectionOutput and MultiBoxLoss against the functions of bbox_util.hpp, which the fork uses, over random boxes and
// settings.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/layers/detection_output_layer.hpp"
#include "caffe/layers/multibox_loss_layer.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/util/bbox_util.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace caffe {

namespace {

LayerParameter Parse(const std::string& text) {
  LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(text, &param)) << text;
  return param;
}

class RandomBoxes {
 public:
  double Uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(random_); }
  int Among(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  /// Prior boxes over the image, some past its edges, and variances: 1 x 2 x 4P x 1.
  template <typename Dtype>
  void FillPriors(int priors, Blob<Dtype>* blob) {
    blob->Reshape(1, 2, priors * 4, 1);
    Dtype* to = blob->mutable_cpu_data();
    for (int i = 0; i < priors; ++i, to += 4) {
      const double x = Uniform(-0.1, 0.8), y = Uniform(-0.1, 0.8);
      const double box[] = {x, y, x + Uniform(0.05, 0.4), y + Uniform(0.05, 0.4)};
      std::copy(box, box + 4, to);
    }
    for (int i = 0; i < priors * 4; ++i) { to[i] = i % 4 < 2 ? 0.1 : 0.2; }
  }

  template <typename Dtype>
  void FillUniform(double low, double high, Blob<Dtype>* blob) {
    for (int i = 0; i < blob->count(); ++i) { blob->mutable_cpu_data()[i] = Uniform(low, high); }
  }

 private:
  std::mt19937 random_{7};
};

/// The detections by bbox_util: rows of 7.
template <typename Dtype>
std::vector<double> Detections(const DetectionOutputParameter& param, const vector<Blob<Dtype>*>& bottom) {
  const int num = bottom[0]->num(), priors = bottom[2]->height() / 4, classes = param.num_classes();
  const bool shared = param.share_location();
  const int loc_classes = shared ? 1 : classes;
  vector<LabelBBox> locs, decoded;
  vector<map<int, vector<float>>> scores;
  vector<NormalizedBBox> boxes;
  vector<vector<float>> variances;
  GetLocPredictions(bottom[0]->cpu_data(), num, priors, loc_classes, shared, &locs);
  GetConfidenceScores(bottom[1]->cpu_data(), num, priors, classes, &scores);
  GetPriorBBoxes(bottom[2]->cpu_data(), priors, &boxes, &variances);
  DecodeBBoxesAll(locs, boxes, variances, num, shared, loc_classes, param.background_label_id(), param.code_type(),
                  param.variance_encoded_in_target(), false, &decoded);
  std::vector<double> rows;
  for (int i = 0; i < num; ++i) {
    vector<pair<float, pair<int, int>>> kept;
    for (int c = 0; c < classes; ++c) {
      if (c == param.background_label_id()) { continue; }
      vector<int> indices;
      if (param.has_nms_param()) {
        ApplyNMSFast(decoded[i][shared ? -1 : c], scores[i][c],
                     param.has_confidence_threshold() ? param.confidence_threshold() : -FLT_MAX,
                     param.nms_param().nms_threshold(), param.nms_param().eta(),
                     param.nms_param().has_top_k() ? param.nms_param().top_k() : -1, &indices);
      } else {
        for (int b = 0; b < priors; ++b) { indices.push_back(b); }
      }
      for (const int b : indices) { kept.push_back({scores[i][c][b], {c, b}}); }
    }
    if (param.keep_top_k() > -1 && kept.size() > param.keep_top_k()) {
      std::sort(kept.begin(), kept.end(), SortScorePairDescend<pair<int, int>>);
      kept.resize(param.keep_top_k());
      std::stable_sort(kept.begin(), kept.end(),
                       [](const pair<float, pair<int, int>>& a, const pair<float, pair<int, int>>& b) {
                         return a.second.first < b.second.first;
                       });
    }
    for (const auto& k : kept) {
      const NormalizedBBox& box = decoded[i][shared ? -1 : k.second.first][k.second.second];
      const double row[] = {static_cast<double>(i),
                            static_cast<double>(k.second.first),
                            k.first,
                            box.xmin(),
                            box.ymin(),
                            box.xmax(),
                            box.ymax()};
      rows.insert(rows.end(), row, row + 7);
    }
  }
  return rows;
}

}  // namespace

template <typename Dtype>
class DetectionLayersTest : public ::testing::Test {
 protected:
  DetectionLayersTest() { Caffe::set_mode(Caffe::CPU); }

  /// steps: so many different scores, so that several boxes have the same; 0: any scores.
  void CheckDetections(const std::string& text, int num, int priors, int classes, bool shared, int steps = 0) {
    SCOPED_TRACE(text);
    Blob<Dtype> loc(num, priors * (shared ? 1 : classes) * 4, 1, 1), conf(num, priors * classes, 1, 1), prior, top;
    random_.FillUniform(-1.5, 1.5, &loc);
    random_.FillUniform(0, 1, &conf);
    for (int i = 0; steps > 0 && i < conf.count(); ++i) {
      conf.mutable_cpu_data()[i] = std::floor(conf.cpu_data()[i] * steps) / steps;
    }
    random_.FillPriors(priors, &prior);
    const vector<Blob<Dtype>*> bottoms = {&loc, &conf, &prior}, tops = {&top};
    const LayerParameter param = Parse("type: 'DetectionOutput' detection_output_param { " + text + " }");
    shared_ptr<Layer<Dtype>> layer = LayerRegistry<Dtype>::CreateLayer(param);
    layer->SetUp(bottoms, tops);
    layer->Forward(bottoms, tops);
    const std::vector<double> wanted = Detections(param.detection_output_param(), bottoms);
    if (wanted.empty()) {
      ASSERT_EQ(vector<int>({1, 1, num, 7}), top.shape());
      for (int i = 0; i < top.count(); ++i) { EXPECT_EQ(i % 7 == 0 ? i / 7 : -1, top.cpu_data()[i]); }
      return;
    }
    ASSERT_EQ(vector<int>({1, 1, static_cast<int>(wanted.size()) / 7, 7}), top.shape());
    for (int i = 0; i < wanted.size(); ++i) {
      // Scores and labels are moved, corners are computed: measured 1.2e-7.
      ASSERT_NEAR(wanted[i], top.cpu_data()[i], i % 7 < 3 ? 0 : 1e-6) << "row " << i / 7 << " value " << i % 7;
    }
  }

  /// MAX_NEGATIVE with nms_threshold 0 asks for the same as without nms_param, but goes through bbox_util.
  void CheckLoss(const std::string& text, int num, int priors, int classes, int objects) {
    SCOPED_TRACE(text);
    Blob<Dtype> loc(num, priors * 4, 1, 1), conf(num, priors * classes, 1, 1), prior, label(1, 1, objects, 8), top;
    random_.FillUniform(-2, 2, &loc);
    random_.FillUniform(-4, 4, &conf);
    random_.FillPriors(priors, &prior);
    for (int i = 0; i < objects; ++i) {
      const double x = random_.Uniform(0, 0.7), y = random_.Uniform(0, 0.7);
      // The last image has no objects.
      const double row[] = {static_cast<double>(random_.Among(0, std::max(0, num - 2))),
                            static_cast<double>(random_.Among(1, classes - 1)),
                            0,
                            x,
                            y,
                            x + random_.Uniform(0.05, 0.3),
                            y + random_.Uniform(0.05, 0.3),
                            static_cast<double>(random_.Among(0, 4) == 0)};
      std::copy(row, row + 8, label.mutable_cpu_data() + i * 8);
    }
    const vector<Blob<Dtype>*> bottoms = {&loc, &conf, &prior, &label}, tops = {&top};
    std::vector<Dtype> results[2];
    for (int way = 0; way < 2; ++way) {
      std::ostringstream param;
      param << "type: 'MultiBoxLoss' loss_param { normalization: VALID } multibox_loss_param { num_classes: " << classes
            << " " << text << (way == 1 ? " nms_param { nms_threshold: 0 }" : "") << " }";
      shared_ptr<Layer<Dtype>> layer = LayerRegistry<Dtype>::CreateLayer(Parse(param.str()));
      layer->SetUp(bottoms, tops);
      layer->Forward(bottoms, tops);
      top.mutable_cpu_diff()[0] = 3;
      caffe_set(loc.count(), Dtype(NAN), loc.mutable_cpu_diff());
      caffe_set(conf.count(), Dtype(NAN), conf.mutable_cpu_diff());
      layer->Backward(tops, {true, true, false, false}, bottoms);
      results[way].push_back(top.cpu_data()[0]);
      results[way].insert(results[way].end(), loc.cpu_diff(), loc.cpu_diff() + loc.count());
      results[way].insert(results[way].end(), conf.cpu_diff(), conf.cpu_diff() + conf.count());
    }
    EXPECT_GT(results[0][0], 0);
    for (int i = 0; i < results[0].size(); ++i) {
      ASSERT_NEAR(results[1][i], results[0][i], 1e-6 * std::max(Dtype(1), std::fabs(results[1][i]))) << "value " << i;
    }
  }

  RandomBoxes random_;
};

typedef ::testing::Types<float, double> Numbers;
TYPED_TEST_CASE(DetectionLayersTest, Numbers);

TYPED_TEST(DetectionLayersTest, DetectionOutputEqualsTheForks) {
  const std::string codes[] = {"CENTER_SIZE", "CORNER", "CORNER_SIZE"};
  const std::string limits[] = {"", "confidence_threshold: 0.01 ", "confidence_threshold: 0.7 ",
                                "confidence_threshold: 0.999 ", "confidence_threshold: 1.5 "};
  const std::string suppressions[] = {"nms_param { nms_threshold: 0.45 top_k: 40 }", "nms_param { nms_threshold: 0.6 }",
                                      "nms_param { nms_threshold: 0.9 top_k: 400 eta: 0.9 }", ""};
  for (int i = 0; i < 60; ++i) {
    const bool shared = this->random_.Among(0, 2) > 0;
    const int classes = this->random_.Among(2, 40);
    std::ostringstream text;
    text << "num_classes: " << classes << " share_location: "
         << (shared ? "true" : "false")
         // The fork takes -1 for a location class of its own, and decodes none when locations are shared.
         << " background_label_id: " << (i % 7 == 0 && !shared ? -1 : i % 2)
         << " keep_top_k: " << (i % 4 == 0 ? -1 : this->random_.Among(1, 60)) << " code_type: " << codes[i % 3]
         << " variance_encoded_in_target: " << (i % 5 == 0 ? "true " : "false ") << limits[this->random_.Among(0, 4)]
         << suppressions[this->random_.Among(0, 3)];
    this->CheckDetections(text.str(), this->random_.Among(1, 3), this->random_.Among(1, 120), classes, shared);
  }
}

TYPED_TEST(DetectionLayersTest, ManyMoreBoxesThanTopK) {
  // Two threads' parts of the boxes, and classes that are cut to their best again and again.
  const std::string text =
      "num_classes: 19 share_location: true background_label_id: 0 keep_top_k: -1 code_type: CENTER_SIZE "
      "confidence_threshold: 0.001 nms_param { nms_threshold: 0.6 top_k: ";
  for (const char* top_k : {"7 }", "100 }"}) {
    for (const int steps : {0, 50, 700}) { this->CheckDetections(text + top_k, 2, 8500, 19, true, steps); }
  }
}

TYPED_TEST(DetectionLayersTest, MultiBoxLossEqualsTheForks) {
  const std::string mining[] = {"mining_type: MAX_NEGATIVE neg_pos_ratio: 3 neg_overlap: 0.5",
                                "mining_type: MAX_NEGATIVE neg_pos_ratio: 1.5 neg_overlap: 0.3", "mining_type: NONE"};
  for (int i = 0; i < 60; ++i) {
    std::ostringstream text;
    text << "share_location: true use_prior_for_matching: true background_label_id: 0 "
         << "match_type: " << (i % 4 == 0 ? "BIPARTITE" : "PER_PREDICTION") << " overlap_threshold: 0.4 "
         << "loc_loss_type: " << (i % 3 == 0 ? "L2" : "SMOOTH_L1")
         << " conf_loss_type: " << (i % 2 == 0 ? "LOGISTIC" : "SOFTMAX")
         << " use_difficult_gt: " << (i % 5 == 0 ? "false" : "true")
         << " bp_inside: " << (i % 6 == 0 ? "true" : "false")
         << " ignore_cross_boundary_bbox: " << (i % 5 == 1 ? "true" : "false")
         << " encode_variance_in_target: " << (i % 7 == 0 ? "true " : "false ")
         << mining[i % 2 == 0 ? this->random_.Among(0, 1) : this->random_.Among(0, 2)];
    this->CheckLoss(text.str(), this->random_.Among(1, 4), this->random_.Among(20, 200), this->random_.Among(2, 30),
                    this->random_.Among(1, 12));
  }
}

/// Two images with 40 boxes and random predictions, and two objects.
template <typename Dtype, typename Random>
struct SmallLoss {
  explicit SmallLoss(Random* random) : loc(2, 40 * 4, 1, 1), conf(2, 40 * 3, 1, 1), label(1, 1, 2, 8) {
    random->FillUniform(-1, 1, &loc);
    random->FillUniform(-1, 1, &conf);
    random->FillPriors(40, &prior);
  }

  shared_ptr<Layer<Dtype>> Make(const std::string& more) {
    shared_ptr<Layer<Dtype>> layer = LayerRegistry<Dtype>::CreateLayer(
        Parse("type: 'MultiBoxLoss' multibox_loss_param { num_classes: 3 mining_type: MAX_NEGATIVE " + more + " }"));
    layer->SetUp(bottoms, tops);
    return layer;
  }

  void Forward(Layer<Dtype>* layer, const Dtype (&objects)[16]) {
    std::copy(objects, objects + 16, label.mutable_cpu_data());
    layer->Forward(bottoms, tops);
  }

  Blob<Dtype> loc, conf, prior, label, top;
  const vector<Blob<Dtype>*> bottoms = {&loc, &conf, &prior, &label}, tops = {&top};
  const Dtype first[16] = {0, 1, 0, 0.1, 0.1, 0.4, 0.4, 0, 1, 2, 0, 0.5, 0.5, 0.8, 0.9, 0};
  const Dtype second[16] = {0, 2, 0, 0.5, 0.2, 0.9, 0.6, 0, 0, 1, 0, 0.1, 0.5, 0.3, 0.9, 0};
};

TYPED_TEST(DetectionLayersTest, LossForgetsThePassBefore) {
  // Two passes forward without one back, as in testing: the second must not see the first one's matches.
  typedef TypeParam Dtype;
  SmallLoss<Dtype, decltype(this->random_)> loss(&this->random_);
  for (const char* nms : {"", "nms_param { nms_threshold: 0 }"}) {
    Dtype losses[2];
    for (int passes = 1; passes <= 2; ++passes) {
      const shared_ptr<Layer<Dtype>> layer = loss.Make(nms);
      if (passes == 2) { loss.Forward(layer.get(), loss.first); }
      loss.Forward(layer.get(), loss.second);
      losses[passes - 1] = loss.top.cpu_data()[0];
    }
    EXPECT_EQ(losses[0], losses[1]);
  }
}

TYPED_TEST(DetectionLayersTest, LossGradientTwice) {
  // Backward of one pass may be asked for again.
  typedef TypeParam Dtype;
  SmallLoss<Dtype, decltype(this->random_)> loss(&this->random_);
  const shared_ptr<Layer<Dtype>> layer = loss.Make("");
  loss.Forward(layer.get(), loss.first);
  loss.top.mutable_cpu_diff()[0] = 1;
  vector<Dtype> gradients[2];
  for (vector<Dtype>& found : gradients) {
    layer->Backward(loss.tops, {true, true, false, false}, loss.bottoms);
    found.assign(loss.conf.cpu_diff(), loss.conf.cpu_diff() + loss.conf.count());
    found.insert(found.end(), loss.loc.cpu_diff(), loss.loc.cpu_diff() + loss.loc.count());
    EXPECT_LT(0, *std::max_element(found.begin(), found.end()));
  }
  EXPECT_EQ(gradients[0], gradients[1]);
}

TYPED_TEST(DetectionLayersTest, LossGradientWithMining) {
  // The loss jumps where a mined negative and one that is not mined swap ranks, so a numeric gradient means nothing
  // there. Here the losses of any two priors lie 0.2 apart at least, which a step of 0.01 does not bridge.
  typedef TypeParam Dtype;
  const int priors = 12, classes = 3;
  Blob<Dtype> loc(2, priors * 4, 1, 1), conf(2, priors * classes, 1, 1), prior(1, 2, priors * 4, 1), label(1, 1, 2, 8),
      top;
  for (int p = 0; p < priors; ++p) {  // side by side, so that each object overlaps one
    const double box[] = {p / 12., 0.25, (p + 1) / 12., 0.5};
    for (int i = 0; i < 4; ++i) {
      prior.mutable_cpu_data()[p * 4 + i] = box[i];
      prior.mutable_cpu_data()[(priors + p) * 4 + i] = i < 2 ? 0.1 : 0.2;
    }
  }
  const Dtype objects[] = {0, 1, 0, 0.16, 0.26, 0.25, 0.5, 0, 1, 2, 0, 0.59, 0.24, 0.67, 0.5, 0};  // priors 2 and 7
  std::copy(objects, objects + 16, label.mutable_cpu_data());
  this->random_.FillUniform(-0.2, 0.2, &loc);  // the smooth L1 loss bends at 1
  for (int image = 0; image < 2; ++image) {
    for (int p = 0; p < priors; ++p) {
      Dtype* scores = conf.mutable_cpu_data() + (image * priors + p) * classes;
      scores[0] = -2 + 0.3 * (p * (image == 0 ? 5 : 7) % priors);  // background: each prior another one
      scores[1] = -0.5;
      scores[2] = 0.2;
    }
  }
  const vector<Blob<Dtype>*> bottoms = {&loc, &conf, &prior, &label}, tops = {&top};
  for (const char* type : {"SOFTMAX", "LOGISTIC"}) {
    MultiBoxLossLayer<Dtype> layer(Parse(
        std::string("type: 'MultiBoxLoss' multibox_loss_param { num_classes: 3 share_location: true "
                    "use_prior_for_matching: true overlap_threshold: 0.5 mining_type: MAX_NEGATIVE neg_pos_ratio: 3 "
                    "neg_overlap: 0.5 conf_loss_type: ") +
        type + " }"));
    GradientChecker<Dtype> checker(1e-2, 1e-3);
    layer.SetUp(bottoms, tops);
    layer.Forward(bottoms, tops);
    top.mutable_cpu_diff()[0] = 1;
    layer.Backward(tops, {true, true, false, false}, bottoms);
    for (int image = 0; image < 2; ++image) {  // the object's prior and three negatives
      int with_gradient = 0;
      for (int p = 0; p < priors; ++p) { with_gradient += conf.cpu_diff()[(image * priors + p) * classes] != 0; }
      EXPECT_EQ(4, with_gradient) << type;
    }
    for (const int bottom : {0, 1}) { checker.CheckGradientSingle(&layer, bottoms, tops, bottom, 0, 0); }
  }
}

}  // namespace caffe
