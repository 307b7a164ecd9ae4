#include "caffe/layers/multibox_loss_layer.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/parallel.hpp"

// MultiBoxLoss: the class is the fork's, and so are the results. What SSD nets ask for (one location a prior box, matches
// by prior boxes, negatives mined by their confidence loss without suppression, or not mined) is done on plain numbers
// here, an image a thread; every other setting goes through the functions of bbox_util.hpp.
//
// Source: Liu et al., SSD (2016), section 2.2: matching, loss, hard negative mining.
namespace caffe {

namespace {

struct PlainBox {
  float xmin, ymin, xmax, ymax;
  float size;
};

template <typename T>
PlainBox PlainOf(const T* at) {
  PlainBox box = {static_cast<float>(at[0]), static_cast<float>(at[1]), static_cast<float>(at[2]),
                  static_cast<float>(at[3]), 0};
  if (box.xmax >= box.xmin && box.ymax >= box.ymin) { box.size = (box.xmax - box.xmin) * (box.ymax - box.ymin); }
  return box;
}

PlainBox PlainOf(const NormalizedBBox& box) {
  const float values[] = {box.xmin(), box.ymin(), box.xmax(), box.ymax()};
  return PlainOf(values);
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

float Overlap(const PlainBox& a, const PlainBox& b) {
  const float width = std::min(a.xmax, b.xmax) - std::max(a.xmin, b.xmin);
  const float height = std::min(a.ymax, b.ymax) - std::max(a.ymin, b.ymin);
  if (!(width > 0 && height > 0)) { return 0; }
  const float both = width * height;
  return both / (a.size + b.size - both);
}

bool Inside(const float x) { return x >= 0 && x <= 1; }
bool CrossesBoundary(const PlainBox& box) {
  return !(Inside(box.xmin) && Inside(box.ymin) && Inside(box.xmax) && Inside(box.ymax));
}

/// For each prior box the object it stands for, -1 for none, -2 for a box that is left out; and its largest overlap.
struct Matching {
  vector<int> indices;
  vector<float> overlaps;
};

Matching Match(const vector<PlainBox>& priors, const vector<PlainBox>& objects, const bool per_prediction,
               const float threshold, const bool ignore_crossing) {
  const float kLeast = 1e-6;  // overlaps under this are none
  const int num_priors = priors.size(), num_objects = objects.size();
  Matching match = {vector<int>(num_priors, -1), vector<float>(num_priors, 0)};
  vector<float> table(static_cast<size_t>(num_objects) * num_priors, 0);
  for (int i = 0; i < num_priors; ++i) {
    if (ignore_crossing && CrossesBoundary(priors[i])) {
      match.indices[i] = -2;
      continue;
    }
    for (int j = 0; j < num_objects; ++j) {
      const float overlap = Overlap(priors[i], objects[j]);
      if (!(overlap > kLeast)) { continue; }
      table[static_cast<size_t>(j) * num_priors + i] = overlap;
      match.overlaps[i] = std::max(match.overlaps[i], overlap);
    }
  }
  // First the pairs with the largest overlap, each object and each box once. An object's best box changes only when
  // another object takes it.
  const auto best_of = [&](const int j) {
    int best = -1;
    float most = 0;
    for (int i = 0; i < num_priors; ++i) {
      const float overlap = table[static_cast<size_t>(j) * num_priors + i];
      if (overlap > most && match.indices[i] == -1) {
        most = overlap;
        best = i;
      }
    }
    return std::make_pair(most, best);
  };
  vector<std::pair<float, int> > best;
  for (int j = 0; j < num_objects; ++j) { best.push_back(best_of(j)); }
  vector<bool> done(num_objects, false);
  for (;;) {
    int next = -1;
    for (int j = 0; j < num_objects; ++j) {
      if (done[j] || best[j].second < 0) { continue; }
      if (match.indices[best[j].second] != -1) { best[j] = best_of(j); }
      if (best[j].second < 0) { continue; }
      if (next < 0 || best[j].first > best[next].first ||
          (best[j].first == best[next].first && best[j].second < best[next].second)) {
        next = j;
      }
    }
    if (next < 0) { break; }
    match.indices[best[next].second] = next;
    match.overlaps[best[next].second] = best[next].first;
    done[next] = true;
  }
  if (!per_prediction) { return match; }
  // Then every box that is left to the object it overlaps most, where that is enough.
  for (int i = 0; i < num_priors; ++i) {
    if (match.indices[i] != -1) { continue; }
    int object = -1;
    float most = -1;
    for (int j = 0; j < num_objects; ++j) {
      const float overlap = table[static_cast<size_t>(j) * num_priors + i];
      if (overlap > kLeast && overlap >= threshold && overlap > most) {
        most = overlap;
        object = j;
      }
    }
    if (object >= 0) {
      match.indices[i] = object;
      match.overlaps[i] = most;
    }
  }
  return match;
}

/// Confidence loss of a box that stands for the background.
template <typename Dtype>
float BackgroundLoss(const Dtype* scores, const int classes, const int background, const bool softmax) {
  if (softmax) {
    const Dtype most = *std::max_element(scores, scores + classes);
    Dtype sum = 0;
    for (int c = 0; c < classes; ++c) { sum += std::exp(scores[c] - most); }
    const Dtype probability = std::exp(scores[background] - most) / sum;
    return -std::log(std::max(probability, Dtype(FLT_MIN)));
  }
  // The sum over the classes of max(x, 0) - x [background] + log(1 + exp(-|x|)), the logs as one of a product: its
  // factors are 2 at most, so that 512 of them stay in a double's range.
  double loss = background >= 0 && background < classes ? -static_cast<double>(scores[background]) : 0.;
  double product = 1;
  for (int c = 0; c < classes; ++c) {
    loss += std::max(scores[c], Dtype(0));
    product *= 1 + static_cast<double>(std::exp(-std::fabs(scores[c])));
    if (c % 512 == 511) {
      loss += std::log(product);
      product = 1;
    }
  }
  return loss + std::log(product);
}

/// Of the boxes that stand for nothing and overlap no object much, the `ratio` times as many as there are matches with
/// the largest losses; in the order of their numbers.
template <typename Dtype>
vector<int> MineNegatives(const Matching& match, const Dtype* scores, const int classes, const int background,
                          const bool softmax, const float ratio, const float most_overlap) {
  vector<std::pair<float, int> > losses;
  int matches = 0;
  for (int i = 0; i < match.indices.size(); ++i) {
    if (match.indices[i] > -1) { ++matches; }
    if (match.indices[i] == -1 && match.overlaps[i] < most_overlap) { losses.push_back({0.f, i}); }
  }
  const int wanted = std::min(static_cast<int>(matches * ratio), static_cast<int>(losses.size()));
  vector<int> negatives;
  if (wanted <= 0) { return negatives; }
  for (auto& loss : losses) {
    loss.first = BackgroundLoss(scores + static_cast<size_t>(loss.second) * classes, classes, background, softmax);
  }
  std::nth_element(losses.begin(), losses.begin() + wanted - 1, losses.end(),
                   [](const std::pair<float, int>& a, const std::pair<float, int>& b) {
                     return a.first > b.first || (a.first == b.first && a.second < b.second);
                   });
  for (int n = 0; n < wanted; ++n) { negatives.push_back(losses[n].second); }
  std::sort(negatives.begin(), negatives.end());
  return negatives;
}

/// Whether this file's own way does it.
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
  CHECK_GE(num_classes_, 1) << layer << ": num_classes must be 1 or more.";
  share_location_ = param.share_location();
  loc_classes_ = share_location_ ? 1 : num_classes_;
  background_label_id_ = param.background_label_id();
  use_difficult_gt_ = param.use_difficult_gt();
  mining_type_ = param.mining_type();
  do_neg_mining_ = mining_type_ != MultiBoxLossParameter_MiningType_NONE;
  CHECK(!param.has_do_neg_mining() || param.do_neg_mining() == do_neg_mining_)
      << layer << ": do_neg_mining says other than mining_type.";
  CHECK(!do_neg_mining_ || share_location_) << layer << ": mining is for share_location: true.";
  const LossParameter& loss_param = this->layer_param_.loss_param();
  if (!loss_param.has_normalization() && loss_param.has_normalize()) {
    normalization_ =
        loss_param.normalize() ? LossParameter_NormalizationMode_VALID : LossParameter_NormalizationMode_BATCH_SIZE;
  } else {
    normalization_ = loss_param.normalization();
  }

  // The two losses are layers inside; they get their real shapes in Forward.
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
    default: LOG(FATAL) << layer << ": unknown loc_loss_type.";
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
          << layer << ": background_label_id must be a class for SOFTMAX.";
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
    default: LOG(FATAL) << layer << ": unknown conf_loss_type.";
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
  CHECK_EQ(bottom[0]->num(), bottom[1]->num()) << layer << ": its bottoms have different numbers of images.";
  CHECK_EQ(num_priors_ * loc_classes_ * 4, bottom[0]->channels())
      << layer << ": the number of location predictions is not that of the prior boxes.";
  CHECK_EQ(num_priors_ * num_classes_, bottom[1]->channels())
      << layer << ": the number of confidences is not that of the prior boxes times num_classes.";
}

template <typename Dtype>
void MultiBoxLossLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Dtype* loc_data = bottom[0]->cpu_data();
  const Dtype* conf_data = bottom[1]->cpu_data();
  const Dtype* prior_data = bottom[2]->cpu_data();
  const MultiBoxLossParameter& param = multibox_loss_param_;
  all_match_indices_.clear();
  all_neg_indices_.clear();
  map<int, vector<NormalizedBBox> > objects;
  GetGroundTruth(bottom[3]->cpu_data(), num_gt_, background_label_id_, use_difficult_gt_, &objects);

