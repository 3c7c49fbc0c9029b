#include "server/store/kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace descent {
namespace {
typedef uint32_t UnalignedWord __attribute__((aligned(1), may_alias));
constexpr uint32_t kMagnitude = 0x7fffffffu, kInfinity = 0x7f800000u;  // a NaN's magnitude is above
}  // namespace

bool AllFinite(size_t n, const float* x) {
  // Not auto, which deduces a plain uint32_t, aligned and without the right to alias.
  const UnalignedWord* words = reinterpret_cast<const UnalignedWord*>(x);
  uint32_t largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max<uint32_t>(largest, words[i] & kMagnitude);
  return largest < kInfinity;
}

void AddTo(size_t n, const float* x, float* sum) {
  const UnalignedFloat* in = x;
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) sum[i] += in[i];
}

bool CopyFinite(size_t n, const float* x, float* out) {
  const UnalignedWord* in = reinterpret_cast<const UnalignedWord*>(x);
  UnalignedWord* to = reinterpret_cast<UnalignedWord*>(out);
  uint32_t largest = 0;
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const uint32_t word = in[i];
    to[i] = word;
    largest = std::max<uint32_t>(largest, word & kMagnitude);
  }
  return largest < kInfinity;
}

bool AddFinite(size_t n, const float* x, const float* y, float* out) {
  const UnalignedFloat* in = x;
  uint32_t largest = 0;
  DESCENT_INDEPENDENT_ITERATIONS
  for (size_t i = 0; i < n; ++i) {
    const float sum = y[i] + in[i];
    out[i] = sum;
    largest = std::max<uint32_t>(largest, std::bit_cast<uint32_t>(sum) & kMagnitude);
  }
  return largest < kInfinity;
}

void SquareSum::Add(size_t begin, size_t n, const float* x, float scale) {
  const UnalignedFloat* in = x;
  size_t i = 0;
  for (; i < n && (begin + i) % 8 != 0; ++i) {
    const double v = in[i] * scale;
    lanes_[(begin + i) % 8] += v * v;
  }
  double lanes[8];
  std::memcpy(lanes, lanes_, sizeof(lanes));
  for (; i + 8 <= n; i += 8) {
    for (size_t k = 0; k < 8; ++k) {
      const double v = in[i + k] * scale;
      lanes[k] += v * v;
    }
  }
  std::memcpy(lanes_, lanes, sizeof(lanes));
  for (; i < n; ++i) {
    const double v = in[i] * scale;
    lanes_[(begin + i) % 8] += v * v;
  }
}

double SquareSum::sum() const {
  return ((lanes_[0] + lanes_[1]) + (lanes_[2] + lanes_[3])) + ((lanes_[4] + lanes_[5]) + (lanes_[6] + lanes_[7]));
}

}  // namespace descent
