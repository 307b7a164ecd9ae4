#include "caffe/layers/detection_output_layer.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "caffe/util/box_matching.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

// DetectionOutput on the CPU: the class and its GPU code are the fork's, and the results are the same. Boxes are plain
// numbers here, not messages; scores at or below confidence_threshold are skipped a vector at a time, before anything
// is stored; only boxes of classes with a candidate are decoded; the classes are divided among the threads.
//
// For each image and class but the background: the boxes with a score above confidence_threshold, best first (equal
// ones in the order of their indices), top_k of them at most; each is kept unless it overlaps one kept before it by
// more than nms_threshold. Then the keep_top_k best of all classes, in rows of (image, class, score, xmin, ymin, xmax,
// ymax) grouped by class. Without nms_param every box of every class is kept, whatever its score.
namespace caffe {

namespace {

struct Candidate {
  float score;
  int box;
};

bool Before(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.box < b.box);
}

/// How a box is encoded relative to its prior box; the fork's bbox_util.cpp has the same formulas.
struct Decoder {
  CodeType code;
  bool variance_in_target;

  template <typename Dtype>
  PlainBox Decode(const Dtype* prior_at, const Dtype* variance_at, const Dtype* code_at) const {
    float prior[4], variance[4], value[4];
    for (int i = 0; i < 4; ++i) {
      prior[i] = prior_at[i];
      variance[i] = variance_in_target ? 1.f : static_cast<float>(variance_at[i]);
      value[i] = code_at[i];
    }
    const float width = prior[2] - prior[0], height = prior[3] - prior[1];
    PlainBox box;
    switch (code) {
      case PriorBoxParameter_CodeType_CORNER:
        box.xmin = prior[0] + variance[0] * value[0];
        box.ymin = prior[1] + variance[1] * value[1];
        box.xmax = prior[2] + variance[2] * value[2];
        box.ymax = prior[3] + variance[3] * value[3];
        break;
      case PriorBoxParameter_CodeType_CENTER_SIZE: {
        CHECK_GT(width, 0) << "DetectionOutput: a prior box has width " << width << ", must be above 0.";
        CHECK_GT(height, 0) << "DetectionOutput: a prior box has height " << height << ", must be above 0.";
        const float x = variance[0] * value[0] * width + (prior[0] + prior[2]) / 2;
        const float y = variance[1] * value[1] * height + (prior[1] + prior[3]) / 2;
        const float half_width = std::exp(variance[2] * value[2]) * width / 2;
        const float half_height = std::exp(variance[3] * value[3]) * height / 2;
        box.xmin = x - half_width;
        box.ymin = y - half_height;
        box.xmax = x + half_width;
        box.ymax = y + half_height;
        break;
      }
      case PriorBoxParameter_CodeType_CORNER_SIZE:
        CHECK_GT(width, 0) << "DetectionOutput: a prior box has width " << width << ", must be above 0.";
        CHECK_GT(height, 0) << "DetectionOutput: a prior box has height " << height << ", must be above 0.";
        box.xmin = prior[0] + variance[0] * value[0] * width;
        box.ymin = prior[1] + variance[1] * value[1] * height;
        box.xmax = prior[2] + variance[2] * value[2] * width;
        box.ymax = prior[3] + variance[3] * value[3] * height;
        break;
      default: LOG(FATAL) << "DetectionOutput: unknown code_type " << code << ".";
    }
    box.size = box.xmax < box.xmin || box.ymax < box.ymin ? 0 : (box.xmax - box.xmin) * (box.ymax - box.ymin);
    return box;
  }
};

/// Drops each candidate, best first, that overlaps one kept before it by more than the threshold. eta below 1 lowers a
/// threshold above 0.5 with each box that is kept.
void Suppress(const vector<PlainBox>& boxes, float threshold, const float eta, vector<Candidate>* candidates) {
  vector<PlainBox> kept;
  size_t count = 0;
  for (const Candidate candidate : *candidates) {
    const PlainBox& box = boxes[candidate.box];
    const bool keep = std::none_of(kept.begin(), kept.end(),
                                   [&](const PlainBox& other) { return !(Overlap(box, other) <= threshold); });
    if (!keep) { continue; }
    kept.push_back(box);
    (*candidates)[count++] = candidate;
    if (eta < 1 && threshold > 0.5) { threshold *= eta; }
  }
  candidates->resize(count);
}

/// For each class the boxes with scores above the threshold, in the order of their indices. scores: boxes x classes.
template <typename Dtype>
void Collect(const Dtype* scores, const int boxes, const int classes, const int background, const float threshold,
             vector<vector<Candidate>>* candidates) {
  constexpr int lanes = SimdLanes<Dtype>();
  typedef SimdT<Dtype, lanes> V;
  // Scores are compared as floats, as in the fork: for doubles the vector only rules out those clearly below.
  const Dtype limit = sizeof(Dtype) == 4 ? Dtype(threshold) : Dtype(threshold) - std::fabs(Dtype(threshold)) * 1e-6;
  for (int b = 0; b < boxes; ++b, scores += classes) {
    int c = 0;
    for (; c < classes; c += lanes) {
      const int end = std::min(c + lanes, classes);
      if (end - c == lanes) {
        const auto over = SimdLoad<Dtype, lanes>(scores + c) > (V{} + limit);
        decltype(over[0] + 0) any = 0;
        for (int i = 0; i < lanes; ++i) { any |= over[i]; }
        if (any == 0) { continue; }
      }
      for (int i = c; i < end; ++i) {
        const float score = scores[i];
        if (score > threshold && i != background) { (*candidates)[i].push_back({score, b}); }
      }
    }
  }
}

}  // namespace

