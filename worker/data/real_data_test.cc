// Real data: Fashion-MNIST as the set-up script installs it, and larger sets where they lie beside the checkout.
// Prints how long the first and the second open take.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "worker/data/batch_plan.h"
#include "worker/data/data_test_util.h"

namespace descent {
namespace {

std::string SharedData() {
  if (const char* folder = std::getenv("DESCENT_SHARED_DATA")) return folder;
  const char* source = std::getenv("DESCENT_SOURCE_DIR");
  return absl::StrCat(source != nullptr ? source : ".", "/../shared/data");
}

class RealDataTest : public DataTest {
 protected:
  bool Has(const std::string& file) { return IdentifyFile(JoinPath(options_.root, file)).ok(); }
  std::unique_ptr<Dataset> Timed(const std::string& spec, const char* what) {
    const absl::Time begin = absl::Now();
    const std::clock_t cpu = std::clock();
    auto data = Open(spec);
    EXPECT_TRUE(data.ok()) << data.status();
    if (!data.ok()) return nullptr;
    std::printf("%s: %d rows in %d shards, opened in %.3f s (%.3f s of CPU)\n", what, static_cast<int>((*data)->rows()),
                static_cast<int>((*data)->shards()), absl::ToDoubleSeconds(absl::Now() - begin),
                static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC);
    EXPECT_TRUE((*data)->Notes().empty());
    return *std::move(data);
  }
};

TEST_F(RealDataTest, FashionMnist) {
  options_.root = "/usr/share/datasets/fashion-mnist";
  if (!Has("train-images-idx3-ubyte.gz"))
    GTEST_SKIP() << "SKIPPED: no " << options_.root << "; install dataset-fashion-mnist";
  options_.labels = LabelKind::kClass;
  options_.classes = 10;
  const std::string spec = "idx { images: 'train-images-idx3-ubyte.gz' labels: 'train-labels-idx1-ubyte.gz' }";
  for (const char* what : {"Fashion-MNIST, first", "Fashion-MNIST, second"}) {
    auto data = Timed(spec, what);
    ASSERT_NE(data, nullptr);
    EXPECT_EQ(data->rows(), 60000u);
    EXPECT_EQ(data->features(), 784u);
    EXPECT_EQ(data->files()[0].bytes, 26421856u);
    const Batch batch = ReadAll(*data);
    std::vector<int> count(10);
    for (const float label : batch.label) ++count[static_cast<int>(label)];
    for (const int c : count) EXPECT_EQ(c, 6000);
    double sum = 0;
    for (size_t i = 0; i < batch.dense.size(); ++i) sum += batch.dense[i];
    EXPECT_NEAR(sum / batch.dense.size(), 0.2860, 0.0001);  // the mean everybody normalises by
    EXPECT_EQ(batch.label[0], 9);
  }
}

TEST_F(RealDataTest, A9a) {
  options_.root = SharedData();
  if (!Has("a9a/a9a")) GTEST_SKIP() << "SKIPPED: no a9a in " << options_.root;
  options_.labels = LabelKind::kBinary;
  auto data = Timed("libsvm { path: 'a9a/a9a' features: 123 }", "a9a");
  ASSERT_NE(data, nullptr);
  EXPECT_EQ(data->rows(), 32561u);
  const Batch batch = ReadAll(*data);
  double positive = 0;
  for (const float label : batch.label) positive += label;
  EXPECT_EQ(positive, 7841);
  EXPECT_EQ(batch.column.size(), 451592u);
}

TEST_F(RealDataTest, Flights) {
  options_.root = SharedData();
  if (!Has("flights3m/flights3m.train.libsvm.gz")) GTEST_SKIP() << "SKIPPED: no flights3m in " << options_.root;
  options_.labels = LabelKind::kBinary;
  options_.keys = true;
  for (const char* what : {"flights3m, first", "flights3m, second"}) {
    auto data = Timed("libsvm { path: 'flights3m/flights3m.train.libsvm.gz' }", what);
    ASSERT_NE(data, nullptr);
    ASSERT_EQ(data->rows(), 2700000u);
    BatchPlanOptions plan_options;
    plan_options.ranks = 4;
    plan_options.batch_size = 1024;
    for (uint32_t s = 0; s <= data->shards(); ++s) plan_options.shard_begin.push_back(data->shard_begin(s));
    auto plan = BatchPlan::Create(plan_options);
    const absl::Time begin = absl::Now();
    Batch batch;
    double positive = 0, rows = 0;
    std::vector<uint64_t> chosen;
    // Four ranks' clocks one after another: all rows once.
    for (uint64_t c = 0; c < 4 * plan->clocks_per_epoch(); ++c) {
      chosen.clear();
      plan->Rows(Rank(static_cast<uint32_t>(c / plan->clocks_per_epoch())), Clock(c % plan->clocks_per_epoch()),
                 &chosen);
      ASSERT_TRUE(data->Read(chosen, &batch).ok());
      for (const float label : batch.label) positive += label;
      rows += static_cast<double>(batch.rows);
      EXPECT_EQ(batch.column.size(), 8 * batch.rows);
    }
    std::printf("%s: %.0f rows, an epoch, as batches of keys in %.3f s\n", what, rows,
                absl::ToDoubleSeconds(absl::Now() - begin));
    EXPECT_EQ(rows, 2700000);
    EXPECT_NEAR(positive / rows, 0.200, 0.0005);
  }
}

TEST_F(RealDataTest, Regression) {
  options_.root = SharedData();
  if (!Has("regression/CCPP.csv")) GTEST_SKIP() << "SKIPPED: no regression in " << options_.root;
  auto plant = Timed("csv { path: 'regression/CCPP.csv' header: true label: 'PE' }", "CCPP");
  ASSERT_NE(plant, nullptr);
  EXPECT_EQ(plant->rows(), 9568u);
  EXPECT_EQ(plant->features(), 4u);
  auto diamonds = Timed(
      "csv { path: 'regression/diamonds.csv' header: true label: 'price' log_label: true ignore: 'rownames' "
      "ignore: 'cut' ignore: 'color' ignore: 'clarity' }",
      "diamonds");
  ASSERT_NE(diamonds, nullptr);
  EXPECT_EQ(diamonds->rows(), 53940u);
  EXPECT_EQ(diamonds->features(), 6u);
  EXPECT_NEAR(ReadAll(*diamonds).label[0], 5.786897, 1e-5);
}

}  // namespace
}  // namespace descent
