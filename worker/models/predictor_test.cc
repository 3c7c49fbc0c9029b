#include "worker/models/predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <sstream>
#include <utility>

#include "common/files/file.h"
#include "common/saved_model/model_writer.h"
#include "common/tensor/initial_value.h"
#include "worker/models/models_testing.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

// Rows in memory.
class MemoryDataset final : public Dataset {
 public:
  explicit MemoryDataset(Batch all) : all_(std::move(all)) {}
  uint64_t rows() const override { return all_.rows; }
  uint64_t features() const override { return all_.features; }
  bool sparse() const override { return all_.sparse; }
  absl::Span<const DataFileInfo> files() const override { return {}; }
  uint32_t shards() const override { return 1; }
  uint64_t shard_begin(uint32_t shard) const override { return shard * all_.rows; }
  absl::Status Read(absl::Span<const uint64_t> rows, Batch* batch) const override {
    batch->rows = rows.size();
    batch->features = all_.features;
    batch->sparse = all_.sparse;
    batch->keys = all_.keys;
    batch->label.clear();
    batch->row_begin = {0};
    batch->column.clear();
    batch->value.clear();
    batch->dense.Resize(rows.size() * all_.features);
    for (size_t i = 0; i < rows.size(); ++i) {
      batch->label.push_back(all_.label[rows[i]]);
      if (!all_.sparse) {
        std::copy_n(all_.dense.data() + rows[i] * all_.features, all_.features,
                    batch->dense.data() + i * all_.features);
        continue;
      }
      for (uint32_t e = all_.row_begin[rows[i]]; e < all_.row_begin[rows[i] + 1]; ++e) {
        batch->column.push_back(all_.column[e]);
        batch->value.push_back(all_.value[e]);
      }
      batch->row_begin.push_back(static_cast<uint32_t>(batch->column.size()));
    }
    return absl::OkStatus();
  }

 private:
  Batch all_;
};

class PredictorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/predictor-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(folder_).ok()); }

  // Dense tensors get 1, -1, 2, -2, ... / 4; a table the given keys with rows of the same numbers.
  std::unique_ptr<SavedModel> Save(const std::string& model, uint64_t features, bool sparse,
                                   const std::vector<uint64_t>& keys = {}, const std::string& rest = "",
                                   std::optional<double> threshold = std::nullopt) {
    ModelDescription d;
    d.job_text = "model { " + model + " }" + rest;
    d.threshold = threshold;
    d.slots = 1;
    d.seed = 5;
    d.features = features;
    d.sparse = sparse;
    d.specs = Make<float>(model, features, sparse)->tensors();
    if (d.specs[0].sparse) d.specs[0].initializer = {Initializer::Kind::kConstant, 0.125};
    auto writer = ModelWriter::Begin(folder_ + "/model", d);
    EXPECT_TRUE(writer.ok()) << writer.status();
    for (uint32_t i = 0; i < d.specs.size(); ++i) {
      const size_t n = d.specs[i].sparse ? keys.size() * d.specs[i].dim() : d.specs[i].elements();
      std::vector<float> values;
      for (size_t j = 0; j < n; ++j) values.push_back((j % 2 == 0 ? 1.0f : -1.0f) * static_cast<float>(j / 2 + 1) / 4);
      EXPECT_TRUE((d.specs[i].sparse ? (*writer)->AppendRows(TensorId(i), keys, values)
                                     : (*writer)->AppendDense(TensorId(i), values))
                      .ok());
    }
    EXPECT_TRUE((*writer)->Finish().ok());
    auto saved = SavedModel::Load(folder_ + "/model");
    EXPECT_TRUE(saved.ok()) << saved.status();
    return saved.ok() ? *std::move(saved) : nullptr;
  }

  std::string folder_;
};

TEST_F(PredictorTest, RegressionWritesANumberALine) {
  const auto saved = Save("linear {}", 2, false);
  Batch all;
  all.rows = 3;
  all.features = 2;
  all.dense.Resize(6);
  for (size_t i = 0; i < 6; ++i) all.dense[i] = static_cast<float>(i);
  all.label = {0, 0, 1};
  std::ostringstream out;
  PredictSummary summary;
  // Weights 1/4, -1/4, bias 1/4: each row is 0 * ... = -1/4 + 1/4.
  ASSERT_TRUE(Predict(*saved, MemoryDataset(std::move(all)), out, {.batch_size = 2}, &summary).ok());
  EXPECT_EQ(out.str(), "0\n0\n0\n");
  EXPECT_EQ(summary.rows, 3u);
  EXPECT_FALSE(summary.classifier);
  EXPECT_DOUBLE_EQ(summary.loss, 0.5 / 3);
}