  num_matches_ = 0;
  int num_negatives = 0;
  vector<PlainBox> priors;
  vector<NormalizedBBox> prior_bboxes;
  vector<vector<float> > prior_variances;
  vector<LabelBBox> loc_preds;
  const bool plain = Plain(param);
  if (plain) {
    for (int i = 0; i < num_priors_; ++i) { priors.push_back(PlainOf(prior_data + i * 4)); }
    all_match_indices_.resize(num_);
    all_neg_indices_.resize(num_);
    // An image without objects has no matches and gives no negatives.
    parallel_for(num_, 1, [&](const int begin, const int end) {
      for (int image = begin; image < end; ++image) {
        const auto found = objects.find(image);
        if (found == objects.end()) { continue; }
        vector<PlainBox> boxes;
        for (const NormalizedBBox& box : found->second) { boxes.push_back(PlainOf(box)); }
        Matching match = Match(priors, boxes, param.match_type() == MultiBoxLossParameter_MatchType_PER_PREDICTION,
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
    vector<map<int, vector<float> > > overlaps;
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
            *pred = param.bp_inside() && !Inside(edges[k]) ? wanted[k] : static_cast<float>(loc[k]);
            if (param.encode_variance_in_target()) {
              CHECK_GT(variance[k], 0) << "MultiBoxLoss layer " << this->layer_param_.name() << ": a variance of 0.";
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
    // Without mining all scores count, where they lie.
    if (!do_neg_mining_) { conf_pred_.ShareData(*bottom[1]); }
    // The targets are labels for SOFTMAX. For LOGISTIC the fork fills with the label as well: 0 in every SSD net.
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
  all_match_indices_.clear();
  all_neg_indices_.clear();
}

INSTANTIATE_CLASS(MultiBoxLossLayer);
REGISTER_LAYER_CLASS(MultiBoxLoss);

}  // namespace caffe
