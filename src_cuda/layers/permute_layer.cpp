#include "caffe/layers/permute_layer.hpp"

#include <algorithm>
#include <vector>

#include "caffe/util/parallel.hpp"
#include "caffe/util/simd.hpp"

// Permute on the CPU: the class and its GPU code are the fork's. Axes that stay neighbours are joined, which leaves
// few: from N x C x H x W to N x H x W x C only N, C and HW, a matrix to transpose in each image. The last axis of the
// result and the last one of the bottom are walked in tiles, so that both sides are read and written in whole cache
// lines.
namespace caffe {

namespace {

constexpr int kTile = 16;

/// An axis of the result: its size, and the steps along it on both sides.
struct Axis {
  int size;
  int from, to;
};

/// The axes of the result, neighbours joined.
vector<Axis> Joined(const int num_axes, const int* order, const int* from_steps, const int* to_steps,
                    const vector<int>& shape) {
  vector<Axis> axes;
  for (int i = 0; i < num_axes; ++i) {
    const Axis axis = {shape[i], from_steps[order[i]], to_steps[i]};
    if (axis.size == 1) { continue; }
    if (!axes.empty() && axes.back().from == axis.from * axis.size) {
      axes.back() = {axes.back().size * axis.size, axis.from, axis.to};
    } else {
      axes.push_back(axis);
    }
  }
  if (axes.empty()) { axes.push_back({1, 1, 1}); }
  return axes;
}

/// MoveTiles where a.from and b.to are 1: a matrix is transposed.
template <bool Back, typename Dtype>
void Transpose(const Axis& a, const Axis& b, Dtype* from, Dtype* to) {
  const auto move = [=](const int i, const int j) {
    Dtype& left = from[i + j * b.from];
    Dtype& right = to[i * a.to + j];
    (Back ? left : right) = Back ? right : left;
  };
  int j = 0;
  for (; j + 4 <= b.size; j += 4) {
    int i = 0;
    for (; i + 4 <= a.size; i += 4) {
      Dtype* left = from + i + j * b.from;
      Dtype* right = to + i * a.to + j;
      if (Back) {
        SimdTranspose(right, a.to, left, b.from);
      } else {
        SimdTranspose(left, b.from, right, a.to);
      }
    }
    for (; i < a.size; ++i) {
      for (int k = 0; k < 4; ++k) { move(i, j + k); }
    }
  }
  for (; j < b.size; ++j) {
    for (int i = 0; i < a.size; ++i) { move(i, j); }
  }
}

/// to[i a.to + j b.to] = from[i a.from + j b.from]; Back: the other way round.
template <bool Back, typename Dtype>
void MoveTiles(const Axis& a, const Axis& b, Dtype* from, Dtype* to) {
  if (a.from == 1 && b.to == 1) {
    Transpose<Back>(a, b, from, to);
    return;
  }
  for (int i0 = 0; i0 < a.size; i0 += kTile) {
    for (int j0 = 0; j0 < b.size; j0 += kTile) {
      const int i_end = std::min(i0 + kTile, a.size), j_end = std::min(j0 + kTile, b.size);
      for (int i = i0; i < i_end; ++i) {
        for (int j = j0; j < j_end; ++j) {
          Dtype& left = from[i * a.from + j * b.from];
          Dtype& right = to[i * a.to + j * b.to];
          if (Back) {
            left = right;
          } else {
            right = left;
          }
        }
      }
    }
  }
}

template <bool Back, typename Dtype>
void Move(const vector<Axis>& axes, Dtype* from, Dtype* to) {
  // Walked in tiles: the last axis of the result (step 1 there) and the axis with the smallest step on the other side.
  const Axis last = axes.back();
  int near = -1;
  for (int i = 0; i + 1 < axes.size(); ++i) {
    if (near < 0 || axes[i].from < axes[near].from) { near = i; }
  }
  const Axis other = near < 0 ? Axis{1, 0, 0} : axes[near];
  // In parallel: pieces of `other`, for each position on the remaining axes.
  vector<Axis> outer;
  int64_t places = 1;
  for (int i = 0; i + 1 < axes.size(); ++i) {
    if (i == near) { continue; }
    outer.push_back(axes[i]);
    places *= axes[i].size;
  }
  const int stretches = (other.size + kTile - 1) / kTile;
  const int count = static_cast<int>(places * stretches);
  ParallelFor(count, ParallelGrain(count, 1 + 30000 / std::max(1, last.size * std::min(other.size, kTile))),
              [&](const int begin, const int end) {
                for (int at = begin; at < end; ++at) {
                  const int stretch = at % stretches;
                  int place = at / stretches;
                  size_t from_at = static_cast<size_t>(stretch) * kTile * other.from;
                  size_t to_at = static_cast<size_t>(stretch) * kTile * other.to;
                  for (int i = static_cast<int>(outer.size()) - 1; i >= 0; --i) {
                    from_at += static_cast<size_t>(place % outer[i].size) * outer[i].from;
                    to_at += static_cast<size_t>(place % outer[i].size) * outer[i].to;
                    place /= outer[i].size;
                  }
                  const Axis part = {std::min(kTile, other.size - stretch * kTile), other.from, other.to};
                  MoveTiles<Back>(part, last, from + from_at, to + to_at);
                }
              });
}

}  // namespace

template <typename Dtype>
void PermuteLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CHECK(bottom[0] != top[0]) << "Permute layer " << this->layer_param_.name()
                             << ": in place it would read what it has written; give it a top of its own.";
  const PermuteParameter& param = this->layer_param_.permute_param();
  num_axes_ = bottom[0]->num_axes();
  // The axes that are named, then the others as they come.
  vector<int> orders;
  vector<bool> named(num_axes_, false);
  for (int i = 0; i < param.order_size(); ++i) {
    const int axis = param.order(i);
    CHECK_LT(axis, num_axes_) << "Permute layer " << this->layer_param_.name() << ": its bottom has no axis " << axis
                              << ".";
    CHECK(!named[axis]) << "Permute layer " << this->layer_param_.name() << ": order names axis " << axis << " twice.";
    named[axis] = true;
    orders.push_back(axis);
  }
  for (int i = 0; i < num_axes_; ++i) {
    if (!named[i]) { orders.push_back(i); }
  }
  need_permute_ = !std::is_sorted(orders.begin(), orders.end());
  for (Blob<int>* blob : {&permute_order_, &old_steps_, &new_steps_}) { blob->Reshape(num_axes_, 1, 1, 1); }
  std::copy(orders.begin(), orders.end(), permute_order_.mutable_cpu_data());
}

