#include "caffe/layers/eltwise_layer.hpp"

#include <algorithm>
#include <vector>

#include "caffe/util/parallel.hpp"

// Eltwise on the CPU: the class and its GPU code are the fork's. Each piece of the result is finished over all bottoms
// before the next one is begun, on the layers' threads, so a sum is one pass and not one pass a bottom.
namespace caffe {

namespace {

constexpr int kGrain = 1 << 14;

template <typename Dtype>
vector<const Dtype*> DataOf(const vector<Blob<Dtype>*>& bottom) {
  vector<const Dtype*> data;
  for (const Blob<Dtype>* blob : bottom) { data.push_back(blob->cpu_data()); }
  return data;
}

}  // namespace

template <typename Dtype>
void EltwiseLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const EltwiseParameter& param = this->layer_param_.eltwise_param();
  op_ = param.operation();
  stable_prod_grad_ = param.stable_prod_grad();
  CHECK(param.coeff_size() == 0 || param.coeff_size() == bottom.size())
      << "Eltwise layer " << this->layer_param_.name() << ": has " << param.coeff_size()
      << " coeff, must have none or one for each of its " << bottom.size() << " bottoms.";
  CHECK(param.coeff_size() == 0 || op_ != EltwiseParameter_EltwiseOp_PROD)
      << "Eltwise layer " << this->layer_param_.name() << ": coeff is for operation: SUM only, not PROD.";
  coeffs_.assign(bottom.size(), Dtype(1));
  std::copy(param.coeff().begin(), param.coeff().end(), coeffs_.begin());
}

template <typename Dtype>
void EltwiseLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  for (int i = 0; i < bottom.size(); ++i) {
    CHECK(bottom[i] != top[0]) << "Eltwise layer " << this->layer_param_.name()
                               << ": in place it would read what it has written; give it a top of its own.";
    // The shapes may differ if their counts are equal, as in the fork.
    CHECK_EQ(bottom[i]->count(), bottom[0]->count())
        << "Eltwise layer " << this->layer_param_.name() << ": bottom " << i << " has shape "
        << bottom[i]->shape_string() << ", bottom 0 " << bottom[0]->shape_string() << ".";
  }
  top[0]->ReshapeLike(*bottom[0]);
  if (op_ == EltwiseParameter_EltwiseOp_MAX) { max_idx_.Reshape(bottom[0]->shape()); }
}

template <typename Dtype>
void EltwiseLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const vector<const Dtype*> from = DataOf(bottom);
  Dtype* to = top[0]->mutable_cpu_data();
  int* mask = op_ == EltwiseParameter_EltwiseOp_MAX ? max_idx_.mutable_cpu_data() : nullptr;
  ParallelFor(top[0]->count(), kGrain, [&](const int begin, const int end) {
    const Dtype* a = from[0];
    const Dtype* b = from[1];
    switch (op_) {
      case EltwiseParameter_EltwiseOp_PROD:
#pragma GCC ivdep
        for (int i = begin; i < end; ++i) { to[i] = a[i] * b[i]; }
        for (int n = 2; n < from.size(); ++n) {
          b = from[n];
#pragma GCC ivdep
          for (int i = begin; i < end; ++i) { to[i] *= b[i]; }
        }
        break;
      case EltwiseParameter_EltwiseOp_SUM: {
        const Dtype first = coeffs_[0], second = coeffs_[1];
        if (first == 1 && second == 1) {
#pragma GCC ivdep
          for (int i = begin; i < end; ++i) { to[i] = a[i] + b[i]; }
        } else {
#pragma GCC ivdep
          for (int i = begin; i < end; ++i) { to[i] = first * a[i] + second * b[i]; }
        }
        for (int n = 2; n < from.size(); ++n) {
          const Dtype factor = coeffs_[n];
          b = from[n];
#pragma GCC ivdep
          for (int i = begin; i < end; ++i) { to[i] += factor * b[i]; }
        }
        break;
      }
      case EltwiseParameter_EltwiseOp_MAX:
        // Of equal values the second bottom wins over the first, and any earlier bottom over a third or later one, as
        // in the fork.
        for (int i = begin; i < end; ++i) {
          mask[i] = a[i] > b[i] ? 0 : 1;
          to[i] = a[i] > b[i] ? a[i] : b[i];
        }
        for (int n = 2; n < from.size(); ++n) {
          b = from[n];
          for (int i = begin; i < end; ++i) {
            if (b[i] > to[i]) {
              to[i] = b[i];
              mask[i] = n;
            }
          }
        }
        break;
      default: LOG(FATAL) << "Eltwise layer " << this->layer_param_.name() << ": unknown operation.";
    }
  });
}

template <typename Dtype>
void EltwiseLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                       const vector<Blob<Dtype>*>& bottom) {
  const vector<const Dtype*> from = DataOf(bottom);
  const Dtype* y = top[0]->cpu_data();
  const Dtype* dy = top[0]->cpu_diff();
  for (int n = 0; n < bottom.size(); ++n) {
    if (!propagate_down[n]) { continue; }
    Dtype* dx = bottom[n]->mutable_cpu_diff();
    ParallelFor(top[0]->count(), kGrain, [&](const int begin, const int end) {
      switch (op_) {
        case EltwiseParameter_EltwiseOp_PROD:
          if (!stable_prod_grad_) {
            const Dtype* x = from[n];
#pragma GCC ivdep
            for (int i = begin; i < end; ++i) { dx[i] = y[i] / x[i] * dy[i]; }
            break;
          }
          std::copy(dy + begin, dy + end, dx + begin);
          for (int other = 0; other < from.size(); ++other) {
            const Dtype* x = from[other];
            if (other == n) { continue; }
#pragma GCC ivdep
            for (int i = begin; i < end; ++i) { dx[i] *= x[i]; }
          }
          break;
        case EltwiseParameter_EltwiseOp_SUM: {
          const Dtype factor = coeffs_[n];
#pragma GCC ivdep
          for (int i = begin; i < end; ++i) { dx[i] = factor * dy[i]; }
          break;
        }
        case EltwiseParameter_EltwiseOp_MAX: {
          const int* mask = max_idx_.cpu_data();
          for (int i = begin; i < end; ++i) { dx[i] = mask[i] == n ? dy[i] : Dtype(0); }
          break;
        }
        default: LOG(FATAL) << "Eltwise layer " << this->layer_param_.name() << ": unknown operation.";
      }
    });
  }
}

#ifdef CPU_ONLY
STUB_GPU(EltwiseLayer);
#endif

INSTANTIATE_CLASS(EltwiseLayer);
REGISTER_LAYER_CLASS(Eltwise);

}  // namespace caffe
