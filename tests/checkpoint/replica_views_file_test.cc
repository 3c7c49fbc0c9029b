#include "server/checkpoint/replica_views_file.h"

#include <functional>
#include <string>

#include "common/random/philox.h"
#include "gtest/gtest.h"
#include "tests/support/simulated_disk.h"

namespace descent {
namespace {

using testing::SimulatedDisk;

std::function<uint64_t(uint64_t)> Draw(uint64_t seed) {
  return [stream = RandomStream(seed, Purpose::kTest, 0, 0), drawn = uint64_t{0}](uint64_t n) mutable {
    return stream.Below(drawn++, n);
  };
}

v1::ReplicaViews Views(uint64_t generation) {
  v1::ReplicaViews views;
  views.set_run(77);
  views.set_generation(generation);
  for (uint64_t view : {4, 7, 5}) {
    views.add_view(view);
    views.add_synced(view != 7);
  }
  return views;
}

TEST(ReplicaViewsFile, KeepsWhatWasWrittenLast) {
  SimulatedDisk disk(Draw(1));
  EXPECT_TRUE(absl::IsNotFound(ReadReplicaViews(&disk).status()));
  ASSERT_TRUE(WriteReplicaViews(&disk, Views(1)).ok());
  ASSERT_TRUE(WriteReplicaViews(&disk, Views(2)).ok());
  disk.Crash();
  const auto read = ReadReplicaViews(&disk);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->SerializeAsString(), Views(2).SerializeAsString());
}

TEST(ReplicaViewsFile, ACrashAtAnyPointLeavesOneOrTheOther) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (uint64_t operation = 0;; ++operation) {
      SimulatedDisk disk(Draw(seed));
      ASSERT_TRUE(WriteReplicaViews(&disk, Views(1)).ok());
      disk.CutPowerAfter(operation);
      const bool written = WriteReplicaViews(&disk, Views(2)).ok();
      disk.Crash();
      const auto read = ReadReplicaViews(&disk);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_GE(read->generation(), written ? 2u : 1u);
      if (written) break;
      ASSERT_LT(operation, 100u);
    }
  }
}

TEST(ReplicaViewsFile, EveryFlippedByteIsFound) {
  SimulatedDisk disk(Draw(1));
  ASSERT_TRUE(WriteReplicaViews(&disk, Views(1)).ok());
  const std::string good = *disk.ReadFile("replica-views", 1000);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    ASSERT_TRUE(disk.Remove("replica-views").ok());
    ASSERT_TRUE(disk.CreateExclusive("replica-views", bad).ok());
    EXPECT_TRUE(absl::IsDataLoss(ReadReplicaViews(&disk).status())) << i;
  }
}

}  // namespace
}  // namespace descent
