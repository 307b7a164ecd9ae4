#include "caffe/util/decode_datum.hpp"

#include <opencv2/imgcodecs/imgcodecs.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace caffe {

namespace {

// A JPEG without its end marker: older versions of OpenCV decode it, with grey for the missing part.
bool CutShort(const std::string& data) {
  return data.compare(0, 2, "\xFF\xD8") == 0 && data.rfind("\xFF\xD9") == std::string::npos;
}

}  // namespace

std::string DecodeDatum(const Datum& datum, const int channels, cv::Mat* image) {
  const std::string& data = datum.data();
  if (datum.encoded()) {
    if (data.empty()) { return "its datum holds no image"; }
    if (CutShort(data)) { return "its JPEG is cut short"; }
    const int flags = channels == 3 ? cv::IMREAD_COLOR : channels == 1 ? cv::IMREAD_GRAYSCALE : cv::IMREAD_UNCHANGED;
    try {
      const cv::Mat code(1, static_cast<int>(data.size()), CV_8U, const_cast<char*>(data.data()));
      *image = cv::imdecode(code, flags == cv::IMREAD_UNCHANGED ? flags : flags | cv::IMREAD_IGNORE_ORIENTATION);
    } catch (const cv::Exception& error) { return "its image does not decode: " + error.err; }
    if (image->empty() || image->depth() != CV_8U) {
      return image->empty() ? "its image does not decode" : "its image does not have 8 bits a channel";
    }
    return "";
  }
  const int64_t size =
      int64_t{std::max(datum.channels(), 0)} * std::max(datum.height(), 0) * std::max(datum.width(), 0);
  if (size == 0 || datum.channels() > CV_CN_MAX || static_cast<int64_t>(data.size()) != size) {
    return "its datum holds " + std::to_string(data.size()) + " bytes for " + std::to_string(datum.channels()) + " x " +
           std::to_string(datum.height()) + " x " + std::to_string(datum.width()) + " pixels";
  }
  std::vector<cv::Mat> planes;
  const int area = datum.height() * datum.width();
  for (int c = 0; c < datum.channels(); ++c) {
    planes.emplace_back(datum.height(), datum.width(), CV_8U, const_cast<char*>(data.data()) + c * area);
  }
  cv::merge(planes, *image);
  return "";
}

}  // namespace caffe