template <typename Dtype>
void DetectionOutputLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const DetectionOutputParameter& param = this->layer_param_.detection_output_param();
  const string layer = "DetectionOutput layer " + this->layer_param_.name();
  CHECK(param.has_num_classes()) << layer << ": num_classes is missing.";
  num_classes_ = param.num_classes();
  share_location_ = param.share_location();
  num_loc_classes_ = share_location_ ? 1 : num_classes_;
  background_label_id_ = param.background_label_id();
  code_type_ = param.code_type();
  variance_encoded_in_target_ = param.variance_encoded_in_target();
  keep_top_k_ = param.keep_top_k();
  confidence_threshold_ = param.has_confidence_threshold() ? param.confidence_threshold() : -FLT_MAX;
  need_nms_ = param.has_nms_param();
  if (need_nms_) {
    nms_threshold_ = param.nms_param().nms_threshold();
    eta_ = param.nms_param().eta();
    top_k_ = param.nms_param().has_top_k() ? param.nms_param().top_k() : -1;
    CHECK_GE(nms_threshold_, 0) << layer << ": nms_threshold is " << nms_threshold_ << ", must be 0 or more.";
    CHECK(eta_ > 0 && eta_ <= 1) << layer << ": eta is " << eta_ << ", must be above 0 and at most 1.";
  }
  const SaveOutputParameter& save = param.save_output_param();
  LOG_IF(WARNING, save.has_output_directory() && !save.output_directory().empty())
      << layer << ": this Caffe writes no files for save_output_param; output_directory is not touched.";
  need_save_ = false;
  name_count_ = 0;
  if (!save.label_map_file().empty()) {
    LabelMap label_map;
    CHECK(ReadProtoFromTextFile(save.label_map_file(), &label_map))
        << layer << ": cannot read the label map " << save.label_map_file();
    CHECK(MapLabelToName(label_map, true, &label_to_name_) &&
          MapLabelToDisplayName(label_map, true, &label_to_display_name_))
        << layer << ": a label appears twice in " << save.label_map_file();
  }
  visualize_ = param.visualize();
  if (visualize_) {
    visualize_threshold_ = param.has_visualize_threshold() ? param.visualize_threshold() : 0.6;
    data_transformer_.reset(new DataTransformer<Dtype>(this->layer_param_.transform_param(), this->phase_));
    data_transformer_->InitRand();
    save_file_ = param.save_file();
  }
}

template <typename Dtype>
void DetectionOutputLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const string layer = "DetectionOutput layer " + this->layer_param_.name();
  CHECK_EQ(bottom[0]->num(), bottom[1]->num()) << layer << ": its bottoms have " << bottom[0]->num() << " and "
                                               << bottom[1]->num() << " images, must have the same number.";
  num_priors_ = bottom[2]->height() / 4;
  CHECK_EQ(num_priors_ * num_loc_classes_ * 4, bottom[0]->channels())
      << layer << ": bottom 0 has " << bottom[0]->channels() << " location values an image, must have 4 for each of "
      << num_priors_ << " prior boxes and " << num_loc_classes_ << " location classes.";
  CHECK_EQ(num_priors_ * num_classes_, bottom[1]->channels())
      << layer << ": bottom 1 has " << bottom[1]->channels() << " confidences an image, must have one for each of "
      << num_priors_ << " prior boxes and " << num_classes_ << " classes.";
  // Blobs that only the GPU code writes.
  bbox_preds_.ReshapeLike(*bottom[0]);
  if (!share_location_) { bbox_permute_.ReshapeLike(*bottom[0]); }
  conf_permute_.ReshapeLike(*bottom[1]);
  // One row, until Forward knows the number.
  top[0]->Reshape({1, 1, 1, 7});
}

