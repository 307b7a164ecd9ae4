#ifdef USE_CUDNN
#include "caffe/util/cudnn.hpp"

#include <cstdlib>
#include <map>
#include <memory>
#include <string>

namespace caffe {
namespace cudnn {

namespace {

const float kOneFloat = 1, kZeroFloat = 0;
const double kOneDouble = 1, kZeroDouble = 0;

bool Asked(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && std::string(value) == "1";
}

}  // namespace

const void* dataType<float>::one = &kOneFloat;
const void* dataType<float>::zero = &kZeroFloat;
const void* dataType<double>::one = &kOneDouble;
const void* dataType<double>::zero = &kZeroDouble;

Session& Session::Get() {
  thread_local std::map<int, std::unique_ptr<Session>> sessions;
  int device;
  CUDA_CHECK(cudaGetDevice(&device));
  std::unique_ptr<Session>& session = sessions[device];
  if (!session) { session.reset(new Session()); }
  return *session;
}

Session::Session() : workspace_(nullptr), capacity_(0) { CUDNN_CHECK(cudnnCreate(&handle_)); }

Session::~Session() {
  // At the end of the process the driver may be gone already: errors are ignored.
  cudaFree(workspace_);
  cudnnDestroy(handle_);
}

bool Session::Reserve(size_t bytes) {
  if (bytes <= capacity_) { return true; }
  CUDA_CHECK(cudaFree(workspace_));
  workspace_ = nullptr;
  capacity_ = 0;
  if (cudaMalloc(&workspace_, bytes) != cudaSuccess) {
    workspace_ = nullptr;
    cudaGetLastError();  // clears the error, so that no later check reports it
    return false;
  }
  capacity_ = bytes;
  return true;
}

void* Session::Workspace(size_t bytes) {
  if (bytes == 0) { return nullptr; }
  CHECK(Reserve(bytes)) << "No GPU memory for a cuDNN workspace of " << bytes
                        << " bytes; CAFFE_CUDNN_WORKSPACE_MB limits it.";
  return workspace_;
}

size_t WorkspaceLimit() {
  const char* value = std::getenv("CAFFE_CUDNN_WORKSPACE_MB");
  if (value == nullptr) { return kWorkspaceLimit; }
  char* end;
  const unsigned long long megabytes = std::strtoull(value, &end, 10);
  CHECK(*value >= '0' && *value <= '9' && *end == '\0')
      << "CAFFE_CUDNN_WORKSPACE_MB is '" << value << "', must be a whole number of megabytes.";
  return static_cast<size_t>(megabytes) << 20;
}

cudnnMathType_t MathType() { return Asked("CAFFE_CUDNN_TF32") ? CUDNN_DEFAULT_MATH : CUDNN_FMA_MATH; }

bool Deterministic() { return Asked("CAFFE_CUDNN_DETERMINISTIC"); }

}  // namespace cudnn
}  // namespace caffe
#endif  // USE_CUDNN
