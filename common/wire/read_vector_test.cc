#include "common/wire/read_vector.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

BlockId Slot(uint32_t table, uint32_t index) { return BlockId{TensorId(table), index}; }

TEST(ReadVector, ComesBackAsItWas) {
  const uint64_t most = ~uint64_t{0};
  for (const ReadVector& read : {
           ReadVector{},
           ReadVector{{7, 7, 7, 8, 7}, {}},
           ReadVector{{},
                      {{Slot(0, 5), 3, 9}, {Slot(0, 6), 2, 9}, {Slot(3, 0), 0, 0}, {Slot(3, 1u << 20), most, most}}},
           ReadVector{{0, most, 0}, {{Slot(0, 0), 1, 2}}},
       }) {
    const auto back = DecodeRead(EncodeRead(read));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(*back, read);
  }
}

TEST(ReadVector, VersionsThatAreEqualTakeNoRoom) {
  ReadVector read;
  read.dense.assign(100000, 123456);
  EXPECT_LT(EncodeRead(read).size(), 12u);
}

TEST(ReadVector, MalformedBytesAreRefusedAndNeverCrash) {
  const std::string good = EncodeRead({{4, 4, 9}, {{Slot(1, 2), 3, 4}, {Slot(1, 7), 300, 4}}});
  for (size_t n = 0; n < good.size(); ++n) {
    EXPECT_EQ(DecodeRead(good.substr(0, n)).status().code(), absl::StatusCode::kInvalidArgument) << n << " bytes";
  }
  EXPECT_FALSE(DecodeRead(good + "x").ok());
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = good;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      const auto read = DecodeRead(flipped, 1000);
      if (read.ok()) {
        EXPECT_NE(EncodeRead(*read), good);
      }
    }
  }
  // A run that would take more memory than there is.
  EXPECT_THAT(DecodeRead("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02", 1000).status().message(),
              ::testing::HasSubstr("a run of 18446744073709551615 blocks after 0"));
}

TEST(ReadVector, DigestsTellOneFromAnother) {
  EXPECT_NE(ReadDigest(EncodeRead({{1, 1}, {}})), ReadDigest(EncodeRead({{1, 2}, {}})));
}

}  // namespace
}  // namespace descent