template <typename Dtype>
void DetectionOutputLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Dtype* codes = bottom[0]->cpu_data();
  const Dtype* scores = bottom[1]->cpu_data();
  const Dtype* priors = bottom[2]->cpu_data();
  const Dtype* variances = priors + num_priors_ * 4;
  const int num = bottom[0]->num();
  const Decoder decoder = {code_type_, variance_encoded_in_target_};
  const auto decode = [&](const int image, const int loc_class, vector<PlainBox>* boxes) {
    boxes->resize(num_priors_);
    for (int b = 0; b < num_priors_; ++b) {
      const size_t at = (static_cast<size_t>(image) * num_priors_ + b) * num_loc_classes_ + loc_class;
      (*boxes)[b] = decoder.Decode(priors + b * 4, variances + b * 4, codes + at * 4);
    }
  };

  struct Row {
    int image, label;
    float score;
    PlainBox box;
  };
  vector<Row> rows;
  vector<PlainBox> shared;
  for (int image = 0; image < num; ++image) {
    const Dtype* image_scores = scores + static_cast<size_t>(image) * num_priors_ * num_classes_;
    vector<vector<Candidate>> candidates(num_classes_);
    if (need_nms_) {
      Collect(image_scores, num_priors_, num_classes_, background_label_id_, confidence_threshold_, &candidates);
    } else {
      for (int c = 0; c < num_classes_; ++c) {
        for (int b = 0; b < num_priors_ && c != background_label_id_; ++b) {
          candidates[c].push_back({static_cast<float>(image_scores[b * num_classes_ + c]), b});
        }
      }
    }
    vector<int> found;
    for (int c = 0; c < num_classes_; ++c) {
      if (!candidates[c].empty()) { found.push_back(c); }
    }
    if (found.empty()) { continue; }
    vector<vector<PlainBox>> boxes(share_location_ ? 0 : num_classes_);
    if (share_location_) { decode(image, 0, &shared); }
    const auto work = [&](const int begin, const int end) {
      for (int i = begin; i < end; ++i) {
        const int c = found[i];
        if (!share_location_) { decode(image, c, &boxes[c]); }
        if (!need_nms_) { continue; }
        vector<Candidate>* of_class = &candidates[c];
        std::sort(of_class->begin(), of_class->end(), Before);
        if (top_k_ > -1 && top_k_ < of_class->size()) { of_class->resize(top_k_); }
        Suppress(share_location_ ? shared : boxes[c], nms_threshold_, eta_, of_class);
      }
    };
    size_t most = 0;
    for (const int c : found) { most = std::max(most, candidates[c].size()); }
    // With few candidates a class, the work is done before another thread would wake up.
    ParallelFor(static_cast<int>(found.size()), most > 64 ? 1 : static_cast<int>(found.size()), work);

    vector<Row> of_image;
    for (const int c : found) {
      for (const Candidate& candidate : candidates[c]) {
        of_image.push_back({image, c, candidate.score, (share_location_ ? shared : boxes[c])[candidate.box]});
      }
    }
    if (keep_top_k_ > -1 && keep_top_k_ < of_image.size()) {
      // The best ones first, equal ones in their order; then grouped by class again, best first in each.
      std::stable_sort(of_image.begin(), of_image.end(), [](const Row& a, const Row& b) { return a.score > b.score; });
      of_image.resize(keep_top_k_);
      std::stable_sort(of_image.begin(), of_image.end(), [](const Row& a, const Row& b) { return a.label < b.label; });
    }
    rows.insert(rows.end(), of_image.begin(), of_image.end());
  }

  if (rows.empty()) {
    LOG(INFO) << "Couldn't find any detections";
    // One row for each image: the image's index, and -1 in all other values.
    top[0]->Reshape({1, 1, num, 7});
    Dtype* to = top[0]->mutable_cpu_data();
    std::fill(to, to + top[0]->count(), Dtype(-1));
    for (int image = 0; image < num; ++image) { to[image * 7] = image; }
  } else {
    top[0]->Reshape({1, 1, static_cast<int>(rows.size()), 7});
    Dtype* to = top[0]->mutable_cpu_data();
    for (const Row& row : rows) {
      const Dtype values[] = {Dtype(row.image), Dtype(row.label), row.score,   row.box.xmin,
                              row.box.ymin,     row.box.xmax,     row.box.ymax};
      to = std::copy(values, values + 7, to);
    }
  }
  if (visualize_) {
#ifdef USE_OPENCV
    vector<cv::Mat> images;
    data_transformer_->TransformInv(bottom[3], &images);
    VisualizeBBox(images, top[0], visualize_threshold_, GetColors(label_to_display_name_.size()),
                  label_to_display_name_, save_file_);
#endif
  }
}

#ifdef CPU_ONLY
STUB_GPU_FORWARD(DetectionOutputLayer, Forward);
#endif

INSTANTIATE_CLASS(DetectionOutputLayer);
REGISTER_LAYER_CLASS(DetectionOutput);

}  // namespace caffe
