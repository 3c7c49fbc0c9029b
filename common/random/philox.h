// Philox4x32-10, a counter-based generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC'11, section 3.3 and table 2. A value is a function of (seed, purpose, ids, index) alone, so it does not matter who
// draws it, where, or in which order. The mappings to floats and permutations are ours, because those of the standard
// library differ between libraries. Pure; thread-safe.
#ifndef DESCENT_COMMON_RANDOM_PHILOX_H_
#define DESCENT_COMMON_RANDOM_PHILOX_H_

#include <array>
#include <cstdint>

namespace descent {

// Ten rounds on a 128-bit counter under a 64-bit key.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// What a stream of random numbers is for. Part of the key: never renumber.
enum class Purpose : uint32_t {
  kInitialValue = 1,
  kShardOrder = 2,
  kRowOrder = 3,
  kSampling = 4,
  kTest = 5,
  kGradientNoise = 6,
  kDropout = 8,
  kResampling = 20,
  kSmote = 21,
  kTuning = 30,
  kCurvature = 32,
};

// A random-access stream: element i of the stream named by (seed, purpose, a, b).
class RandomStream {
 public:
  // a takes part with 64 bits, b with 32.
  RandomStream(uint64_t seed, Purpose purpose, uint64_t a, uint32_t b);

  // Four independent words.
  std::array<uint32_t, 4> Block(uint64_t index) const;
  uint64_t Bits64(uint64_t index) const;
  // Uniform in [0, 1), a multiple of 2^-24.
  float Uniform(uint64_t index) const;
  // Standard normal by Box and Muller, computed in double from two 32-bit uniforms of one counter.
  double Normal(uint64_t index) const;
  // Uniform in [0, n), n > 0, by the high half of a 64 x 64 bit product (bias below n / 2^64).
  uint64_t Below(uint64_t index, uint64_t n) const;

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 2> high_;  // upper half of the counter; the lower is the index
};

}  // namespace descent

#endif  // DESCENT_COMMON_RANDOM_PHILOX_H_
