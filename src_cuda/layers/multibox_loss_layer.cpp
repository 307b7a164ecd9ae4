#include "caffe/layers/multibox_loss_layer.hpp"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/util/box_matching.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel.hpp"

// MultiBoxLoss: the class is the fork's, and the results are the same. What SSD nets ask for (one location a prior box,
// matching by prior boxes, negatives mined by their confidence loss without suppression, or no mining) is computed on
// plain numbers here, one image a thread; every other setting goes through the functions of bbox_util.hpp.
//
// Source: Liu et al., SSD (2016), section 2.2: matching, loss, hard negative mining.
namespace caffe {

namespace {

PlainBox PlainOf(const NormalizedBBox& box) {
  const float values[] = {box.xmin(), box.ymin(), box.xmax(), box.ymax()};
  return caffe::PlainOf(values);
}

NormalizedBBox MessageOf(const PlainBox& box) {
  NormalizedBBox made;
  made.set_xmin(box.xmin);
  made.set_ymin(box.ymin);
  made.set_xmax(box.xmax);
  made.set_ymax(box.ymax);
  made.set_size(box.size);
  return made;
}

/// Whether the settings are those that this file computes on plain numbers.
bool Plain(const MultiBoxLossParameter& param) {
  return param.share_location() && param.use_prior_for_matching() && !param.has_nms_param() &&
         param.mining_type() != MultiBoxLossParameter_MiningType_HARD_EXAMPLE;
}

}  // namespace

template <typename Dtype>
void MultiBoxLossLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::LayerSetUp(bottom, top);
  const string layer = "MultiBoxLoss layer " + this->layer_param_.name();
  if (this->layer_param_.propagate_down_size() == 0) {
    for (const bool down : {true, true, false, false}) { this->layer_param_.add_propagate_down(down); }
  }
  const MultiBoxLossParameter& param = this->layer_param_.multibox_loss_param();
  multibox_loss_param_ = param;
  CHECK(param.has_num_classes()) << layer << ": num_classes is missing.";
  num_classes_ = param.num_classes();
  CHECK_GE(num_classes_, 1) << layer << ": num_classes is " << num_classes_ << ", must be 1 or more.";
  share_location_ = param.share_location();
  loc_classes_ = share_location_ ? 1 : num_classes_;
  background_label_id_ = param.background_label_id();
  use_difficult_gt_ = param.use_difficult_gt();
  mining_type_ = param.mining_type();
  do_neg_mining_ = mining_type_ != MultiBoxLossParameter_MiningType_NONE;
  CHECK(!param.has_do_neg_mining() || param.do_neg_mining() == do_neg_mining_)
      << layer << ": do_neg_mining is " << param.do_neg_mining() << ", which contradicts mining_type.";
  CHECK(!do_neg_mining_ || share_location_) << layer << ": mining_type must be NONE unless share_location is true.";
  const LossParameter& loss_param = this->layer_param_.loss_param();
  if (!loss_param.has_normalization() && loss_param.has_normalize()) {
    normalization_ =
        loss_param.normalize() ? LossParameter_NormalizationMode_VALID : LossParameter_NormalizationMode_BATCH_SIZE;
  } else {
    normalization_ = loss_param.normalization();
  }

  // The two losses are inner layers; Forward gives them their real shapes.
  const vector<int> one(1, 1);
  loc_weight_ = param.loc_weight();
  loc_loss_type_ = param.loc_loss_type();
  loc_pred_.Reshape({1, 4});
  loc_gt_.Reshape({1, 4});
  loc_loss_.Reshape(one);
  loc_bottom_vec_ = {&loc_pred_, &loc_gt_};
  loc_top_vec_ = {&loc_loss_};
  LayerParameter loc_param;
  loc_param.add_loss_weight(loc_weight_);
  switch (loc_loss_type_) {
    case MultiBoxLossParameter_LocLossType_L2:
      loc_param.set_name(this->layer_param_.name() + "_l2_loc");
      loc_param.set_type("EuclideanLoss");
      break;
    case MultiBoxLossParameter_LocLossType_SMOOTH_L1:
      loc_param.set_name(this->layer_param_.name() + "_smooth_L1_loc");
      loc_param.set_type("SmoothL1Loss");
      break;
    default: LOG(FATAL) << layer << ": unknown loc_loss_type " << loc_loss_type_ << ".";
  }
  loc_loss_layer_ = LayerRegistry<Dtype>::CreateLayer(loc_param);
  loc_loss_layer_->SetUp(loc_bottom_vec_, loc_top_vec_);

