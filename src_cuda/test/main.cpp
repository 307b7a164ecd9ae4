// main of caffe_layer_tests. In a GPU build each test of a device runs four times: on the CPU with floats and doubles,
// and on the GPU; on a machine without a GPU the first two.
#include <iostream>

#include "caffe/common.hpp"
#include "caffe/test/test_caffe_main.hpp"

int main(int argc, char** argv) {
#ifndef CPU_ONLY
  // A test of an error that ends the program runs in a process of its own; a fork cannot use CUDA where its parent has.
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::cout << "No GPU: its tests are skipped (" << cudaGetErrorString(error) << ")." << std::endl;
    // The third and fourth of TestDtypesAndDevices; those that run the fork's mining, which a GPU build does on the GPU
    // whatever the mode; and one that sets the mode to GPU, in which a GPU build takes memory from CUDA. A filter on
    // the command line takes this one's place.
    ::testing::GTEST_FLAG(filter) = "-*/2.*:*/3.*:*MultiBoxLossEqualsTheForks:*LossForgetsThePassBefore";
  }
#endif
  ::testing::InitGoogleTest(&argc, argv);
  caffe::GlobalInit(&argc, &argv);
  return RUN_ALL_TESTS();
}
