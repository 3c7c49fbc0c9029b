#include "worker/data/resampling.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/batch_plan.h"

namespace descent {
namespace {

using ::testing::ElementsAre;

// Row j is of class 0, unless j is divisible by 10 (class 1) or by 25 (class 3). Class 2 has none.
std::shared_ptr<const RowClasses> Classes(uint64_t rows) {
  auto classes = std::make_shared<RowClasses>();
  classes->rows.resize(4);
  for (uint64_t row = 0; row < rows; ++row) {
    classes->of_row.push_back(row % 25 == 0 ? 3 : row % 10 == 0 ? 1 : 0);
    ++classes->rows[classes->of_row.back()];
  }
  return classes;
}

std::vector<uint64_t> Sizes(Resampling::Kind kind, double ratio) {
  const Resampling resampling(kind, ratio, 1, Classes(1000));
  std::vector<uint64_t> sizes;
  for (uint32_t k = 0; k < 4; ++k) sizes.push_back(resampling.rows_of(k));
  return sizes;
}

TEST(Resampling, SizesByHand) {
  ASSERT_THAT(Classes(1000)->rows, ElementsAre(880, 80, 0, 40));
  EXPECT_THAT(Sizes(Resampling::Kind::kOver, 1), ElementsAre(880, 880, 0, 880));
  EXPECT_THAT(Sizes(Resampling::Kind::kOver, 0.5), ElementsAre(880, 440, 0, 440));
  EXPECT_THAT(Sizes(Resampling::Kind::kOver, 0.05), ElementsAre(880, 80, 0, 44)) << "0.05 is below class 1's share";
  EXPECT_THAT(Sizes(Resampling::Kind::kUnder, 1), ElementsAre(40, 40, 0, 40));
  EXPECT_THAT(Sizes(Resampling::Kind::kUnder, 0.4), ElementsAre(100, 80, 0, 40));
  EXPECT_EQ(Resampling(Resampling::Kind::kOver, 1, 1, Classes(1000)).epoch_rows(), 2640u);
  EXPECT_EQ(Resampling(Resampling::Kind::kOver, 1, 1, Classes(1000)).most_copies(), 22u);
}

TEST(Resampling, TheRestIsARandomSubsetOfTheRightSize) {
  const auto classes = Classes(1000);
  const Resampling resampling(Resampling::Kind::kUnder, 1, 5, classes);
  std::vector<double> chosen(1000);
  constexpr int kEpochs = 4000;
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const std::vector<bool> extra = resampling.Extra(epoch);
    std::vector<uint64_t> of_class(4);
    for (size_t row = 0; row < extra.size(); ++row) {
      if (!extra[row]) continue;
      ++of_class[classes->of_row[row]];
      ++chosen[row];
    }
    // Class 3 keeps all of its rows: it comes once and needs no choice.
    ASSERT_THAT(of_class, ElementsAre(40, 40, 0, 0));
  }
  // Each row of class 0 with the probability 40/880, of class 1 with 1/2: within five standard deviations.
  for (size_t row = 0; row < chosen.size(); ++row) {
    const uint32_t k = classes->of_row[row];
    if (k == 3) continue;
    const double p = k == 0 ? 40.0 / 880 : 0.5;
    EXPECT_NEAR(chosen[row], kEpochs * p, 5 * std::sqrt(kEpochs * p * (1 - p))) << row;
  }
  EXPECT_EQ(resampling.Extra(7), Resampling(Resampling::Kind::kUnder, 1, 5, classes).Extra(7));
  EXPECT_NE(resampling.Extra(7), resampling.Extra(8));
  EXPECT_NE(resampling.Extra(7), Resampling(Resampling::Kind::kUnder, 1, 6, classes).Extra(7));
}

BatchPlanOptions PlanOptions(uint32_t ranks, std::shared_ptr<const Resampling> resampling) {
  BatchPlanOptions options;
  options.seed = 7;
  options.ranks = ranks;
  options.batch_size = 16;
  options.window_shards = 2;
  options.shard_begin = {0, 300, 450, 450, 800, 1000};
  options.resampling = std::move(resampling);
  return options;
}

// The rows of an epoch, rank by rank.
std::vector<uint64_t> EpochOf(BatchPlan* plan, uint32_t ranks, uint64_t epoch) {
  std::vector<uint64_t> rows;
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    for (uint64_t c = 0; c < plan->clocks_per_epoch(); ++c) {
      plan->Rows(Rank(rank), Clock(epoch * plan->clocks_per_epoch() + c), &rows);
    }
  }
  return rows;
}

