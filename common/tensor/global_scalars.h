// Sums over whole tensors that a step needs before any block can make it: the norms of clipping, LARS and LAMB. Each
// server sums its blocks, in double; whoever has the parts of all servers adds them in (tensor, block) order. So a
// total does not depend on which server holds what. Values; pure.
#ifndef DESCENT_COMMON_TENSOR_GLOBAL_SCALARS_H_
#define DESCENT_COMMON_TENSOR_GLOBAL_SCALARS_H_

#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/base/ids.h"

namespace descent {

struct BlockScalars {
  BlockId id;
  double square = 0;            // of the mean gradient; where the rule measures its direction: of that
  double parameter_square = 0;  // where the rule needs it
  double step_square = 0;       // of what the round changed in the parameters, where it is told for the record
  bool operator==(const BlockScalars&) const = default;
};

struct ScalarTotals {
  Clock clock;
  std::vector<double> square, parameter_square;  // by tensor
  double step_square = 0;                        // of all
  bool operator==(const ScalarTotals&) const = default;
};

// `parts`: of all servers, each block at most once, ascending; a block that is not there has added nothing.
inline ScalarTotals AddInBlockOrder(Clock clock, size_t tensors, absl::Span<const BlockScalars> parts) {
  ScalarTotals totals{clock, std::vector<double>(tensors, 0), std::vector<double>(tensors, 0), 0};
  for (const BlockScalars& part : parts) {
    totals.square[part.id.tensor.value] += part.square;
    totals.parameter_square[part.id.tensor.value] += part.parameter_square;
    totals.step_square += part.step_square;
  }
  return totals;
}

// INVALID_ARGUMENT unless there is a number of at least 0 for each of so many tensors.
inline absl::Status CheckTotals(const ScalarTotals& totals, size_t tensors) {
  bool good = totals.square.size() == tensors && totals.parameter_square.size() == tensors;
  for (const auto* squares : {&totals.square, &totals.parameter_square}) {
    for (double square : *squares) good &= square >= 0 && std::isfinite(square);
  }
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("scalars of clock ", totals.clock.value, ": expected sums of squares of ", tensors, " tensors, got ",
                   totals.square.size(), " and ", totals.parameter_square.size(), " numbers, or some that are none"));
}

// Of all tensors together.
inline double SumOfSquares(const ScalarTotals& totals) {
  double sum = 0;
  for (double square : totals.square) sum += square;
  return sum;
}

}  // namespace descent

#endif  // DESCENT_COMMON_TENSOR_GLOBAL_SCALARS_H_
