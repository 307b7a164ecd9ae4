#ifndef CAFFE_UTIL_STREAM_COPY_HPP_
#define CAFFE_UTIL_STREAM_COPY_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace caffe {

/// memcpy for what is not read soon: past the caches where the processor can. EndStreams must follow before another
/// thread reads it.
inline void StreamCopy(const void* from, void* to, size_t bytes) {
#if defined(__SSE2__)
  const char* source = static_cast<const char*>(from);
  char* target = static_cast<char*>(to);
  const size_t head = std::min<size_t>((64 - reinterpret_cast<uintptr_t>(target) % 64) % 64, bytes);
  std::memcpy(target, source, head);
  source += head;
  target += head;
  bytes -= head;
  for (; bytes >= 64; bytes -= 64, source += 64, target += 64) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target), _mm512_loadu_si512(source));
#elif defined(__AVX__)
    for (int i = 0; i < 64; i += 32) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(target + i),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + i)));
    }
#else
    for (int i = 0; i < 64; i += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(target + i),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i)));
    }
#endif
  }
  std::memcpy(target, source, bytes);
#else
  std::memcpy(to, from, bytes);
#endif
}

inline void EndStreams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace caffe

#endif  // CAFFE_UTIL_STREAM_COPY_HPP_
