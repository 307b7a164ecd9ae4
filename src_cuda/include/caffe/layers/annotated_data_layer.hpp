#ifndef CAFFE_ANNOTATED_DATA_LAYER_HPP_
#define CAFFE_ANNOTATED_DATA_LAYER_HPP_

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/data_transformer.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/base_data_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/util/ordered_pool.hpp"
#include "caffe/util/record_source.hpp"

namespace caffe {

/**
 * @brief Feeds images and their objects from a database of AnnotatedDatum.
 *
 * Tops: the images, N x C x H x W (see DataTransformer for what is done to them), and, where a second top is named,
 * the objects, 1 x 1 x K x 8 for the K objects of the batch, one a row:
 *   item_id, group_label, instance_id, xmin, ymin, xmax, ymax, difficult
 * with item_id the image's index in the batch and the box in units of the image. A batch without objects has one
 * row of -1. Records without annotation type give their datum's label instead, N x 1 x 1 x 1.
 *
 * Records come in the order of their keys, pass after pass. Random values of a record depend on the seed of the layer,
 * which Caffe's random_seed gives, and on the record's number in that sequence alone, not on the thread that processes
 * it. A run can be repeated exactly with any number of threads. Threads decode and transform ahead of the net:
 * SSDLITE_DATA_THREADS of them, by default as many as there are processors, 8 at most.
 *
 * A record that cannot be read (it is not an AnnotatedDatum, its image does not decode, a box has NaN or Inf) is left
 * out, and a warning names its key the first time. With SSDLITE_STRICT_DATA=1 in the environment it ends the run.
 */
template <typename Dtype>
class AnnotatedDataLayer : public BasePrefetchingDataLayer<Dtype> {
 public:
  explicit AnnotatedDataLayer(const LayerParameter& param);
  virtual ~AnnotatedDataLayer();
  virtual void DataLayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual inline bool ShareInParallel() const { return false; }
  virtual inline const char* type() const { return "AnnotatedData"; }
  virtual inline int ExactNumBottomBlobs() const { return 0; }
  virtual inline int MinTopBlobs() const { return 1; }
  virtual inline int MaxTopBlobs() const { return 2; }
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);

  // Batches after the first that the net had to wait for, and for how long.
  int batches_waited_for() const { return waits_; }
  double seconds_waited() const { return seconds_waited_; }
  // Different records skipped, and how often that happened in all passes.
  int broken_records() const { return broken_count_; }
  int records_left_out() const { return left_out_; }

 protected:
  // A record on its way through the pool.
  struct Item {
    RecordSource::Record record;
    std::string error;  // why it cannot be used
    int label = 0;      // of the datum, for records without annotation type
    std::vector<ObjectBox> objects;
    std::vector<Dtype> pixels;
    std::vector<int> shape;
  };

  virtual void load_batch(Batch<Dtype>* batch);
  std::string Where() const { return "AnnotatedData layer '" + this->layer_param_.name() + "'"; }
  void CheckParameters() const;
  // Parses and decodes; returns what is wrong with the record, or an empty string.
  std::string Read(const RecordSource::Record& record, int channels, AnnotatedDatum* datum, cv::Mat* image) const;
  void MakeItem(Item* item) const;
  // The next item of the pool that can be used.
  Item* NextItem();
  void LeaveOut(const RecordSource::Record& record, const std::string& error);
  void CountWait();
  void WriteObjects(const vector<vector<ObjectBox>>& objects, Blob<Dtype>* label) const;

  std::unique_ptr<RecordSource> source_;
  std::unique_ptr<OrderedPool<Item>> pool_;
  vector<BatchSampler> batch_samplers_;
  bool annotated_ = false;  // objects in the second top, or labels
  int channels_ = 0;
  uint64_t seed_ = 0;
  const bool strict_;
  std::set<std::string> broken_keys_;
  std::atomic<int> broken_count_{0}, left_out_{0};
  int batches_ = 0, waits_ = 0;
  double seconds_waited_ = 0;
};

}  // namespace caffe

#endif  // CAFFE_ANNOTATED_DATA_LAYER_HPP_
