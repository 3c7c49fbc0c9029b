#include "common/wire/half.h"

#include <bit>
#include <cstring>

namespace descent {
namespace {

typedef float UnalignedFloat __attribute__((aligned(1)));
typedef uint16_t UnalignedHalf __attribute__((aligned(1), may_alias));

uint16_t ToBf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : rounded);
}

float FromBf16(uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); }

uint16_t ToFp16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t size = bits & 0x7fffffffu;
  // 113 is the exponent of 2^-14. Added to 0.5, whose last bit is worth 2^-24, a smaller number is rounded to one of
  // these.
  const uint32_t small = std::bit_cast<uint32_t>(std::bit_cast<float>(size) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  const uint32_t normal = (size - (112u << 23) + 0xfffu + ((size >> 13) & 1)) >> 13;
  const uint32_t large = size > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t half = size < (113u << 23) ? small : size < (143u << 23) ? normal : large;
  return static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u));
}

float FromFp16(uint16_t x) {
  const uint32_t size = (x & 0x7fffu) << 13;
  const uint32_t normal = size + (112u << 23);
  // A number without a leading one: with it, less what that is worth.
  const uint32_t small = std::bit_cast<uint32_t>(std::bit_cast<float>(size + (113u << 23)) - 0x1p-14f);
  const uint32_t large = size + (224u << 23);
  const uint32_t bits = size < (1u << 23) ? small : size < (31u << 23) ? normal : large;
  return std::bit_cast<float>(bits | (uint32_t{x} & 0x8000u) << 16);
}

template <uint16_t (*kTo)(float)>
void Encode(size_t n, const float* in, void* out) {
  const UnalignedFloat* from = in;
  UnalignedHalf* to = static_cast<UnalignedHalf*>(out);  // not auto, which deduces aligned ones
  for (size_t i = 0; i < n; ++i) to[i] = kTo(from[i]);
}

template <float (*kFrom)(uint16_t)>
void Decode(size_t n, const void* in, float* out) {
  const UnalignedHalf* from = static_cast<const UnalignedHalf*>(in);
  UnalignedFloat* to = out;
  for (size_t i = 0; i < n; ++i) to[i] = kFrom(from[i]);
}

}  // namespace

void EncodeHalves(WireEncoding encoding, size_t n, const float* in, void* out) {
  return encoding == WireEncoding::kFp16 ? Encode<ToFp16>(n, in, out) : Encode<ToBf16>(n, in, out);
}

void DecodeHalves(WireEncoding encoding, size_t n, const void* in, float* out) {
  return encoding == WireEncoding::kFp16 ? Decode<FromFp16>(n, in, out) : Decode<FromBf16>(n, in, out);
}

void RoundToWire(WireEncoding encoding, size_t n, float* x) {
  if (encoding == WireEncoding::kF32) return;
  for (size_t i = 0; i < n; ++i)
    x[i] = encoding == WireEncoding::kFp16 ? FromFp16(ToFp16(x[i])) : FromBf16(ToBf16(x[i]));
}

}  // namespace descent
