#include "caffe/layers/detection_output_layer.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "caffe/util/box_matching.hpp"
#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

// DetectionOutput on the CPU: the class and its GPU code are the fork's, and the results are the same. Boxes are plain
// numbers here, not messages; scores at or below confidence_threshold, or too low for the best top_k of their class,
// are skipped a vector at a time, before anything is stored; only boxes of classes with a candidate are decoded; the
// classes are divided among the threads.
//
// For each image and class but the background: the boxes with a score above confidence_threshold, best first (equal
// ones in the order of their indices), top_k of them at most; each is kept unless it overlaps one kept before it by
// more than nms_threshold. Then the keep_top_k best of all classes, in rows of (image, class, score, xmin, ymin, xmax,
// ymax) grouped by class. Without nms_param every box of every class is kept, whatever its score.
namespace caffe {

namespace {

/// Boxes that a thread takes at a time at least.
constexpr int kBoxes = 4096;

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
/// threshold above 0.5 with each box that is kept. Ends when `most` are kept (never if negative): the image keeps no
/// more in all, and the others of this class come after these.
void Suppress(const vector<PlainBox>& boxes, float threshold, const float eta, const int most,
              vector<Candidate>* candidates) {
  vector<PlainBox> kept;
  size_t count = 0;
  for (const Candidate candidate : *candidates) {
    if (most >= 0 && count == static_cast<size_t>(most)) { break; }
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

/// The candidates of each class, of which no more than the best `most` are wanted (all of them if negative). Once a
/// class has twice as many, it is cut to the best of them, and from then on takes only scores above the worst of these:
/// a later box of the same score would come after it. So the time grows with the number of scores and not with a
/// sort of all of them.
template <typename Dtype>
class Candidates {
 public:
  Candidates(const int classes, const int background, const float threshold, const int most)
      : background_(background),
        most_(most),
        of_class_(classes),
        least_(classes, threshold),
        // A vector only rules out scores clearly below: for doubles the limit is that of a float rounded down.
        limits_(classes, Limit(threshold)) {}

  /// Takes the scores of the boxes [begin, end), in the order of their indices. scores: boxes x classes.
  void Collect(const Dtype* scores, const int begin, const int end) {
    constexpr int lanes = SimdLanes<Dtype>();
    const int classes = of_class_.size();
    scores += static_cast<size_t>(begin) * classes;
    for (int b = begin; b < end; ++b, scores += classes) {
      for (int c = 0; c < classes; c += lanes) {
        const int last = std::min(c + lanes, classes);
        if (last - c == lanes) {
          const auto over = SimdLoad<Dtype, lanes>(scores + c) > SimdLoad<Dtype, lanes>(limits_.data() + c);
          decltype(over[0] + 0) any = 0;
          for (int i = 0; i < lanes; ++i) { any |= over[i]; }
          if (any == 0) { continue; }
        }
        for (int i = c; i < last; ++i) {
          const float score = scores[i];
          if (score > least_[i] && i != background_) { Add(i, {score, b}); }
        }
      }
    }
  }

  /// Takes those of other boxes.
  void Join(const Candidates& other) {
    for (int c = 0; c < of_class_.size(); ++c) {
      of_class_[c].insert(of_class_[c].end(), other.of_class_[c].begin(), other.of_class_[c].end());
    }
  }

  /// All candidates of a class, best first, `most` at most.
  void Sort(const int c) {
    if (Cut(c)) { return; }
    std::sort(of_class_[c].begin(), of_class_[c].end(), Before);
  }

  vector<Candidate>& operator[](const int c) { return of_class_[c]; }

 private:
  static Dtype Limit(const float score) {
    return sizeof(Dtype) == 4 ? Dtype(score) : Dtype(score) - std::fabs(Dtype(score)) * Dtype(1e-6);
  }

  void Add(const int c, const Candidate candidate) {
    of_class_[c].push_back(candidate);
    if (most_ <= 0 || of_class_[c].size() < 2 * static_cast<size_t>(std::max(most_, 32))) { return; }
    Cut(c);
    least_[c] = of_class_[c].back().score;
    limits_[c] = Limit(least_[c]);
  }

  /// Leaves the best of a class, sorted, if there are more than are wanted.
  bool Cut(const int c) {
    vector<Candidate>& all = of_class_[c];
    if (most_ < 0 || all.size() <= static_cast<size_t>(most_)) { return false; }
    std::partial_sort(all.begin(), all.begin() + most_, all.end(), Before);
    all.resize(most_);
    return true;
  }

  int background_, most_;
  vector<vector<Candidate>> of_class_;
  vector<float> least_;
  vector<Dtype> limits_;
};

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
    ParallelFor(num_priors_, kBoxes, [&](const int begin, const int end) {
      for (int b = begin; b < end; ++b) {
        const size_t at = (static_cast<size_t>(image) * num_priors_ + b) * num_loc_classes_ + loc_class;
        (*boxes)[b] = decoder.Decode(priors + b * 4, variances + b * 4, codes + at * 4);
      }
    });
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
    Candidates<Dtype> candidates(num_classes_, background_label_id_, need_nms_ ? confidence_threshold_ : 0,
                                 need_nms_ ? top_k_ : -1);
    if (need_nms_) {
      // Each thread takes a part of the boxes, and the parts are joined in the order of the boxes.
      const int parts = std::max(1, std::min(ParallelThreads(), num_priors_ / kBoxes));
      vector<Candidates<Dtype>> others(parts - 1, candidates);
      ParallelFor(parts, 1, [&](const int begin, const int end) {
        for (int p = begin; p < end; ++p) {
          const int64_t boxes = num_priors_;
          (p == 0 ? candidates : others[p - 1]).Collect(image_scores, boxes * p / parts, boxes * (p + 1) / parts);
        }
      });
      for (const Candidates<Dtype>& other : others) { candidates.Join(other); }
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
        candidates.Sort(c);
        Suppress(share_location_ ? shared : boxes[c], nms_threshold_, eta_, keep_top_k_, &candidates[c]);
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
