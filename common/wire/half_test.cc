#include "common/wire/half.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/random/philox.h"
#include "gtest/gtest.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace descent {
namespace {

uint16_t To(WireEncoding encoding, float x) {
  uint16_t half = 0;
  EncodeHalves(encoding, 1, &x, &half);
  return half;
}
float From(WireEncoding encoding, uint16_t half) {
  float x = 0;
  DecodeHalves(encoding, 1, &half, &x);
  return x;
}

// Each of the 65,536 patterns is a number that comes back as it was.
TEST(Half, EveryPatternComesBack) {
  for (const WireEncoding encoding : {WireEncoding::kFp16, WireEncoding::kBf16}) {
    for (uint32_t pattern = 0; pattern <= 0xffff; ++pattern) {
      const auto half = static_cast<uint16_t>(pattern);
      const float x = From(encoding, half);
      if (std::isnan(x)) {
        EXPECT_TRUE(std::isnan(From(encoding, To(encoding, x))));
      } else {
        ASSERT_EQ(To(encoding, x), half) << x;
      }
    }
  }
}

TEST(Half, ValuesByHand) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(From(WireEncoding::kFp16, 0x3c00), 1.0f);
  EXPECT_EQ(From(WireEncoding::kFp16, 0xc000), -2.0f);
  EXPECT_EQ(From(WireEncoding::kFp16, 0x7bff), 65504.0f);
  EXPECT_EQ(From(WireEncoding::kFp16, 0x0001), 0x1p-24f);
  EXPECT_EQ(From(WireEncoding::kFp16, 0x03ff), 0x1.ff8p-15f);
  EXPECT_EQ(From(WireEncoding::kFp16, 0x7c00), kInfinity);
  EXPECT_EQ(To(WireEncoding::kFp16, 65519.9f), 0x7bff);
  EXPECT_EQ(To(WireEncoding::kFp16, 65520.0f), 0x7c00) << "half way to 65536: to even, beyond all that is finite";
  EXPECT_EQ(To(WireEncoding::kFp16, -1e30f), 0xfc00);
  EXPECT_EQ(To(WireEncoding::kFp16, 1 + 0x1p-11f), 0x3c00) << "half way: to even";
  EXPECT_EQ(To(WireEncoding::kFp16, 1 + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(To(WireEncoding::kFp16, 0x1p-25f), 0x0000) << "half way to the smallest";
  EXPECT_EQ(To(WireEncoding::kFp16, 0x1.8p-25f), 0x0001);
  EXPECT_EQ(To(WireEncoding::kFp16, -0.0f), 0x8000);
  EXPECT_EQ(To(WireEncoding::kBf16, 1 + 0x1p-8f), 0x3f80) << "half way: to even";
  EXPECT_EQ(To(WireEncoding::kBf16, 1 + 3 * 0x1p-8f), 0x3f82);
  EXPECT_EQ(To(WireEncoding::kBf16, std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(From(WireEncoding::kBf16, To(WireEncoding::kBf16, std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(From(WireEncoding::kFp16, To(WireEncoding::kFp16, std::bit_cast<float>(0x7f800001u)))));
}

// The nearest of the two neighbours, whichever the number.
TEST(Half, RoundsToTheNearest) {
  const RandomStream random(1, Purpose::kTest, 0, 0);
  for (uint64_t i = 0; i < 200000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<uint32_t>(random.Bits64(i)));
    if (!std::isfinite(x)) continue;
    for (const WireEncoding encoding : {WireEncoding::kFp16, WireEncoding::kBf16}) {
      const uint16_t half = To(encoding, x);
      const double error = std::fabs(static_cast<double>(x) - From(encoding, half));
      if (!std::isfinite(From(encoding, half))) continue;
      for (const int step : {-1, 1}) {
        const float other = From(encoding, static_cast<uint16_t>(half + step));
        if (!std::isfinite(other)) continue;
        ASSERT_LE(error, std::fabs(static_cast<double>(x) - other)) << x;
      }
    }
#if defined(__F16C__)
    const auto want = static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), 0)));
    ASSERT_EQ(To(WireEncoding::kFp16, x), want) << x;
#endif
  }
}

TEST(Half, RunsAtAnyAddress) {
  std::vector<float> x(37);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i)) * std::exp(static_cast<float>(i % 9));
  for (const WireEncoding encoding : {WireEncoding::kFp16, WireEncoding::kBf16}) {
    std::vector<unsigned char> bytes(2 * x.size() + 1), from(4 * x.size() + 1);
    std::memcpy(from.data() + 1, x.data(), 4 * x.size());
    EncodeHalves(encoding, x.size(), reinterpret_cast<const float*>(from.data() + 1), bytes.data() + 1);
    std::vector<float> back(x.size()), rounded = x;
    DecodeHalves(encoding, x.size(), bytes.data() + 1, back.data());
    RoundToWire(encoding, rounded.size(), rounded.data());
    EXPECT_EQ(back, rounded);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(back[i], From(encoding, To(encoding, x[i])));
  }
}

}  // namespace
}  // namespace descent
