// What tests ask the emulator: what it found, and how often memory was copied.
#ifndef SSDLITE_CAFFE_EMULATOR_EMULATOR_HPP_
#define SSDLITE_CAFFE_EMULATOR_EMULATOR_HPP_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

/// A mistake of a kernel, or of the code that launches it: one line for each kind, kernel and line of code.
struct Finding {
  std::string kind;  // "race", "unwritten", "out of bounds", ...
  std::string text;
};

/// The findings since the last call.
std::vector<Finding> TakeFindings();

/// The order of blocks and threads follows from this. The environment variable EMULATOR_SEED sets the first.
void SetSeed(uint32_t seed);

/// Copies since the program began. Those between host and device each make the host wait for the device; a sum or a
/// product that cuBLAS returns is one, too.
struct Copies {
  std::vector<size_t> to_device, to_host;  // sizes in bytes
  size_t within_device;
  size_t launches;
};
const Copies& AllCopies();

}  // namespace emulator

#endif  // SSDLITE_CAFFE_EMULATOR_EMULATOR_HPP_
