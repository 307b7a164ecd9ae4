// What the fork's bbox_util.cu uses of Thrust, on the host's memory.
#ifndef SSDLITE_CAFFE_EMULATOR_THRUST_FUNCTIONAL_H_
#define SSDLITE_CAFFE_EMULATOR_THRUST_FUNCTIONAL_H_

#include <functional>

namespace thrust {
using std::greater;
}

#endif  // SSDLITE_CAFFE_EMULATOR_THRUST_FUNCTIONAL_H_
