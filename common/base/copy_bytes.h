// memcpy for large pieces, at the speed of the machine's memory wherever they lie.
//
// Problem: glibc copies 2 KiB to about 1 MiB by `rep movsb`, which Zen 3 runs at 3 GB/s instead of 40 where the
// destination lies 1 to 31 bytes behind the source modulo 4,096. Payloads meet that case for a run's whole length,
// since pieces and blocks keep their distance (docs/performance.md). Vector moves know no such case.
#ifndef DESCENT_COMMON_BASE_COPY_BYTES_H_
#define DESCENT_COMMON_BASE_COPY_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace descent {

// Copies `n` bytes; the two ranges must not overlap. Addresses are free.
inline void CopyBytes(void* to, const void* from, size_t n) {
  typedef uint64_t Lanes __attribute__((vector_size(32), aligned(1), may_alias));
  constexpr size_t kStep = 4 * sizeof(Lanes);
  constexpr size_t kLarge = 2048;  // below, memcpy takes vectors itself
  if (n < kLarge) {
    asm("" : "+r"(n));  // the bound known, g++ would write `rep movsq` in the call's place
    std::memcpy(to, from, n);
    return;
  }
  const auto step = [&](size_t at) {
    // Not auto, which deduces aligned vectors.
    const Lanes* x = reinterpret_cast<const Lanes*>(static_cast<const std::byte*>(from) + at);
    Lanes* y = reinterpret_cast<Lanes*>(static_cast<std::byte*>(to) + at);
    const Lanes a = x[0], b = x[1], c = x[2], d = x[3];
    y[0] = a, y[1] = b, y[2] = c, y[3] = d;
  };
  size_t at = 0;
  for (; at + kStep <= n; at += kStep) step(at);
  step(n - kStep);  // the rest, over bytes that are there already
}

}  // namespace descent

#endif  // DESCENT_COMMON_BASE_COPY_BYTES_H_
