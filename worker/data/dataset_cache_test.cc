// The shard cache: made once, found again, repaired, evicted, and done without.
#include "worker/data/dataset_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/data_test_util.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kSpec[] = "libsvm { path: 'a.svm' features: 9 }";

class DatasetCacheTest : public DataTest {
 protected:
  void SetUp() override {
    DataTest::SetUp();
    options_.shard_rows = 2;
    Write("a.svm", "1 1:1\n2 2:2\n3 3:3\n4 4:4\n5 5:5\n");
  }
  std::vector<std::string> Sets() { return *ListFolder(absl::StrCat(folder_, "/cache/sets")); }
  std::string ShardFile(const std::string& set, int index) {
    return absl::StrCat(folder_, "/cache/sets/", set, "/00000", index, ".shard");
  }
  const std::string all_ = "1: 0=1; 2: 1=2; 3: 2=3; 4: 3=4; 5: 4=5";
};

TEST_F(DatasetCacheTest, SecondOpenReadsTheShards) {
  EXPECT_EQ(Contents(kSpec), all_);
  ASSERT_THAT(Sets(), SizeIs(1));
  EXPECT_THAT(*ListFolder(absl::StrCat(folder_, "/cache/sets/", Sets()[0])),
              ElementsAre("000000.shard", "000001.shard", "000002.shard", "manifest"));
  struct stat before, after;
  ASSERT_EQ(::stat(ShardFile(Sets()[0], 0).c_str(), &before), 0);
  EXPECT_EQ(Contents(kSpec), all_);
  ASSERT_EQ(::stat(ShardFile(Sets()[0], 0).c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  // Also under another name: contents count.
  Write("b.svm", *ReadFile(absl::StrCat(folder_, "/a.svm")));
  auto data = Open("libsvm { path: 'b.svm' features: 9 }");
  ASSERT_TRUE(data.ok());
  EXPECT_EQ((*data)->files()[0].name, "b.svm");
  EXPECT_THAT(Sets(), SizeIs(1));
}

TEST_F(DatasetCacheTest, OtherContentsOrOptionsAreAnotherDataSet) {
  EXPECT_EQ(Contents(kSpec), all_);
  EXPECT_EQ(Contents("libsvm { path: 'a.svm' features: 9 zero_based: true }"),
            "1: 1=1; 2: 2=2; 3: 3=3; 4: 4=4; 5: 5=5");
  EXPECT_THAT(Sets(), SizeIs(2));
  Write("a.svm", "7 1:1\n2 2:2\n3 3:3\n4 4:4\n5 5:5\n");
  EXPECT_EQ(Contents(kSpec), "7: 0=1; 2: 1=2; 3: 2=3; 4: 3=4; 5: 4=5");
  EXPECT_THAT(Sets(), SizeIs(3));
}

TEST_F(DatasetCacheTest, DamagedShardIsMadeAgain) {
  options_.memory_bytes = 0;  // every read is one of the disk
  auto data = Open(kSpec);
  ASSERT_TRUE(data.ok()) << data.status();
  const std::string path = ShardFile(Sets()[0], 1);
  const std::string whole = *ReadFile(path);
  for (const size_t at : {size_t{0}, size_t{9}, size_t{40}, whole.size() - 100}) {
    std::string damaged = whole;
    damaged[at] ^= 1;
    ASSERT_TRUE(WriteFileAtomically(path, damaged).ok());
    EXPECT_EQ(Text(ReadAll(**data)), all_);
    EXPECT_EQ(*ReadFile(path), whole);
  }
  ASSERT_TRUE(WriteFileAtomically(path, whole.substr(0, 50)).ok());
  EXPECT_EQ(Text(ReadAll(**data)), all_);
  ASSERT_TRUE(RemoveTree(path).ok());
  EXPECT_EQ(Text(ReadAll(**data)), all_);
  ASSERT_THAT((*data)->Notes(), SizeIs(6));
  EXPECT_EQ((*data)->Notes()[0], absl::StrCat(path, ": damaged: not a whole data shard; made again from a.svm"));
  EXPECT_EQ((*data)->Notes()[4], absl::StrCat(path, ": damaged: too short; made again from a.svm"));
  EXPECT_EQ((*data)->Notes()[5], absl::StrCat(path, ": No such file or directory; made again from a.svm"));
}

TEST_F(DatasetCacheTest, DamagedShardOfChangedFilesIsDataLoss) {
  options_.memory_bytes = 0;
  auto data = Open(kSpec);
  ASSERT_TRUE(data.ok()) << data.status();
  const std::string path = ShardFile(Sets()[0], 1);
  ASSERT_TRUE(WriteFileAtomically(path, "short").ok());
  Write("a.svm", "1 1:1\n2 2:2\n9 3:3\n4 4:4\n5 5:5\n");
  Batch batch;
  EXPECT_EQ((*data)->Read({2}, &batch),
            absl::DataLossError(
                absl::StrCat(path, ": damaged: too short; it can't be made again: the data files have changed")));
  Write("a.svm", "nonsense\n");
  EXPECT_EQ(
      (*data)->Read({2}, &batch),
      absl::DataLossError(absl::StrCat(
          path, ": damaged: too short; it can't be made again: a.svm:1: label 'nonsense' is not a finite number")));
  EXPECT_TRUE((*data)->Read({0, 4}, &batch).ok());
}

TEST_F(DatasetCacheTest, DamagedManifestIsMadeAgain) {
  EXPECT_EQ(Contents(kSpec), all_);
  const std::string manifest = absl::StrCat(folder_, "/cache/sets/", Sets()[0], "/manifest");
  const std::string whole = *ReadFile(manifest);
  std::string damaged = whole;
  damaged[25] ^= 1;
  for (const std::string& text : {damaged, std::string(), whole.substr(0, 30)}) {
    ASSERT_TRUE(WriteFileAtomically(manifest, text).ok());
    EXPECT_EQ(Contents(kSpec), all_);
    EXPECT_EQ(*ReadFile(manifest), whole);
  }
}

TEST_F(DatasetCacheTest, MemoryBudgetIsKeptByReadingAgain) {
  EXPECT_EQ(Contents(kSpec), all_);
  options_.memory_bytes = 1000;  // about two shards
  auto data = Open(kSpec);
  ASSERT_TRUE(data.ok());
  for (int pass = 0; pass < 3; ++pass) EXPECT_EQ(Text(ReadAll(**data)), all_);
}

TEST_F(DatasetCacheTest, OldestDataSetsGoFirstAndThoseInUseStay) {
  const auto size = [&] {
    EXPECT_EQ(Contents(kSpec), all_);
    uint64_t bytes = 0;
    for (int i = 0; i < 3; ++i) bytes += IdentifyFile(ShardFile(Sets()[0], i))->bytes;
    return bytes;
  }();
  const std::string first = Sets()[0];
  auto use = [&](int zero_based, int features) {
    return absl::StrCat("libsvm { path: 'a.svm' features: ", features, " zero_based: ", zero_based, " }");
  };
  auto age = [&](const std::string& set, int seconds) {
    const timespec times[2] = {{1000000000 - seconds, 0}, {1000000000 - seconds, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, absl::StrCat(folder_, "/cache/sets/", set, "/manifest").c_str(), times, 0), 0);
  };
  age(first, 10);
  ASSERT_TRUE(Open(use(1, 10)).ok());
  std::string second = Sets()[0] == first ? Sets()[1] : Sets()[0];
  age(second, 20);                  // the oldest
  options_.cache_bytes = 3 * size;  // room for two data sets, and not for the manifests of a third
  {
    auto third = Open(use(1, 11));
    ASSERT_TRUE(third.ok());
    EXPECT_THAT((*third)->Notes(), IsEmpty());
    EXPECT_THAT(Sets(), SizeIs(2));
    EXPECT_THAT(Sets(), ::testing::Contains(first));
    // Two in use leave no room: kept in memory.
    auto fourth = Open(kSpec);
    ASSERT_TRUE(fourth.ok());
    options_.cache_bytes = 2 * size;
    auto fifth = Open(use(1, 12));
    ASSERT_TRUE(fifth.ok());
    ASSERT_THAT((*fifth)->Notes(), SizeIs(1));
    EXPECT_THAT((*fifth)->Notes()[0],
                ::testing::MatchesRegex("a.svm: kept in memory alone, because it can't be cached: "
                                        ".*/cache: over its budget of [0-9]+ bytes "
                                        "\\(data.cache_bytes\\), of which data sets in use have "
                                        "[0-9]+"));
    EXPECT_EQ(Text(ReadAll(**fifth)), "1: 1=1; 2: 2=2; 3: 3=3; 4: 4=4; 5: 5=5");
    EXPECT_THAT(Sets(), SizeIs(2));
  }
}

TEST_F(DatasetCacheTest, WithoutACacheItStaysInMemoryOrSaysWhy) {
  Write("file", "");
  options_.cache_dir = absl::StrCat(folder_, "/file/cache");
  {
    auto data = Open(kSpec);
    ASSERT_TRUE(data.ok()) << data.status();
    EXPECT_EQ(Text(ReadAll(**data)), all_);
    EXPECT_THAT((*data)->Notes(), ElementsAre(absl::StrCat("a.svm: kept in memory alone, because it can't be cached: ",
                                                           folder_, "/file: is a file, not a folder")));
  }
  options_.memory_bytes = 300;
  EXPECT_EQ(Failure(kSpec),
            absl::StrCat("RESOURCE_EXHAUSTED: a.svm: the data need more than the 300 bytes of memory they "
                         "may take, and can't be cached: ",
                         folder_, "/file: is a file, not a folder"));
  options_.cache_dir = absl::StrCat(folder_, "/cache");
  options_.cache_bytes = 600;
  EXPECT_EQ(Failure(kSpec),
            absl::StrCat("RESOURCE_EXHAUSTED: a.svm: the data need more than the 300 bytes of memory they "
                         "may take, and can't be cached: ",
                         folder_, "/cache: over its budget of 600 bytes (data.cache_bytes)"));
  EXPECT_THAT(Sets(), IsEmpty());
  options_.cache_dir.clear();
  options_.memory_bytes = 1 << 20;
  EXPECT_EQ(Contents(kSpec), all_);
}

TEST_F(DatasetCacheTest, WhatACrashLeftIsRemoved) {
  EXPECT_EQ(Contents(kSpec), all_);
  const std::string set = absl::StrCat(folder_, "/cache/sets/", Sets()[0]);
  ASSERT_EQ(::rename(set.c_str(), (set + ".building").c_str()), 0);
  ASSERT_TRUE(RemoveTree(set + ".building/manifest").ok());
  EXPECT_EQ(Contents(kSpec), all_);
  EXPECT_THAT(Sets(), SizeIs(1));
}

TEST_F(DatasetCacheTest, ManyOpenAndReadAtOnce) {
  options_.memory_bytes = 1000;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      for (int pass = 0; pass < 5; ++pass) EXPECT_EQ(Contents(kSpec), all_);
    });
  }
  for (std::thread& thread : threads) thread.join();
  threads.clear();
  auto data = Open(kSpec);
  ASSERT_TRUE(data.ok());
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int pass = 0; pass < 20; ++pass) EXPECT_EQ(Text(ReadAll(**data)), all_);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace descent
