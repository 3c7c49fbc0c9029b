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
  std::vector<float> whole(100), part(37);
  InitialDense(3, TensorId(1), normal, 0, absl::MakeSpan(whole));
  InitialDense(3, TensorId(1), normal, 11, absl::MakeSpan(part));
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 11));
  std::vector<float> row(4), other(4);
  InitialRow(3, TensorId(1), normal, 5, absl::MakeSpan(row));
  InitialRow(3, TensorId(1), normal, 6, absl::MakeSpan(other));
  EXPECT_NE(row, other);
}

}  // namespace
}  // namespace descent
