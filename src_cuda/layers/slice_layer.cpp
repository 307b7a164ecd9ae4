#include "caffe/layers/slice_layer.hpp"

#include <vector>

#include "caffe/util/copy_rows.hpp"

// Slice on the CPU: the class and its GPU code are the fork's.
namespace caffe {

template <typename Dtype>
void SliceLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const SliceParameter& param = this->layer_param_.slice_param();
  CHECK(!param.has_axis() || !param.has_slice_dim())
      << "Slice layer " << this->layer_param_.name() << ": give axis or slice_dim, not both.";
  slice_point_.assign(param.slice_point().begin(), param.slice_point().end());
  CHECK(slice_point_.empty() || slice_point_.size() + 1 == top.size())
      << "Slice layer " << this->layer_param_.name() << ": " << top.size() << " tops need " << top.size() - 1
      << " slice_points, or none for equal parts; there are " << slice_point_.size() << ".";
}

template <typename Dtype>
void SliceLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const SliceParameter& param = this->layer_param_.slice_param();
  if (param.has_slice_dim()) {
    CHECK_LT(param.slice_dim(), bottom[0]->num_axes())
        << "Slice layer " << this->layer_param_.name() << ": its bottom has no axis " << param.slice_dim()
        << " (slice_dim).";
    slice_axis_ = param.slice_dim();
  } else {
    slice_axis_ = bottom[0]->CanonicalAxisIndex(param.axis());
  }
  const int all = bottom[0]->shape(slice_axis_), parts = top.size();
  CHECK(!slice_point_.empty() || all % parts == 0)
      << "Slice layer " << this->layer_param_.name() << ": " << all << " does not divide into " << parts << " tops.";
  num_slices_ = bottom[0]->count(0, slice_axis_);
  slice_size_ = bottom[0]->count(slice_axis_ + 1);
  vector<int> shape = bottom[0]->shape();
  int begin = 0;
  for (int i = 0; i < parts; ++i) {
    CHECK(bottom[0] != top[i]) << "Slice layer " << this->layer_param_.name()
                               << ": it needs tops other than its bottom.";
    const int end = slice_point_.empty() ? (i + 1) * (all / parts) : i + 1 < parts ? slice_point_[i] : all;
    CHECK(slice_point_.empty() || begin < end)
        << "Slice layer " << this->layer_param_.name() << ": slice_points must rise, from 1 to " << all - 1 << ".";
    shape[slice_axis_] = end - begin;
    top[i]->Reshape(shape);
    begin = end;
  }
  if (parts == 1) {
    top[0]->ShareData(*bottom[0]);
    top[0]->ShareDiff(*bottom[0]);
  }
}

template <typename Dtype>
void SliceLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (top.size() == 1) { return; }
  const Dtype* from = bottom[0]->cpu_data();
  const int step = bottom[0]->count(slice_axis_);
  for (int i = 0; i < top.size(); ++i) {
    const int size = top[i]->count(slice_axis_);
    CopyRows(num_slices_, size, from, step, top[i]->mutable_cpu_data(), size);
    from += size;
  }
}

template <typename Dtype>
void SliceLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0] || top.size() == 1) { return; }
  Dtype* to = bottom[0]->mutable_cpu_diff();
  const int step = bottom[0]->count(slice_axis_);
  for (int i = 0; i < top.size(); ++i) {
    const int size = top[i]->count(slice_axis_);
    CopyRows(num_slices_, size, top[i]->cpu_diff(), size, to, step);
    to += size;
  }
}

#ifdef CPU_ONLY
STUB_GPU(SliceLayer);
#endif

INSTANTIATE_CLASS(SliceLayer);
REGISTER_LAYER_CLASS(Slice);

}  // namespace caffe