template <typename Dtype>
void PermuteLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  vector<int> shape;
  for (int i = 0; i < num_axes_; ++i) { shape.push_back(bottom[0]->shape(permute_order_.cpu_data()[i])); }
  top[0]->Reshape(shape);
  for (int i = 0; i < num_axes_; ++i) {
    old_steps_.mutable_cpu_data()[i] = bottom[0]->count(i + 1);
    new_steps_.mutable_cpu_data()[i] = top[0]->count(i + 1);
  }
}

template <typename Dtype>
void PermuteLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (!need_permute_) {
    top[0]->ShareData(*bottom[0]);
    return;
  }
  Move<false>(
      Joined(num_axes_, permute_order_.cpu_data(), old_steps_.cpu_data(), new_steps_.cpu_data(), top[0]->shape()),
      const_cast<Dtype*>(bottom[0]->cpu_data()), top[0]->mutable_cpu_data());
}

template <typename Dtype>
void PermuteLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                       const vector<Blob<Dtype>*>& bottom) {
  if (!need_permute_) {
    bottom[0]->ShareDiff(*top[0]);
    return;
  }
  if (!propagate_down[0]) { return; }
  Move<true>(
      Joined(num_axes_, permute_order_.cpu_data(), old_steps_.cpu_data(), new_steps_.cpu_data(), top[0]->shape()),
      bottom[0]->mutable_cpu_diff(), const_cast<Dtype*>(top[0]->cpu_diff()));
}

#ifdef CPU_ONLY
STUB_GPU(PermuteLayer);
#endif

INSTANTIATE_CLASS(PermuteLayer);
REGISTER_LAYER_CLASS(Permute);

}  // namespace caffe