  conf_loss_type_ = param.conf_loss_type();
  conf_bottom_vec_ = {&conf_pred_, &conf_gt_};
  conf_loss_.Reshape(one);
  conf_top_vec_ = {&conf_loss_};
  LayerParameter conf_param;
  conf_param.add_loss_weight(1);
  conf_pred_.Reshape({1, num_classes_});
  switch (conf_loss_type_) {
    case MultiBoxLossParameter_ConfLossType_SOFTMAX:
      CHECK(background_label_id_ >= 0 && background_label_id_ < num_classes_)
          << layer << ": background_label_id is " << background_label_id_ << ", must be from 0 to " << num_classes_ - 1
          << " for SOFTMAX.";
      conf_param.set_name(this->layer_param_.name() + "_softmax_conf");
      conf_param.set_type("SoftmaxWithLoss");
      conf_param.mutable_loss_param()->set_normalization(LossParameter_NormalizationMode_NONE);
      conf_param.mutable_softmax_param()->set_axis(1);
      conf_gt_.Reshape(one);
      break;
    case MultiBoxLossParameter_ConfLossType_LOGISTIC:
      conf_param.set_name(this->layer_param_.name() + "_logistic_conf");
      conf_param.set_type("SigmoidCrossEntropyLoss");
      conf_gt_.Reshape({1, num_classes_});
      break;
    default: LOG(FATAL) << layer << ": unknown conf_loss_type " << conf_loss_type_ << ".";
  }
  conf_loss_layer_ = LayerRegistry<Dtype>::CreateLayer(conf_param);
  conf_loss_layer_->SetUp(conf_bottom_vec_, conf_top_vec_);
}

template <typename Dtype>
void MultiBoxLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::Reshape(bottom, top);
  const string layer = "MultiBoxLoss layer " + this->layer_param_.name();
  num_ = bottom[0]->num();
  num_priors_ = bottom[2]->height() / 4;
  num_gt_ = bottom[3]->height();
  CHECK_EQ(bottom[0]->num(), bottom[1]->num()) << layer << ": its bottoms have " << bottom[0]->num() << " and "
                                               << bottom[1]->num() << " images, must have the same number.";
  CHECK_EQ(num_priors_ * loc_classes_ * 4, bottom[0]->channels())
      << layer << ": bottom 0 has " << bottom[0]->channels() << " location values an image, must have 4 for each of "
      << num_priors_ << " prior boxes and " << loc_classes_ << " location classes.";
  CHECK_EQ(num_priors_ * num_classes_, bottom[1]->channels())
      << layer << ": bottom 1 has " << bottom[1]->channels() << " confidences an image, must have one for each of "
      << num_priors_ << " prior boxes and " << num_classes_ << " classes.";
}

