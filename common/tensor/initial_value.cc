#include "common/tensor/initial_value.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/random/philox.h"
#include "common/tensor/orthogonal.h"

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
    case Initializer::Kind::kOrthogonal:
      break;  // not element by element
  }
  DESCENT_CHECK(false);
}

}  // namespace

void InitialDense(uint64_t seed, TensorId tensor, const TensorSpec& spec, uint64_t begin, absl::Span<float> out) {
  const RandomStream stream(seed, Purpose::kInitialValue, 0, tensor.value);
  if (spec.initializer.kind == Initializer::Kind::kOrthogonal) {
    OrthogonalElements(stream, spec.shape[0], spec.shape[1], spec.initializer.scale, begin, out);
  } else {
    Fill(stream, spec.initializer, begin, out);
  }
}

void InitialRow(uint64_t seed, TensorId table, const Initializer& initializer, uint64_t key, absl::Span<float> out) {
  Fill(RandomStream(seed, Purpose::kInitialValue, key + 1, table.value), initializer, 0, out);
}

}  // namespace descent
