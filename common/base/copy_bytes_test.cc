#include "common/base/copy_bytes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace descent {
namespace {

TEST(CopyBytes, CopiesEveryByteAndNoMoreAtAnyAddressAndOfAnySize) {
  std::vector<uint8_t> from(9000), to(9000);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(i * 131 % 251 + 1);
  for (const size_t size : {0, 1, 31, 128, 2047, 2048, 2049, 2175, 2176, 4096, 8191}) {
    for (const size_t source : {0, 1, 9, 33}) {
      for (const size_t target : {0, 2, 16, 63, 100}) {
        std::fill(to.begin(), to.end(), 0);
        CopyBytes(to.data() + target, from.data() + source, size);
        for (size_t i = 0; i < to.size(); ++i) {
          const bool copied = i >= target && i < target + size;
          ASSERT_EQ(to[i], copied ? from[i - target + source] : 0)
              << size << ' ' << source << ' ' << target << ' ' << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace descent