template <typename Dtype>
void MultiBoxLossLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Dtype* loc_data = bottom[0]->cpu_data();
  const Dtype* conf_data = bottom[1]->cpu_data();
  const Dtype* prior_data = bottom[2]->cpu_data();
  const MultiBoxLossParameter& param = multibox_loss_param_;
  all_match_indices_.clear();
  all_neg_indices_.clear();
  map<int, vector<NormalizedBBox>> objects;
  GetGroundTruth(bottom[3]->cpu_data(), num_gt_, background_label_id_, use_difficult_gt_, &objects);

  num_matches_ = 0;
  int num_negatives = 0;
  vector<PlainBox> priors;
  vector<NormalizedBBox> prior_bboxes;
  vector<vector<float>> prior_variances;
  vector<LabelBBox> loc_preds;
  const bool plain = Plain(param);
  if (plain) {
    for (int i = 0; i < num_priors_; ++i) { priors.push_back(PlainOf(prior_data + i * 4)); }
    all_match_indices_.resize(num_);
    all_neg_indices_.resize(num_);
    // An image without objects has no matches and gives no negatives.
    ParallelFor(num_, 1, [&](const int begin, const int end) {
      for (int image = begin; image < end; ++image) {
        const auto found = objects.find(image);
        if (found == objects.end()) { continue; }
        vector<PlainBox> boxes;
        for (const NormalizedBBox& box : found->second) { boxes.push_back(PlainOf(box)); }
        Matching match = MatchBoxes(priors, boxes, param.match_type() == MultiBoxLossParameter_MatchType_PER_PREDICTION,
                                    param.overlap_threshold(), param.ignore_cross_boundary_bbox());
        if (do_neg_mining_) {
          all_neg_indices_[image] =
              MineNegatives(match, conf_data + static_cast<size_t>(image) * num_priors_ * num_classes_, num_classes_,
                            background_label_id_, conf_loss_type_ == MultiBoxLossParameter_ConfLossType_SOFTMAX,
                            param.neg_pos_ratio(), param.neg_overlap());
        }
        all_match_indices_[image][-1].swap(match.indices);
      }
    });
    num_matches_ = CountNumMatches(all_match_indices_, num_);
    for (const vector<int>& negatives : all_neg_indices_) { num_negatives += negatives.size(); }
  } else {
    GetPriorBBoxes(prior_data, num_priors_, &prior_bboxes, &prior_variances);
    GetLocPredictions(loc_data, num_, num_priors_, loc_classes_, share_location_, &loc_preds);
    vector<map<int, vector<float>>> overlaps;
    FindMatches(loc_preds, objects, prior_bboxes, prior_variances, param, &overlaps, &all_match_indices_);
    MineHardExamples(*bottom[1], loc_preds, objects, prior_bboxes, prior_variances, overlaps, param, &num_matches_,
                     &num_negatives, &all_match_indices_, &all_neg_indices_);
  }

  if (num_matches_ >= 1) {
    loc_pred_.Reshape({1, num_matches_ * 4});
    loc_gt_.Reshape({1, num_matches_ * 4});
    Dtype* pred = loc_pred_.mutable_cpu_data();
    Dtype* gt = loc_gt_.mutable_cpu_data();
    if (plain) {
      for (int image = 0; image < num_; ++image) {
        if (all_match_indices_[image].empty()) { continue; }
        const vector<int>& indices = all_match_indices_[image][-1];
        const vector<NormalizedBBox>& boxes = objects.find(image)->second;
        for (int i = 0; i < num_priors_; ++i) {
          if (indices[i] < 0) { continue; }
          const Dtype* variance = prior_data + (num_priors_ + i) * 4;
          const Dtype* loc = loc_data + (static_cast<size_t>(image) * num_priors_ + i) * 4;
          NormalizedBBox encoded;
          EncodeBBox(MessageOf(priors[i]), vector<float>(variance, variance + 4), param.code_type(),
                     param.encode_variance_in_target(), boxes[indices[i]], &encoded);
          const float wanted[] = {encoded.xmin(), encoded.ymin(), encoded.xmax(), encoded.ymax()};
          const float edges[] = {priors[i].xmin, priors[i].ymin, priors[i].xmax, priors[i].ymax};
          for (int k = 0; k < 4; ++k) {
            // bp_inside: an edge outside the image gets no gradient.
            *gt = wanted[k];
            *pred = param.bp_inside() && !InsideImage(edges[k]) ? wanted[k] : static_cast<float>(loc[k]);
            if (param.encode_variance_in_target()) {
              CHECK_GT(variance[k], 0) << "MultiBoxLoss layer " << this->layer_param_.name() << ": a variance is "
                                       << variance[k] << ", must be above 0.";
              *gt /= static_cast<float>(variance[k]);
              *pred /= static_cast<float>(variance[k]);
            }
            ++gt;
            ++pred;
          }
        }
      }
    } else {
      EncodeLocPrediction(loc_preds, objects, all_match_indices_, prior_bboxes, prior_variances, param, pred, gt);
    }
    loc_loss_layer_->Reshape(loc_bottom_vec_, loc_top_vec_);
    loc_loss_layer_->Forward(loc_bottom_vec_, loc_top_vec_);
  } else {
    loc_loss_.mutable_cpu_data()[0] = 0;
  }

  num_conf_ = do_neg_mining_ ? num_matches_ + num_negatives : num_ * num_priors_;
  if (num_conf_ >= 1) {
    if (conf_loss_type_ == MultiBoxLossParameter_ConfLossType_SOFTMAX) {
      conf_gt_.Reshape({num_conf_});
      conf_pred_.Reshape({num_conf_, num_classes_});
    } else {
      conf_gt_.Reshape({1, num_conf_, num_classes_});
      conf_pred_.Reshape({1, num_conf_, num_classes_});
    }
    // Without mining all scores are used, in place.
    if (!do_neg_mining_) { conf_pred_.ShareData(*bottom[1]); }
    // For SOFTMAX the targets are labels. For LOGISTIC the fork also fills with the background label: 0 in every SSD
    // net.
    caffe_set(conf_gt_.count(), Dtype(background_label_id_), conf_gt_.mutable_cpu_data());
    EncodeConfPrediction(conf_data, num_, num_priors_, param, all_match_indices_, all_neg_indices_, objects,
                         conf_pred_.mutable_cpu_data(), conf_gt_.mutable_cpu_data());
    conf_loss_layer_->Reshape(conf_bottom_vec_, conf_top_vec_);
    conf_loss_layer_->Forward(conf_bottom_vec_, conf_top_vec_);
  } else {
    conf_loss_.mutable_cpu_data()[0] = 0;
  }

  const Dtype normalizer = LossLayer<Dtype>::GetNormalizer(normalization_, num_, num_priors_, num_matches_);
  Dtype loss = 0;
  if (this->layer_param_.propagate_down(0)) { loss += loc_weight_ * loc_loss_.cpu_data()[0] / normalizer; }
  if (this->layer_param_.propagate_down(1)) { loss += conf_loss_.cpu_data()[0] / normalizer; }
  top[0]->mutable_cpu_data()[0] = loss;
}

