#include "caffe/layers/annotated_data_layer.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "caffe/util/io.hpp"
#include "caffe/util/math_functions.hpp"
#include "caffe/util/sampler.hpp"

namespace caffe {

namespace {

bool StrictData() {
  const char* value = std::getenv("SSDLITE_STRICT_DATA");
  return value != nullptr && std::string(value) != "" && std::string(value) != "0";
}

int DataThreads() {
  const int usual = std::min(std::max(static_cast<int>(std::thread::hardware_concurrency()), 1), 8);
  const char* value = std::getenv("SSDLITE_DATA_THREADS");
  if (value == nullptr || std::string(value) == "") { return usual; }
  char* end;
  const long threads = std::strtol(value, &end, 10);
  CHECK(*end == '\0' && threads >= 1 && threads <= 64)
      << "SSDLITE_DATA_THREADS is '" << value << "', must be a number from 1 to 64";
  return static_cast<int>(threads);
}

}  // namespace

template <typename Dtype>
AnnotatedDataLayer<Dtype>::AnnotatedDataLayer(const LayerParameter& param)
    : BasePrefetchingDataLayer<Dtype>(param), strict_(StrictData()) {}

template <typename Dtype>
AnnotatedDataLayer<Dtype>::~AnnotatedDataLayer() {
  this->StopInternalThread();
  pool_.reset();
  LOG_IF(INFO, batches_ > 0) << Where() << ": " << batches_ << " batches, " << waits_ << " of them waited for ("
                             << seconds_waited_ << " s), " << broken_count_ << " broken records skipped";
}

template <typename Dtype>
void AnnotatedDataLayer<Dtype>::CheckParameters() const {
  const AnnotatedDataParameter& param = this->layer_param_.annotated_data_param();
  const TransformationParameter& transform = this->layer_param_.transform_param();
  CHECK_GT(this->layer_param_.data_param().batch_size(), 0)
      << Where() << ": data_param.batch_size is " << this->layer_param_.data_param().batch_size()
      << ", must be 1 or more";
  if (param.has_label_map_file()) {
    struct stat status;
    LabelMap label_map;
    const std::string where = Where() + ": label_map_file " + param.label_map_file();
    CHECK_EQ(stat(param.label_map_file().c_str(), &status), 0) << where << " does not exist";
    CHECK(S_ISREG(status.st_mode) && ReadProtoFromTextFile(param.label_map_file().c_str(), &label_map))
        << where << " is not a label map";
    CHECK_GT(label_map.item_size(), 0) << where << " has no item";
  }
  for (const BatchSampler& batch_sampler : param.batch_sampler()) { CheckBatchSampler(batch_sampler, Where()); }
  if (transform.has_resize_param()) {
    const ResizeParameter& resize = transform.resize_param();
    CHECK(resize.height() > 0 && resize.width() > 0)
        << Where() << ": resize_param needs height and width, has " << resize.height() << " and " << resize.width();
    LOG_IF(WARNING, resize.prob() != 1) << Where() << ": resize_param.prob is " << resize.prob()
                                        << " and is not read: every image is resized";
    const bool cropped = transform.crop_size() || (transform.crop_h() && transform.crop_w());
    CHECK(resize.resize_mode() != ResizeParameter_Resize_mode_FIT_SMALL_SIZE || cropped ||
          this->layer_param_.data_param().batch_size() == 1)
        << Where() << ": FIT_SMALL_SIZE without a crop gives images of several sizes, so batch_size must be 1, not "
        << this->layer_param_.data_param().batch_size();
  }
}

template <typename Dtype>
void AnnotatedDataLayer<Dtype>::DataLayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CheckParameters();
  const int batch_size = this->layer_param_.data_param().batch_size();
  const AnnotatedDataParameter& param = this->layer_param_.annotated_data_param();
  batch_samplers_.assign(param.batch_sampler().begin(), param.batch_sampler().end());
  seed_ = caffe_rng_rand();
  seed_ = seed_ << 32 | caffe_rng_rand();
  source_.reset(new RecordSource(this->layer_param_, this->phase_ == TRAIN ? Caffe::solver_count() : 1));

