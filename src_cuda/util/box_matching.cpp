#include "caffe/util/box_matching.hpp"

#include <cfloat>
#include <cmath>
#include <utility>

namespace caffe {

using std::vector;

namespace {

bool CrossesBoundary(const PlainBox& box) {
  return !(InsideImage(box.xmin) && InsideImage(box.ymin) && InsideImage(box.xmax) && InsideImage(box.ymax));
}

/// Confidence loss of a box whose target is the background.
template <typename Dtype>
float BackgroundLoss(const Dtype* scores, const int classes, const int background, const bool softmax) {
  if (softmax) {
    const Dtype most = *std::max_element(scores, scores + classes);
    Dtype sum = 0;
    for (int c = 0; c < classes; ++c) { sum += std::exp(scores[c] - most); }
    const Dtype probability = std::exp(scores[background] - most) / sum;
    return -std::log(std::max(probability, Dtype(FLT_MIN)));
  }
  // The sum over the classes of max(x, 0) - x [background] + log(1 + exp(-|x|)). The logarithms are summed as that of a
  // product: its factors are 2 at most, so 512 of them stay in the range of a double.
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

}  // namespace

Matching MatchBoxes(const vector<PlainBox>& priors, const vector<PlainBox>& objects, const bool per_prediction,
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
  // First the pairs with the largest overlap, each object and each box once. The best box of an object changes only
  // when another object takes it.
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
  vector<std::pair<float, int>> best;
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
  // Then each remaining box with the object that it overlaps most, if the overlap is large enough.
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

template <typename Dtype>
vector<int> MineNegatives(const Matching& match, const Dtype* scores, const int classes, const int background,
                          const bool softmax, const float ratio, const float most_overlap) {
  vector<std::pair<float, int>> losses;
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

template vector<int> MineNegatives<float>(const Matching&, const float*, int, int, bool, float, float);
template vector<int> MineNegatives<double>(const Matching&, const double*, int, int, bool, float, float);

}  // namespace caffe
