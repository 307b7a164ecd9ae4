// NumPy's .npy files of float32 values: what `caffe forward` reads and writes.
// Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, versions 1 to 3.
#ifndef SSDLITE_CAFFE_NPY_HPP_
#define SSDLITE_CAFFE_NPY_HPP_

#include <glog/logging.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace npy {

struct Array {
  std::vector<int> shape;
  std::vector<float> values;
};

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicSize = 6;
constexpr size_t kLongestHeader = 1 << 16;
/// More values than a blob can hold, whose count is an int.
constexpr int64_t kMostValues = (int64_t(1) << 31) - 1;

/// What follows `key` in the header, which is a Python dict written by NumPy.
inline std::string Field(const std::string& header, const std::string& key, const std::string& file) {
  const size_t at = header.find("'" + key + "':");
  CHECK(at != std::string::npos) << file << ": its header has no " << key;
  return header.substr(header.find_first_not_of(' ', at + key.size() + 3));
}

/// Reads a file; ends the program with the reason where it is not little-endian float32 in C order.
inline Array Read(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  CHECK(stream) << file << " cannot be read";
  char start[kMagicSize + 2];
  CHECK(stream.read(start, sizeof start) && std::memcmp(start, kMagic, kMagicSize) == 0)
      << file << " is not a .npy file";
  const int version = start[kMagicSize];
  CHECK(version >= 1 && version <= 3) << file << ": version " << version << " of the format is not known";
  unsigned char size[4] = {};
  CHECK(stream.read(reinterpret_cast<char*>(size), version == 1 ? 2 : 4)) << file << " is cut short";
  const size_t length = size[0] | size[1] << 8 | size[2] << 16 | static_cast<size_t>(size[3]) << 24;
  CHECK_LE(length, kLongestHeader) << file << ": its header is too long";
  std::string header(length, ' ');
  CHECK(stream.read(&header[0], length)) << file << " is cut short";
  CHECK_EQ(Field(header, "descr", file).substr(0, 5), "'<f4'") << file << " must hold float32";
  CHECK_EQ(Field(header, "fortran_order", file).substr(0, 5), "False") << file << " must be in C order";
  Array array;
  std::istringstream dims(Field(header, "shape", file).substr(1));
  int64_t count = 1;
  for (int64_t dim; dims >> dim;) {
    CHECK(dim >= 0 && dim <= kMostValues && (dim == 0 || count <= kMostValues / dim)) << file << " is too large";
    array.shape.push_back(static_cast<int>(dim));
    count *= dim;
    dims.ignore(1);  // the comma
  }
  // Read in parts, so that a header that promises more than the file has takes no memory.
  constexpr int64_t kPart = 1 << 20;
  while (static_cast<int64_t>(array.values.size()) < count) {
    const size_t before = array.values.size(), part = static_cast<size_t>(std::min(kPart, count - int64_t(before)));
    array.values.resize(before + part);
    CHECK(stream.read(reinterpret_cast<char*>(&array.values[before]), part * sizeof(float))) << file << " is cut short";
  }
  return array;
}

/// Writes float32 values in C order, under a temporary name first.
inline void Write(const std::string& file, const std::vector<int>& shape, const float* values) {
  std::ostringstream text;
  text << "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  size_t count = 1;
  for (const int dim : shape) {
    text << dim << ", ";
    count *= dim;
  }
  text << "), }";
  std::string header = text.str();
  // Magic, version, length and header together are a multiple of 64 bytes, the last of which is a newline.
  header.append(63 - (kMagicSize + 4 + header.size()) % 64, ' ');
  header.push_back('\n');
  const std::string unfinished = file + ".part";
  std::ofstream stream(unfinished, std::ios::binary);
  const char size[2] = {static_cast<char>(header.size() & 255), static_cast<char>(header.size() >> 8)};
  stream.write(kMagic, kMagicSize).write("\x01\x00", 2).write(size, 2);
  stream << header;
  stream.write(reinterpret_cast<const char*>(values), count * sizeof(float));
  stream.close();
  CHECK(stream && std::rename(unfinished.c_str(), file.c_str()) == 0) << file << " cannot be written";
}

}  // namespace npy

#endif  // SSDLITE_CAFFE_NPY_HPP_