  // The first record that can be read gives the shapes of the tops.
  LayerParameter first_param = this->layer_param_;
  first_param.set_name(first_param.name() + ", first record");
  RecordSource first(first_param, 1);
  RecordSource::Record record;
  AnnotatedDatum datum;
  cv::Mat image;
  channels_ = this->data_transformer_->WantedChannels();
  for (std::string error = "none"; !error.empty();) {
    first.Next(&record);
    CHECK_EQ(record.pass, 0) << Where() << ": not one record of " << this->layer_param_.data_param().source()
                             << " can be read; the last one: " << error;
    error = Read(record, channels_, &datum, &image);
  }
  // Images without colour or with an alpha channel may follow: all are decoded to the channels of the first.
  channels_ = image.channels() == 1 || !datum.datum().encoded() ? image.channels() : 3;
  annotated_ = datum.has_type() || param.has_anno_type();

  vector<int> shape = this->data_transformer_->InferBlobShape(channels_, image.size());
  shape[0] = batch_size;
  top[0]->Reshape(shape);
  LOG(INFO) << "output data size: " << top[0]->shape_string();
  // Room for one object a batch, so that the memory is allocated before the prefetch thread starts.
  const vector<int> label_shape = {annotated_ ? 1 : batch_size, 1, 1, annotated_ ? 8 : 1};
  if (this->output_labels_) { top[1]->Reshape(label_shape); }
  for (int i = 0; i < this->PREFETCH_COUNT; ++i) {
    this->prefetch_[i].data_.Reshape(shape);
    if (this->output_labels_) { this->prefetch_[i].label_.Reshape(label_shape); }
  }
  // Each of our threads works on its own image; OpenCV's threads would compete with them.
  cv::setNumThreads(1);
  const int threads = DataThreads();
  pool_.reset(new OrderedPool<Item>(
      threads, std::max(2 * threads, batch_size), [this](Item* item) { source_->Next(&item->record); },
      [this](Item* item) { MakeItem(item); }));
}

template <typename Dtype>
std::string AnnotatedDataLayer<Dtype>::Read(const RecordSource::Record& record, int channels, AnnotatedDatum* datum,
                                            cv::Mat* image) const {
  if (!datum->ParseFromString(record.value)) { return "it is not an AnnotatedDatum"; }
  if (!datum->has_datum()) { return "it holds no datum"; }
  for (const ObjectBox& object : ObjectsOf(*datum)) {
    if (!object.box.Finite()) { return "one of its boxes has NaN or Inf"; }
  }
  return this->data_transformer_->Decode(datum->datum(), channels, image);
}

// Runs in the threads of the pool: it must not use Caffe's own random numbers or the GPU.
template <typename Dtype>
void AnnotatedDataLayer<Dtype>::MakeItem(Item* item) const {
  AnnotatedDatum datum;
  cv::Mat image;
  item->objects.clear();
  item->label = 0;
  item->error = Read(item->record, channels_, &datum, &image);
  if (!item->error.empty()) { return; }
  if (image.channels() != channels_) {
    item->error = "its image has " + std::to_string(image.channels()) + " channels, the first record's " +
                  std::to_string(channels_);
    return;
  }
  if (this->output_labels_ && annotated_) {
    if (!datum.has_type() && !this->layer_param_.annotated_data_param().has_anno_type()) {
      item->error = "it has no annotation type";
      return;
    }
    item->objects = ObjectsOf(datum);
  } else if (this->output_labels_) {
    if (!datum.datum().has_label()) {
      item->error = "it has neither annotation type nor label";
      return;
    }
    item->label = datum.datum().label();
  }
  TransformRng rng(seed_, item->record.index);
  try {
    this->data_transformer_->TransformObjects(image, batch_samplers_, &rng, &item->objects, &item->pixels,
                                              &item->shape);
  } catch (const std::exception& error) {
    item->error = std::string("its image cannot be transformed: ") + error.what();
  }
}