TEST(ResampledPlan, AnEpochHasEveryRowAsOftenAsItsClassSays) {
  const auto classes = Classes(1000);
  for (const auto& [kind, ratio] :
       {std::pair(Resampling::Kind::kOver, 0.7), std::pair(Resampling::Kind::kUnder, 0.9)}) {
    const auto resampling = std::make_shared<Resampling>(kind, ratio, 7, classes);
    std::set<std::vector<uint64_t>> epochs;
    for (const uint64_t epoch : {0u, 1u, 9u}) {
      std::vector<uint64_t> of_one_rank;
      for (const uint32_t ranks : {1u, 3u, 8u}) {
        auto plan = BatchPlan::Create(PlanOptions(ranks, resampling));
        EXPECT_EQ(plan->epoch_rows(), resampling->epoch_rows());
        const uint64_t longest = (plan->epoch_rows() + ranks - 1) / ranks;
        EXPECT_EQ(plan->clocks_per_epoch(), (longest + 15) / 16);
        const std::vector<uint64_t> rows = EpochOf(plan.get(), ranks, epoch);
        if (of_one_rank.empty()) of_one_rank = rows;
        EXPECT_EQ(rows, of_one_rank) << "the order is one, however it is shared out";
      }
      std::map<uint64_t, uint64_t> times;
      for (const uint64_t row : of_one_rank) ++times[row];
      std::vector<uint64_t> of_class(4);
      const std::vector<bool> extra = resampling->Extra(epoch);
      for (uint64_t row = 0; row < 1000; ++row) {
        EXPECT_EQ(times[row], resampling->copies(row) + (extra[row] ? 1 : 0)) << row;
        of_class[classes->of_row[row]] += times[row];
      }
      for (uint32_t k = 0; k < 4; ++k) EXPECT_EQ(of_class[k], resampling->rows_of(k));
      epochs.insert(of_one_rank);
    }
    EXPECT_EQ(epochs.size(), 3u);
  }
}

TEST(ResampledPlan, CopiesStayInTheWindowOfTheirShard) {
  const auto resampling = std::make_shared<Resampling>(Resampling::Kind::kOver, 1.0, 7, Classes(1000));
  BatchPlanOptions options = PlanOptions(1, resampling);
  options.window_shards = 1;
  auto plan = BatchPlan::Create(options);
  const std::vector<uint64_t> rows = EpochOf(plan.get(), 1, 0);
  std::vector<uint64_t> shards;
  for (const uint64_t row : rows) {
    const uint64_t shard = row < 300 ? 0 : row < 450 ? 1 : row < 800 ? 3 : 4;
    if (shards.empty() || shards.back() != shard) shards.push_back(shard);
  }
  EXPECT_EQ(shards.size(), 4u) << "each shard's rows are together";
}

TEST(ResampledPlan, MadeExamplesAreNamedOnce) {
  const auto resampling = std::make_shared<Resampling>(Resampling::Kind::kOver, 1.0, 7, Classes(1000));
  BatchPlanOptions options = PlanOptions(3, resampling);
  options.synthetic = true;
  auto plan = BatchPlan::Create(options);
  std::set<uint64_t> made;
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<uint64_t> real;
    for (const uint64_t row : EpochOf(plan.get(), 3, epoch)) {
      EXPECT_TRUE(row < 1000 ? real.insert(row).second : made.insert(row).second) << row;
    }
    EXPECT_EQ(real.size(), 1000u) << "every row comes as itself once";
    EXPECT_EQ(made.size(), (epoch + 1) * 1640) << "no example is made in two epochs";
  }
}

TEST(ClassBalancedPlan, EveryClassIsAsLikely) {
  const auto classes = Classes(1000);
  BatchPlanOptions options = PlanOptions(4, nullptr);
  options.sampling = SamplingKind::kClassBalanced;
  options.classes = classes;
  auto plan = BatchPlan::Create(options);
  EXPECT_EQ(plan->epoch_rows(), 1000u);
  std::vector<double> of_class(4), times(1000);
  constexpr int kEpochs = 60;
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const std::vector<uint64_t> rows = EpochOf(plan.get(), 4, epoch);
    ASSERT_EQ(rows.size(), 1000u);
    for (const uint64_t row : rows) {
      ++of_class[classes->of_row[row]];
      ++times[row];
    }
  }
  // A third each of the draws, and within a class all rows alike: within five standard deviations.
  const double draws = 1000.0 * kEpochs;
  for (const uint32_t k : {0u, 1u, 3u}) EXPECT_NEAR(of_class[k], draws / 3, 5 * std::sqrt(draws * 2 / 9)) << k;
  EXPECT_EQ(of_class[2], 0) << "it has no rows";
  for (uint64_t row = 0; row < 1000; ++row) {
    const double p = 1.0 / 3 / static_cast<double>(classes->rows[classes->of_row[row]]);
    EXPECT_NEAR(times[row], draws * p, 5 * std::sqrt(draws * p)) << row;
  }
  // A function of (seed, rank, clock) alone.
  std::vector<uint64_t> here, there;
  plan->Rows(Rank(2), Clock(17), &here);
  BatchPlan::Create(options)->Rows(Rank(2), Clock(17), &there);
  EXPECT_EQ(here, there);
}

}  // namespace
}  // namespace descent
