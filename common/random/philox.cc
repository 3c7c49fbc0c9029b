#include "common/random/philox.h"

#include <cmath>
#include <numbers>

namespace descent {
namespace {

// A bijection of 64 bits (the finaliser of splitmix64), so that neighbouring seeds and ids give unrelated keys.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

RandomStream::RandomStream(uint64_t seed, Purpose purpose, uint64_t a, uint32_t b) {
  const uint64_t key = Mix(seed + 0x9e3779b97f4a7c15u * (static_cast<uint64_t>(purpose) + 1));
  const uint64_t high = Mix(a + 0x9e3779b97f4a7c15u) + b;
  key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
  high_ = {static_cast<uint32_t>(high), static_cast<uint32_t>(high >> 32)};
}

std::array<uint32_t, 4> RandomStream::Block(uint64_t index) const {
  return Philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), high_[0], high_[1]}, key_);
}

uint64_t RandomStream::Bits64(uint64_t index) const {
  const auto block = Block(index);
  return block[0] | (uint64_t{block[1]} << 32);
}

float RandomStream::Uniform(uint64_t index) const { return static_cast<float>(Block(index)[0] >> 8) * 0x1p-24f; }

double RandomStream::Normal(uint64_t index) const {
  const auto block = Block(index);
  const double radius = std::sqrt(-2 * std::log((block[0] + 0.5) * 0x1p-32));
  return radius * std::cos(2 * std::numbers::pi * ((block[1] + 0.5) * 0x1p-32));
}

uint64_t RandomStream::Below(uint64_t index, uint64_t n) const {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(Bits64(index)) * n) >> 64);
}

}  // namespace descent
