#include "common/tensor/initial_value.h"

#include <algorithm>

#include "common/random/philox.h"

namespace descent {
namespace {

void Fill(const RandomStream& stream, const Initializer& initializer, uint64_t begin, absl::Span<float> out) {
  switch (initializer.kind) {
    case Initializer::Kind::kZero:
      std::fill(out.begin(), out.end(), 0.0f);
      return;
    case Initializer::Kind::kConstant:
      std::fill(out.begin(), out.end(), static_cast<float>(initializer.scale));
      return;
    case Initializer::Kind::kUniform:
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = static_cast<float>(initializer.scale * (2.0 * stream.Uniform(begin + i) - 1.0));
      }
      return;
    case Initializer::Kind::kNormal:
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = static_cast<float>(initializer.scale * stream.Normal(begin + i));
      }
      return;
  }
}

}  // namespace

void InitialDense(uint64_t seed, TensorId tensor, const Initializer& initializer, uint64_t begin,
                  absl::Span<float> out) {
  Fill(RandomStream(seed, Purpose::kInitialValue, 0, tensor.value), initializer, begin, out);
}

void InitialRow(uint64_t seed, TensorId table, const Initializer& initializer, uint64_t key, absl::Span<float> out) {
  Fill(RandomStream(seed, Purpose::kInitialValue, key + 1, table.value), initializer, 0, out);
}

}  // namespace descent
