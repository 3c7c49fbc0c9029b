#include "common/numerics/fingerprint.h"

#include <Eigen/Core>

#include "gtest/gtest.h"

namespace descent {
namespace {

TEST(FingerprintTest, IsTheSameEachTimeWhateverTheCachesWereSetTo) {
  const NumericsFingerprint first = ComputeNumericsFingerprint();
  Eigen::setCpuCacheSizes(8 * 1024, 64 * 1024, 256 * 1024);
  EXPECT_EQ(ComputeNumericsFingerprint(), first);
  EXPECT_NE(first.probe, 0u);
  EXPECT_NE(first.build.find("descent "), std::string::npos) << first.build;
  EXPECT_FALSE(first.instruction_set.empty());
}

TEST(FingerprintTest, ProfilesDifferInTheProbeAlone) {
  const NumericsFingerprint plain = ComputeNumericsFingerprint();
  const NumericsFingerprint a = ComputeNumericsFingerprint("a"), b = ComputeNumericsFingerprint("b");
  EXPECT_NE(plain.probe, a.probe);
  EXPECT_NE(a.probe, b.probe);
  EXPECT_EQ(a, ComputeNumericsFingerprint("a"));
  EXPECT_EQ(plain.build, a.build);
  EXPECT_EQ(plain.instruction_set, a.instruction_set);
}

}  // namespace
}  // namespace descent
