#include "common/random/philox.h"

#include <cmath>

#include "gtest/gtest.h"

namespace descent {
namespace {

// Known-answer vectors published with Random123 1.14 (kat_vectors, philox4x32 10).
TEST(Philox, PublishedVectors) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, MomentsOfTheMappings) {
  const RandomStream stream(7, Purpose::kTest, 1, 2);
  constexpr int kDraws = 200000;
  double uniform = 0, normal = 0, square = 0;
  for (int i = 0; i < kDraws; ++i) {
    const float u = stream.Uniform(i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    uniform += u;
    const double n = stream.Normal(i);
    ASSERT_TRUE(std::isfinite(n));
    normal += n;
    square += n * n;
    ASSERT_LT(stream.Below(i, 10), 10u);
  }
  EXPECT_NEAR(uniform / kDraws, 0.5, 0.005);
  EXPECT_NEAR(normal / kDraws, 0, 0.01);
  EXPECT_NEAR(square / kDraws, 1, 0.02);
}

TEST(RandomStream, EveryPartOfTheNameMatters) {
  const RandomStream base(7, Purpose::kTest, 1, 2);
  EXPECT_EQ(base.Bits64(3), RandomStream(7, Purpose::kTest, 1, 2).Bits64(3));
  EXPECT_NE(base.Bits64(3), base.Bits64(4));
  EXPECT_NE(base.Bits64(3), RandomStream(8, Purpose::kTest, 1, 2).Bits64(3));
  EXPECT_NE(base.Bits64(3), RandomStream(7, Purpose::kSampling, 1, 2).Bits64(3));
  EXPECT_NE(base.Bits64(3), RandomStream(7, Purpose::kTest, 2, 2).Bits64(3));
  EXPECT_NE(base.Bits64(3), RandomStream(7, Purpose::kTest, 1, 3).Bits64(3));
}

}  // namespace
}  // namespace descent
