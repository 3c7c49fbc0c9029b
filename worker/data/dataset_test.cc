#include "worker/data/dataset.h"

#include <zlib.h>

#include <map>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/data_test_util.h"

namespace descent {
namespace {

using ::testing::ElementsAre;

class DatasetTest : public DataTest {
 protected:
  void WriteGzip(const std::string& name, const std::string& contents) {
    gzFile file = gzopen(absl::StrCat(folder_, "/", name).c_str(), "wb");
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(gzwrite(file, contents.data(), static_cast<unsigned>(contents.size())),
              static_cast<int>(contents.size()));
    ASSERT_EQ(gzclose(file), Z_OK);
  }
};

TEST_F(DatasetTest, Libsvm) {
  options_.labels = LabelKind::kBinary;
  Write("a.svm", "# a comment\n-1 1:1 3:0.5\r\n\n+1\tqid:7 2:+2 4:-1e-2 # end\n  +1 \n-1 4:1");
  EXPECT_EQ(Contents("libsvm { path: 'a.svm' features: 4 }"), "0: 0=1 2=0.5; 1: 1=2 3=-0.01; 1:; 0: 3=1");
  EXPECT_EQ(Contents("libsvm { path: 'a.svm' features: 5 zero_based: true }"),
            "0: 1=1 3=0.5; 1: 2=2 4=-0.01; 1:; 0: 4=1");
}

TEST_F(DatasetTest, LibsvmByteOrderMarkAndLongLines) {
  std::string line =
      "\xef\xbb\xbf"
      "3.25";
  for (int i = 1; i <= 300000; ++i) absl::StrAppend(&line, " ", i, ":1");
  Write("a.svm", absl::StrCat(line, "\n1.5 7:1\n"));
  auto data = Open("libsvm { path: 'a.svm' features: 300000 }");
  ASSERT_TRUE(data.ok()) << data.status();
  const Batch batch = ReadAll(**data);
  EXPECT_THAT(batch.row_begin, ElementsAre(0, 300000, 300001));
  EXPECT_THAT(batch.label, ElementsAre(3.25f, 1.5f));
  EXPECT_EQ(batch.column[299999], 299999u);
}

TEST_F(DatasetTest, GzipAndSeveralFilesAndPatternsInOrder) {
  ASSERT_TRUE(MakeDirs(absl::StrCat(folder_, "/part")).ok());
  Write("part/b.svm", "2 1:1\n");
  WriteGzip("part/a.svm.gz", "1 1:1\n");
  Write("z[1].svm", "3 1:1\n");  // a name that would also be a pattern
  auto data = Open("libsvm { path: 'z[1].svm' path: 'part/*' features: 1 }");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(Text(ReadAll(**data)), "3: 0=1; 1: 0=1; 2: 0=1");
  std::vector<std::string> names;
  for (const DataFileInfo& file : (*data)->files()) {
    names.push_back(file.name);
    EXPECT_EQ(file.rows, 1u);
  }
  EXPECT_THAT(names, ElementsAre("z[1].svm", "part/a.svm.gz", "part/b.svm"));
  EXPECT_EQ((*data)->files()[2].bytes, 6u);
}

TEST_F(DatasetTest, FilesTellSizeRowsAndChecksumAlsoTheSecondTime) {
  Write("a.svm", "123456789 1:1\n");
  for (int open = 0; open < 2; ++open) {
    auto data = Open("libsvm { path: 'a.svm' features: 1 }");
    ASSERT_TRUE(data.ok()) << data.status();
    ASSERT_EQ((*data)->files().size(), 1u);
    EXPECT_EQ((*data)->files()[0].name, "a.svm");
    EXPECT_EQ((*data)->files()[0].bytes, 14u);
    EXPECT_EQ((*data)->files()[0].rows, 1u);
    EXPECT_EQ((*data)->files()[0].crc32c, 0xdf333bacu);
  }
}

TEST_F(DatasetTest, ShardsAndAnyRows) {
  options_.shard_rows = 3;
  std::string text;
  for (int i = 0; i < 10; ++i) absl::StrAppend(&text, i, " ", i + 1, ":2\n");
  Write("a.svm", text);
  auto data = Open("libsvm { path: 'a.svm' features: 10 }");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ((*data)->rows(), 10u);
  EXPECT_EQ((*data)->features(), 10u);
  EXPECT_TRUE((*data)->sparse());
  ASSERT_EQ((*data)->shards(), 4u);
  EXPECT_EQ((*data)->shard_begin(3), 9u);
  EXPECT_EQ((*data)->shard_begin(4), 10u);
  Batch batch;
  ASSERT_TRUE((*data)->Read({9, 0, 4, 4}, &batch).ok());
  EXPECT_EQ(Text(batch), "9: 9=2; 0: 0=2; 4: 4=2; 4: 4=2");
  ASSERT_TRUE((*data)->Read({}, &batch).ok());
  EXPECT_EQ(batch.rows, 0u);
  EXPECT_THAT(batch.row_begin, ElementsAre(0));
  EXPECT_EQ((*data)->Read({10}, &batch).message(), "row 10 of data with 10 rows");
}

class KeyedDatasetTest : public DatasetTest, public ::testing::WithParamInterface<uint32_t> {};

// Fewer slots than keys, and so many that few have one.
INSTANTIATE_TEST_SUITE_P(Slots, KeyedDatasetTest, ::testing::Values(1, 16, 65536));

TEST_P(KeyedDatasetTest, KeysAreUniqueAndBySlotAndColumnsFollow) {
  options_.keys = true;
  options_.geometry.slots = GetParam();
  // Keys of 32 bits in one shard, of 64 in the other; rows long and short.
  options_.shard_rows = 2;
  std::string text = "1 5:0.5 18446744073709551615:2\n0 1:1\n";
  absl::StrAppend(&text, "1");
  for (int i = 1; i <= 100; ++i) absl::StrAppend(&text, " ", 7 * i, ":", i);
  absl::StrAppend(&text, "\n0\n");
  Write("a.svm", text);
  auto data = Open("libsvm { path: 'a.svm' }");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ((*data)->features(), 0u);
  Batch batch;
  ASSERT_TRUE((*data)->Read({0, 2, 1, 0, 3}, &batch).ok());
  ASSERT_EQ(batch.keys.size(), 103u);
  for (size_t k = 1; k < batch.keys.size(); ++k) {
    const auto before = std::make_pair(options_.geometry.slot(batch.keys[k - 1]), batch.keys[k - 1]);
    EXPECT_LT(before, std::make_pair(options_.geometry.slot(batch.keys[k]), batch.keys[k]));
  }
  EXPECT_THAT(batch.row_begin, ElementsAre(0, 2, 102, 103, 105, 105));
  std::map<uint64_t, float> long_row;
  for (size_t i = 0; i < batch.rows; ++i) {
    for (uint32_t e = batch.row_begin[i]; e < batch.row_begin[i + 1]; ++e) {
      if (e > batch.row_begin[i]) {
        EXPECT_LT(batch.column[e - 1], batch.column[e]);
      }
      if (i == 1) long_row[batch.keys[batch.column[e]]] = batch.value[e];
    }
  }
  ASSERT_EQ(long_row.size(), 100u);
  for (int i = 1; i <= 100; ++i) EXPECT_EQ(long_row[7 * i - 1], i);
  for (uint32_t e : {0u, 1u, 103u, 104u}) {
    EXPECT_EQ(batch.keys[batch.column[e]], batch.value[e] == 2 ? 18446744073709551614u : 4u);
  }
  EXPECT_EQ(batch.keys[batch.column[102]], 0u);
}

TEST_F(DatasetTest, Csv) {
  Write("a.csv", "id,\"a \"\"x\"\", long\nname\",b,y\r\n1,2,\"3\",4\r\n\r\n\"two, three\nlines\",5, 6 ,-7e1\r\n");
  EXPECT_EQ(Contents("csv { path: 'a.csv' header: true ignore: 'id' }"), "4: 2 3; -70: 5 6");
  EXPECT_EQ(Contents("csv { path: 'a.csv' header: true ignore: 'id' label: 'b' }"), "3: 2 4; 6: 5 -70");
  Write("b.csv", "1;2;3\n4;5;6");
  EXPECT_EQ(Contents("csv { path: 'b.csv' delimiter: ';' label: '0' ignore: '1' }"), "1: 3; 4: 6");
}

TEST_F(DatasetTest, CsvLabels) {
  Write("a.csv", "1,cat\n2,dog\n");
  options_.labels = LabelKind::kClass;
  options_.classes = 2;
  EXPECT_EQ(Contents("csv { path: 'a.csv' label_map { key: 'dog' value: 0 } label_map { key: 'cat' value: 1 } }"),
            "1: 1; 0: 2");
  options_.labels = LabelKind::kNumber;
  Write("b.csv", "# x,y\n1,1\n2,100\n");
  EXPECT_EQ(Contents("csv { path: 'b.csv' header: true log_label: true }"), "0: 1; 4.60517: 2");
  EXPECT_EQ(Contents("csv { path: 'b.csv' header: true label: 'x' }"), "1: 1; 2: 100");
}

TEST_F(DatasetTest, CsvWeights) {
  Write("a.csv", "x,w,y\n1,0.5,2\n3,0,4\n5,7,6\n");
  EXPECT_EQ(Contents("csv { path: 'a.csv' header: true weight: 'w' }"), "2: 1; 4: 3; 6: 5");
  for (int again = 0; again < 2; ++again) {  // made, then from the cache
    auto data = Open("csv { path: 'a.csv' header: true weight: 'w' }");
    ASSERT_TRUE(data.ok()) << data.status();
    Batch batch;
    const std::vector<uint64_t> rows = {2, 0, 1};
    ASSERT_TRUE((*data)->Read(rows, &batch).ok());
    EXPECT_EQ(batch.weight, (std::vector<float>{7, 0.5, 0}));
    EXPECT_EQ(batch.label, (std::vector<float>{6, 2, 4}));
  }
  auto plain = Open("csv { path: 'a.csv' header: true ignore: 'w' }");
  ASSERT_TRUE(plain.ok()) << plain.status();
  Batch batch;
  batch.weight = {1};
  const std::vector<uint64_t> rows = {2};
  ASSERT_TRUE((*plain)->Read(rows, &batch).ok());
  EXPECT_TRUE(batch.weight.empty());
  Write("b.csv", "1,-0.5,2\n");
  EXPECT_THAT(std::string(Open("csv { path: 'b.csv' weight: '1' }").status().message()),
              ::testing::HasSubstr("b.csv:1: column 1: -0.5: a weight is not below 0"));
  EXPECT_THAT(std::string(Open("csv { path: 'b.csv' weight: '2' }").status().message()),
              ::testing::HasSubstr("csv.weight: column 2 is the label"));
}

TEST_F(DatasetTest, SeveralCsvFilesHaveAHeaderEach) {
  Write("a.csv", "x,y\n1,2\n");
  Write("b.csv", "x,y\n3,4\n");
  EXPECT_EQ(Contents("csv { path: '*.csv' header: true }"), "2: 1; 4: 3");
}

TEST_F(DatasetTest, Idx) {
  options_.labels = LabelKind::kClass;
  options_.classes = 10;
  Write("images", absl::string_view("\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x03\x00\xff\x33\x01\x02\x03", 22));
  Write("labels", absl::string_view("\0\0\x08\x01\0\0\0\x02\x09\x00", 10));
  EXPECT_EQ(Contents("idx { images: 'images' labels: 'labels' scale: 2 }"), "9: 0 510 102; 0: 2 4 6");
  auto data = Open("idx { images: 'images' labels: 'labels' }");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_FALSE((*data)->sparse());
  const Batch batch = ReadAll(**data);
  EXPECT_EQ(batch.features, 3u);
  EXPECT_EQ(batch.dense[1], 1.0f);
  EXPECT_EQ(batch.dense[2], 51.0f / 255);
  EXPECT_EQ((*data)->files().size(), 2u);
}

// The same rows whatever a batch held before.
TEST_F(DatasetTest, ABatchIsUsedAgain) {
  Write("a.csv", "1,2\n3,4\n");
  Write("b.svm", "1 1:1\n");
  auto dense = Open("csv { path: 'a.csv' }");
  auto sparse = Open("libsvm { path: 'b.svm' features: 1 }");
  ASSERT_TRUE(dense.ok() && sparse.ok());
  Batch batch;
  ASSERT_TRUE((*dense)->Read({1, 0}, &batch).ok());
  EXPECT_EQ(Text(batch), "4: 3; 2: 1");
  ASSERT_TRUE((*sparse)->Read({0}, &batch).ok());
  EXPECT_EQ(Text(batch), "1: 0=1");
  EXPECT_EQ(batch.dense.size(), 0u);
  ASSERT_TRUE((*dense)->Read({0}, &batch).ok());
  EXPECT_EQ(Text(batch), "2: 1");
  EXPECT_TRUE(batch.column.empty() && batch.row_begin.empty() && batch.value.empty());
}

}  // namespace
}  // namespace descent
