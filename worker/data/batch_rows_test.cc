#include "worker/data/batch_rows.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<float> Numbers(const AlignedFloats& values) { return {values.data(), values.data() + values.size()}; }

TEST(BatchRows, OfDenseRows) {
  Batch batch;
  batch.rows = 4;
  batch.rank = 2;
  batch.clock = 9;
  batch.features = 2;
  batch.dense.Resize(8);
  for (size_t i = 0; i < 8; ++i) batch.dense[i] = static_cast<float>(i);
  batch.label = {0, 1, 2, 3};
  batch.weight = {1, 0.5f, 2, 4};
  Batch part;
  CopyRows(batch, 1, 2, &part);
  EXPECT_EQ(part.rows, 2u);
  EXPECT_EQ(part.rank, 2u);
  EXPECT_EQ(part.clock, 9u);
  EXPECT_EQ(part.features, 2u);
  EXPECT_FALSE(part.sparse);
  EXPECT_THAT(Numbers(part.dense), ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(part.label, ElementsAre(1, 2));
  EXPECT_THAT(part.weight, ElementsAre(0.5f, 2));
  // Used again: nothing of before is left.
  batch.weight.clear();
  CopyRows(batch, 3, 1, &part);
  EXPECT_THAT(Numbers(part.dense), ElementsAre(6, 7));
  EXPECT_THAT(part.label, ElementsAre(3));
  EXPECT_THAT(part.weight, IsEmpty());
}

TEST(BatchRows, OfSparseRows) {
  Batch batch;
  batch.rows = 3;
  batch.features = 10;
  batch.sparse = true;
  batch.row_begin = {0, 2, 2, 5};
  batch.column = {1, 4, 0, 7, 9};
  batch.value = {10, 40, 5, 70, 90};
  batch.label = {1, 0, 1};
  Batch part;
  CopyRows(batch, 1, 2, &part);
  EXPECT_TRUE(part.sparse);
  EXPECT_EQ(part.features, 10u);
  EXPECT_THAT(part.row_begin, ElementsAre(0u, 0u, 3u));
  EXPECT_THAT(part.column, ElementsAre(0u, 7u, 9u));
  EXPECT_THAT(part.value, ElementsAre(5, 70, 90));
  EXPECT_THAT(part.label, ElementsAre(0, 1));
  CopyRows(batch, 0, 1, &part);
  EXPECT_THAT(part.row_begin, ElementsAre(0u, 2u));
  EXPECT_THAT(part.column, ElementsAre(1u, 4u));
  CopyRows(batch, 3, 0, &part);  // none
  EXPECT_EQ(part.rows, 0u);
  EXPECT_THAT(part.row_begin, ElementsAre(0u));
}

}  // namespace
}  // namespace descent
