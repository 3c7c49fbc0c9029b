#include "worker/features/label_pass.h"

#include "common/features/label_shares.h"
#include "gmock/gmock.h"
#include "worker/features/features_test_util.h"

namespace descent {
namespace {

class LabelPassTest : public FeaturesTest {
 protected:
  // Ranks' shares of 400 rows that are sorted by their label.
  std::string Compare(SamplingKind sampling, LabelKind labels, uint32_t classes) {
    std::string text;
    for (int r = 0; r < 400; ++r) absl::StrAppend(&text, "1,", r / 200, "\n");
    Write("x.csv", text);
    options_.labels = labels;
    const std::unique_ptr<Dataset> data = Raw(v1::Features(), "csv { path: 'x.csv' }");
    BatchPlanOptions options;
    options.sampling = sampling;
    options.ranks = 4;
    options.batch_size = 7;
    options.shard_begin = {0, 400};
    const std::unique_ptr<BatchPlan> plan = BatchPlan::Create(options);
    std::vector<v1::FeatureStatistics> shares;
    for (uint32_t rank = 0; rank < 4; ++rank) {
      auto share = LabelStatistics(*data, plan.get(), Rank(rank), classes);
      EXPECT_TRUE(share.ok()) << share.status();
      EXPECT_EQ(share->rows(), 100u);
      shares.push_back(*share);
    }
    return LabelSharesText(shares);
  }
};

TEST_F(LabelPassTest, SharesOfSortedDataDifferUnlessTheyAreShuffled) {
  for (const auto& [labels, classes] : {std::pair(LabelKind::kBinary, 2u), std::pair(LabelKind::kNumber, 0u)}) {
    EXPECT_THAT(Compare(SamplingKind::kSequential, labels, classes),
                ::testing::HasSubstr("the labels of 4 of 4 ranks' shares differ"));
    EXPECT_EQ(Compare(SamplingKind::kWithoutReplacement, labels, classes), "");
  }
}

}  // namespace
}  // namespace descent