template <typename Dtype>
void MultiBoxLossLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                            const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down[2] && !propagate_down[3])
      << "MultiBoxLoss layer " << this->layer_param_.name() << " gives no gradient to prior boxes or labels.";
  const vector<bool> to_prediction = {true, false};
  const Dtype normalizer = LossLayer<Dtype>::GetNormalizer(normalization_, num_, num_priors_, num_matches_);
  const Dtype weight = top[0]->cpu_diff()[0] / normalizer;

  if (propagate_down[0]) {
    Dtype* to = bottom[0]->mutable_cpu_diff();
    caffe_set(bottom[0]->count(), Dtype(0), to);
    if (num_matches_ >= 1) {
      loc_loss_layer_->Backward(loc_top_vec_, to_prediction, loc_bottom_vec_);
      const Dtype* from = loc_pred_.cpu_diff();
      for (int image = 0; image < num_; ++image, to += bottom[0]->count(1)) {
        for (const auto& of_label : all_match_indices_[image]) {
          const int label = share_location_ ? 0 : of_label.first;
          for (int i = 0; i < of_label.second.size(); ++i) {
            if (of_label.second[i] < 0) { continue; }
            for (int k = 0; k < 4; ++k) { to[(loc_classes_ * i + label) * 4 + k] = weight * *from++; }
          }
        }
      }
    }
  }

  if (propagate_down[1]) {
    Dtype* to = bottom[1]->mutable_cpu_diff();
    caffe_set(bottom[1]->count(), Dtype(0), to);
    if (num_conf_ >= 1) {
      conf_loss_layer_->Backward(conf_top_vec_, to_prediction, conf_bottom_vec_);
      const Dtype* from = conf_pred_.cpu_diff();
      if (do_neg_mining_) {
        const auto give = [&](const int box) {
          for (int c = 0; c < num_classes_; ++c) { to[box * num_classes_ + c] = weight * *from++; }
        };
        for (int image = 0; image < num_; ++image, to += bottom[1]->count(1)) {
          for (const auto& of_label : all_match_indices_[image]) {
            for (int i = 0; i < num_priors_; ++i) {
              if (of_label.second[i] > -1) { give(i); }
            }
          }
          for (const int box : all_neg_indices_[image]) { give(box); }
        }
      } else {
        for (int i = 0; i < conf_pred_.count(); ++i) { to[i] = weight * from[i]; }
      }
    }
  }
}

INSTANTIATE_CLASS(MultiBoxLossLayer);
REGISTER_LAYER_CLASS(MultiBoxLoss);

}  // namespace caffe
