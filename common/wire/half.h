// Floats as 16 bits on the wire, rounded to the nearest, halves to even. IEEE 754 binary16: from 65520 up infinite,
// below 2^-14 in steps of 2^-24. bfloat16: the upper half of a float. Elementwise, so that the bits of an element do
// not depend on where a run begins or ends. Pure; thread-safe.
#ifndef DESCENT_COMMON_WIRE_HALF_H_
#define DESCENT_COMMON_WIRE_HALF_H_

#include <cstddef>
#include <cstdint>

namespace descent {

enum class WireEncoding : uint8_t { kF32 = 0, kFp16 = 1, kBf16 = 2 };
inline constexpr size_t BytesPerFloat(WireEncoding encoding) { return encoding == WireEncoding::kF32 ? 4 : 2; }

// `in` and `out` may lie at any address, and may not overlap. Not for kF32.
void EncodeHalves(WireEncoding encoding, size_t n, const float* in, void* out);
void DecodeHalves(WireEncoding encoding, size_t n, const void* in, float* out);
// What is left of x after both ways; kF32: x.
void RoundToWire(WireEncoding encoding, size_t n, float* x);

}  // namespace descent

#endif  // DESCENT_COMMON_WIRE_HALF_H_
