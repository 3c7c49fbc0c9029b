// The numerics fingerprint: what must be equal in two processes for their float arithmetic to give the same bits.
// Every process sends it at registration; SYNC refuses a mixture. Thread-safe.
#ifndef DESCENT_COMMON_NUMERICS_FINGERPRINT_H_
#define DESCENT_COMMON_NUMERICS_FINGERPRINT_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace descent {

struct NumericsFingerprint {
  // Project version, compiler with its version, and a hash of them, the compile flags and the build type. It says how
  // the binary was made, not from which state of the sources: those, too, are equal only where the version is.
  std::string build;
  std::string instruction_set;  // the baseline compiled for, as in "x86-64-v3"
  // Hash of a fixed computation: float GEMM, exp, tanh, a sum, and steps of an update rule. Differs where the C library
  // or the processor makes exp or a product round in another way, which a build id cannot know.
  uint64_t probe = 0;
  bool operator==(const NumericsFingerprint&) const = default;
};

// `profile`: mixed into the probe where it is not empty, so that processes with different profiles refuse each other.
// Takes about a millisecond.
NumericsFingerprint ComputeNumericsFingerprint(absl::string_view profile = "");

// Eigen cuts a product into panels by the sizes of the processor's caches, and with them its bits change. This fixes
// the sizes; every process that multiplies with Eigen calls it before the first product. Idempotent.
void FixEigenCacheSizes();

}  // namespace descent

#endif  // DESCENT_COMMON_NUMERICS_FINGERPRINT_H_