template <typename Dtype>
void AnnotatedDataLayer<Dtype>::LeaveOut(const RecordSource::Record& record, const std::string& error) {
  const std::string what = Where() + ": record " + record.key + " of " + this->layer_param_.data_param().source() +
                           " cannot be read: " + error;
  CHECK(!strict_) << what;
  ++left_out_;
  if (broken_keys_.insert(record.key).second) {
    ++broken_count_;
    LOG(WARNING) << what << "; it is skipped (" << broken_count_ << " so far)";
  }
}

template <typename Dtype>
typename AnnotatedDataLayer<Dtype>::Item* AnnotatedDataLayer<Dtype>::NextItem() {
  Item* item = pool_->Next();
  const uint64_t first_pass = item->record.pass;
  while (!item->error.empty()) {
    LeaveOut(item->record, item->error);
    CHECK_LE(item->record.pass, first_pass + 1)
        << Where() << ": no record of " << this->layer_param_.data_param().source() << " could be read in a whole pass";
    pool_->Release();
    item = pool_->Next();
  }
  return item;
}

template <typename Dtype>
void AnnotatedDataLayer<Dtype>::WriteObjects(const vector<vector<ObjectBox>>& objects, Blob<Dtype>* label) const {
  int count = 0;
  for (const vector<ObjectBox>& of_item : objects) { count += of_item.size(); }
  label->Reshape({1, 1, std::max(count, 1), 8});
  Dtype* row = label->mutable_cpu_data();
  if (count == 0) { caffe_set<Dtype>(8, -1, row); }
  for (size_t item_id = 0; item_id < objects.size(); ++item_id) {
    for (const ObjectBox& object : objects[item_id]) {
      const Box& box = object.box;
      for (double value : {double(item_id), double(object.group_label), double(object.instance_id), box.xmin, box.ymin,
                           box.xmax, box.ymax, double(object.difficult)}) {
        *row++ = static_cast<Dtype>(value);
      }
    }
  }
}

// Runs in the prefetch thread.
template <typename Dtype>
void AnnotatedDataLayer<Dtype>::load_batch(Batch<Dtype>* batch) {
  const int batch_size = this->layer_param_.data_param().batch_size();
  vector<vector<ObjectBox>> objects(batch_size);
  vector<Dtype> labels(batch_size);
  for (int i = 0; i < batch_size; ++i) {
    Item* item = NextItem();
    if (i == 0) {
      vector<int> shape = item->shape;
      shape[0] = batch_size;
      batch->data_.Reshape(shape);
    }
    CHECK(std::equal(item->shape.begin() + 1, item->shape.end(), batch->data_.shape().begin() + 1))
        << Where() << ": record " << item->record.key << " gives an image of " << item->shape[2] << " x "
        << item->shape[3] << ", its batch has " << batch->data_.height() << " x " << batch->data_.width()
        << "; a resize_param makes all images the same size";
    std::copy(item->pixels.begin(), item->pixels.end(), batch->data_.mutable_cpu_data() + batch->data_.offset(i));
    objects[i].swap(item->objects);
    labels[i] = item->label;
    pool_->Release();
  }
  if (!this->output_labels_) { return; }
  if (annotated_) {
    WriteObjects(objects, &batch->label_);
  } else {
    std::copy(labels.begin(), labels.end(), batch->label_.mutable_cpu_data());
  }
}

template <typename Dtype>
void AnnotatedDataLayer<Dtype>::CountWait() {
  if (batches_++ > 0 && this->prefetch_full_.size() == 0) {
    const auto start = std::chrono::steady_clock::now();
    this->prefetch_full_.peek();
    seconds_waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    ++waits_;
  }
}

template <typename Dtype>
void AnnotatedDataLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CountWait();
  BasePrefetchingDataLayer<Dtype>::Forward_cpu(bottom, top);
}

template <typename Dtype>
void AnnotatedDataLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CountWait();
  BasePrefetchingDataLayer<Dtype>::Forward_gpu(bottom, top);
}

INSTANTIATE_CLASS(AnnotatedDataLayer);
REGISTER_LAYER_CLASS(AnnotatedData);

}  // namespace caffe