TEST_F(PredictorTest, ClassifiersWriteClassAndProbabilities) {
  const auto saved = Save("softmax { classes: 3 no_bias: true }", 1, false);
  Batch all;
  all.rows = 2;
  all.features = 1;
  all.dense.Resize(2);
  all.dense[0] = 4;
  all.dense[1] = -400;
  all.label = {2, 0};
  const MemoryDataset data(std::move(all));
  std::ostringstream plain, full;
  PredictSummary summary;
  // Weights 1/4, -1/4, 1/2: scores 1, -1, 2 and -100, 100, -200.
  ASSERT_TRUE(Predict(*saved, data, plain, {}, &summary).ok());
  EXPECT_EQ(plain.str(), "2\n1\n");
  EXPECT_TRUE(summary.classifier);
  EXPECT_DOUBLE_EQ(summary.accuracy, 0.5);
  ASSERT_TRUE(Predict(*saved, data, full, {.probabilities = true}, &summary).ok());
  EXPECT_THAT(full.str(), ::testing::StartsWith("2 0.2594"));
  EXPECT_THAT(full.str(), HasSubstr("\n1 1.18"));
}

TEST_F(PredictorTest, TwoClassesAreToldApartByTheThreshold) {
  Batch all;
  all.rows = 3;
  all.features = 1;
  all.dense.Resize(3);
  for (const size_t i : {0u, 1u, 2u}) all.dense[i] = static_cast<float>(i) - 1;
  all.label = {0, 0, 1};
  const MemoryDataset data(std::move(all));
  const auto predict = [&](const std::string& model, const std::string& rest, std::optional<double> threshold) {
    const auto saved = Save(model, 1, false, {}, rest, threshold);
    std::ostringstream out;
    PredictSummary summary;
    EXPECT_TRUE(Predict(*saved, data, out, {}, &summary).ok());
    return out.str() + std::to_string(static_cast<int>(summary.accuracy * 3 + 0.5)) + " right";
  };
  // Weight 1/4: probabilities 0.438, 0.5 and 0.562 of class 1. With two outputs, weights 1/4 and -1/4: 0.622, 0.5,
  // 0.378.
  const std::string one = "logistic { no_bias: true }", two = "softmax { classes: 2 no_bias: true }";
  EXPECT_EQ(predict(one, "", std::nullopt), "0\n0\n1\n3 right");
  EXPECT_EQ(predict(one, " evaluation { threshold: 0.44 }", std::nullopt), "0\n1\n1\n2 right");
  EXPECT_EQ(predict(one, " evaluation { threshold: 0.44 }", 0.5625), "0\n0\n0\n2 right") << "what was tuned goes first";
  EXPECT_EQ(predict(one, "", 0.5), "0\n1\n1\n2 right") << "at least";
  EXPECT_EQ(predict(two, "", 0.378), "1\n1\n0\n0 right");
  EXPECT_EQ(predict(two, "", 0.3), "1\n1\n1\n1 right");
}

TEST_F(PredictorTest, TablesUseInitialValuesForRowsTheyLack) {
  // Keys 0 and 2^64 / golden ratio are known with weights 1/4 and -1/4; the third is not, and reads as 1/8.
  const uint64_t known = 0x9e3779b97f4a7c15u;
  const auto saved = Save("logistic { sparse_table: true no_bias: true }", 0, true, {0, known});
  Batch all;
  all.rows = 3;
  all.sparse = true;
  all.keys = {0, known, 77};
  all.row_begin = {0, 1, 2, 3};
  all.column = {0, 1, 2};
  all.value = {8, 8, 8};
  all.label = {1, 0, 1};
  std::ostringstream out;
  PredictSummary summary;
  ASSERT_TRUE(
      Predict(*saved, MemoryDataset(std::move(all)), out, {.probabilities = true, .batch_size = 1}, &summary).ok());
  EXPECT_THAT(out.str(), HasSubstr("1 0.1192"));
  EXPECT_THAT(out.str(), HasSubstr("\n0 0.8807"));
  EXPECT_THAT(out.str(), HasSubstr("\n1 0.2689"));
  EXPECT_DOUBLE_EQ(summary.accuracy, 1);
  DatasetOptions options;
  ASSERT_TRUE(SetDatasetOptions(*saved, &options).ok());
  EXPECT_TRUE(options.keys);
  EXPECT_EQ(options.labels, LabelKind::kBinary);
  EXPECT_EQ(options.geometry.slots, 1u);
}

TEST_F(PredictorTest, OtherDataAreRefused) {
  const auto saved = Save("linear {}", 2, false);
  std::ostringstream out;
  PredictSummary summary;
  const absl::Status status = Predict(*saved, MemoryDataset(MakeBatch(BatchForm::kDense, 3, 5, 0)), out, {}, &summary);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("the model has 2 features, the data have 5"));
  const auto quadratic = Save("quadratic {}", 0, false);
  DatasetOptions options;
  EXPECT_THAT(SetDatasetOptions(*quadratic, &options).message(), HasSubstr("takes no data"));
  std::ostringstream broken;
  broken.setstate(std::ios::badbit);
  const auto again = Save("linear {}", 2, false);
  EXPECT_EQ(Predict(*again, MemoryDataset(MakeBatch(BatchForm::kDense, 3, 2, 0)), broken, {}, &summary).code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace descent
