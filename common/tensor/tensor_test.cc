#include <algorithm>
#include <vector>

#include "common/tensor/initial_value.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

TensorSpec Dense(std::string name, std::vector<uint64_t> shape) {
  TensorSpec spec;
  spec.name = std::move(name);
  spec.shape = std::move(shape);
  return spec;
}

TEST(ValidateSpecs, NamesTheTensor) {
  const uint64_t max = uint64_t{64} << 30;
  EXPECT_TRUE(ValidateSpecs({Dense("w", {3, 4})}, max).ok());
  EXPECT_THAT(ValidateSpecs({Dense("w", {uint64_t{1} << 60})}, max).message(),
              HasSubstr("tensor 'w' of shape [1152921504606846976]"));
  EXPECT_THAT(ValidateSpecs({Dense("w", {uint64_t{1} << 40, uint64_t{1} << 40})}, max).message(), HasSubstr("'w'"));
  EXPECT_THAT(ValidateSpecs({Dense("w", {3, 0})}, max).message(), HasSubstr("no elements"));
  EXPECT_THAT(ValidateSpecs({Dense("w", {3}), Dense("w", {3})}, max).message(), HasSubstr("two tensors"));
  EXPECT_FALSE(ValidateSpecs({}, max).ok());
  TensorSpec statistic = Dense("mean", {3});
  statistic.role = TensorRole::kStatistic;
  EXPECT_TRUE(ValidateSpecs({statistic}, max).ok());
  statistic.sparse = true;
  EXPECT_EQ(ValidateSpecs({statistic}, max).message(),
            "sparse tensor 'mean' of shape [3]: a running statistic is dense");
}

TEST(PartitionMap, SpreadsBytesEvenly) {
  const Geometry geometry;
  const std::vector<TensorSpec> specs = {Dense("big", {50'000'000}), Dense("bias", {10}), Dense("mid", {784, 256})};
  for (uint32_t servers : {1, 2, 3, 7}) {
    const PartitionMap map = MakePartitionMap(specs, geometry, servers);
    std::vector<uint64_t> load(servers);
    for (uint32_t t = 0; t < specs.size(); ++t) {
      ASSERT_EQ(map.placement[t].size(), geometry.blocks(specs[t]));
      for (uint32_t b = 0; b < map.placement[t].size(); ++b) {
        load[map.server({TensorId(t), b}).value] += geometry.block_size(specs[t], b);
      }
    }
    const auto [least, most] = std::minmax_element(load.begin(), load.end());
    EXPECT_LE(*most - *least, geometry.block_elements) << servers;
  }
}

TEST(Geometry, BlocksCoverTheTensor) {
  const Geometry geometry{.block_elements = 16};
  const TensorSpec spec = Dense("w", {35});
  ASSERT_EQ(geometry.blocks(spec), 3u);
  EXPECT_EQ(geometry.block_size(spec, 0), 16u);
  EXPECT_EQ(geometry.block_size(spec, 2), 3u);
}

TEST(InitialValue, DoesNotDependOnWhereItIsCut) {
  const Initializer normal{Initializer::Kind::kNormal, 0.5};
  for (const Initializer& initializer : {normal, Initializer{Initializer::Kind::kOrthogonal, 1}}) {
    for (const auto& [rows, columns] : {std::pair{20, 5}, std::pair{5, 20}, std::pair{10, 10}}) {
      TensorSpec spec = Dense("w", {static_cast<uint64_t>(rows), static_cast<uint64_t>(columns)});
      spec.initializer = initializer;
      std::vector<float> whole(100), part(37);
      InitialDense(3, TensorId(1), spec, 0, absl::MakeSpan(whole));
      InitialDense(3, TensorId(1), spec, 11, absl::MakeSpan(part));
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 11));
    }
  }
  std::vector<float> row(4), other(4);
  InitialRow(3, TensorId(1), normal, 5, absl::MakeSpan(row));
  InitialRow(3, TensorId(1), normal, 6, absl::MakeSpan(other));
  EXPECT_NE(row, other);
}

// Of n independent rows or columns with scale 2, the products are 4 or 0.
TEST(InitialValue, OrthogonalIsOrthogonalAndUniform) {
  for (const auto& [rows, columns] : {std::pair{7, 7}, std::pair{30, 4}, std::pair{4, 30}, std::pair{1, 5}}) {
    TensorSpec spec = Dense("w", {static_cast<uint64_t>(rows), static_cast<uint64_t>(columns)});
    spec.initializer = {Initializer::Kind::kOrthogonal, 2};
    std::vector<float> w(spec.elements());
    InitialDense(3, TensorId(1), spec, 0, absl::MakeSpan(w));
    const int few = std::min(rows, columns), many = std::max(rows, columns);
    const auto at = [&](int a, int i) { return rows <= columns ? w[a * columns + i] : w[i * columns + a]; };
    for (int a = 0; a < few; ++a) {
      for (int b = 0; b < few; ++b) {
        double sum = 0;
        for (int i = 0; i < many; ++i) sum += double{at(a, i)} * double{at(b, i)};
        EXPECT_NEAR(sum, a == b ? 4 : 0, 1e-5) << rows << "x" << columns;
      }
    }
  }
  // Uniform: elements of a 3 x 3 rotation or reflection have mean 0 and variance 1/3, and both determinants occur.
  double sum = 0, squares = 0;
  int positive = 0;
  constexpr int kTries = 4000;
  for (uint32_t t = 0; t < kTries; ++t) {
    TensorSpec spec = Dense("w", {3, 3});
    spec.initializer = {Initializer::Kind::kOrthogonal, 1};
    std::vector<float> w(9);
    InitialDense(5, TensorId(t), spec, 0, absl::MakeSpan(w));
    sum += double{w[0]};
    squares += double{w[0]} * double{w[0]};
    positive +=
        w[0] * (w[4] * w[8] - w[5] * w[7]) - w[1] * (w[3] * w[8] - w[5] * w[6]) + w[2] * (w[3] * w[7] - w[4] * w[6]) >
        0;
  }
  EXPECT_NEAR(sum / kTries, 0, 0.04);
  EXPECT_NEAR(squares / kTries, 1.0 / 3, 0.03);
  EXPECT_NEAR(positive, kTries / 2, 150);
}

TEST(InitialValue, NotEverythingCanBeOrthogonal) {
  TensorSpec spec = Dense("w", {2049, 2048});
  spec.initializer = {Initializer::Kind::kOrthogonal, 1};
  EXPECT_EQ(ValidateSpecs({spec}, uint64_t{1} << 40).code(), absl::StatusCode::kInvalidArgument);
  spec.shape = {2048, 2048};
  EXPECT_TRUE(ValidateSpecs({spec}, uint64_t{1} << 40).ok());
  spec.shape = {5};
  EXPECT_EQ(ValidateSpecs({spec}, uint64_t{1} << 40).code(), absl::StatusCode::kInvalidArgument);
  spec.sparse = true;
  EXPECT_EQ(ValidateSpecs({spec}, uint64_t{1} << 40).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace descent
