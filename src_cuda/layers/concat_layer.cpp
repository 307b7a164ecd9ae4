#include "caffe/layers/concat_layer.hpp"

#include <vector>

#include "caffe/util/copy_rows.hpp"

// Concat on the CPU: the class and its GPU code are the fork's.
namespace caffe {

template <typename Dtype>
void ConcatLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const ConcatParameter& param = this->layer_param_.concat_param();
  CHECK(!param.has_axis() || !param.has_concat_dim())
      << "Concat layer " << this->layer_param_.name() << ": give axis or concat_dim, not both.";
}

template <typename Dtype>
void ConcatLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const ConcatParameter& param = this->layer_param_.concat_param();
  if (param.has_concat_dim()) {
    CHECK_LT(param.concat_dim(), bottom[0]->num_axes())
        << "Concat layer " << this->layer_param_.name() << ": its bottom has no axis " << param.concat_dim()
        << " (concat_dim).";
    concat_axis_ = param.concat_dim();
  } else {
    concat_axis_ = bottom[0]->CanonicalAxisIndex(param.axis());
  }
  vector<int> shape = bottom[0]->shape();
  for (int i = 0; i < bottom.size(); ++i) {
    CHECK(bottom[i] != top[0]) << "Concat layer " << this->layer_param_.name()
                               << ": it needs a top that is none of its bottoms.";
  }
  for (int i = 1; i < bottom.size(); ++i) {
    vector<int> other = bottom[i]->shape();
    CHECK_EQ(shape.size(), other.size()) << "Concat layer " << this->layer_param_.name() << ": bottom " << i << " has "
                                         << other.size() << " axes, bottom 0 has " << shape.size() << ".";
    shape[concat_axis_] += other[concat_axis_];
    other[concat_axis_] = shape[concat_axis_];
    CHECK(shape == other) << "Concat layer " << this->layer_param_.name() << ": bottom " << i << " has shape "
                          << bottom[i]->shape_string() << ", bottom 0 has " << bottom[0]->shape_string()
                          << "; they may differ on axis " << concat_axis_ << " only.";
  }
  num_concats_ = bottom[0]->count(0, concat_axis_);
  concat_input_size_ = bottom[0]->count(concat_axis_ + 1);
  top[0]->Reshape(shape);
  if (bottom.size() == 1) {
    top[0]->ShareData(*bottom[0]);
    top[0]->ShareDiff(*bottom[0]);
  }
}

template <typename Dtype>
void ConcatLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (bottom.size() == 1) { return; }
  Dtype* to = top[0]->mutable_cpu_data();
  const int step = top[0]->count(concat_axis_);
  for (int i = 0; i < bottom.size(); ++i) {
    const int size = bottom[i]->count(concat_axis_);
    CopyRows(num_concats_, size, bottom[i]->cpu_data(), size, to, step);
    to += size;
  }
}

template <typename Dtype>
void ConcatLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                      const vector<Blob<Dtype>*>& bottom) {
  if (bottom.size() == 1) { return; }
  const Dtype* from = top[0]->cpu_diff();
  const int step = top[0]->count(concat_axis_);
  for (int i = 0; i < bottom.size(); ++i) {
    const int size = bottom[i]->count(concat_axis_);
    if (propagate_down[i]) { CopyRows(num_concats_, size, from, step, bottom[i]->mutable_cpu_diff(), size); }
    from += size;
  }
}

#ifdef CPU_ONLY
STUB_GPU(ConcatLayer);
#endif

INSTANTIATE_CLASS(ConcatLayer);
REGISTER_LAYER_CLASS(Concat);

}  // namespace caffe
