// Sums over whole tensors that a step needs before any block can make it: the norms of clipping, LARS and LAMB. Each
// server sums its blocks, in double; whoever has the parts of all servers adds them in (tensor, block) order. So a
// total does not depend on which server holds what. Values; pure.
#ifndef DESCENT_COMMON_TENSOR_GLOBAL_SCALARS_H_
#define DESCENT_COMMON_TENSOR_GLOBAL_SCALARS_H_

#include <algorithm>
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
  double square = 0;             // of the mean gradient; where the rule measures its direction: of that
  double parameter_square = 0;   // where the rule needs it
  double step_square = 0;        // of what the round changed in the parameters, where it is told for the record
  std::vector<double> products;  // inner products of a full-gradient method
  bool operator==(const BlockScalars&) const = default;
};

struct ScalarTotals {
  Clock clock;
  std::vector<double> square, parameter_square;  // by tensor
  double step_square = 0;                        // of all
  std::vector<double> products;                  // of all; empty: no block told any
  bool operator==(const ScalarTotals&) const = default;
};

// `parts`: of all servers, each block at most once, ascending; a block that is not there has added nothing.
inline ScalarTotals AddInBlockOrder(Clock clock, size_t tensors, absl::Span<const BlockScalars> parts) {
  ScalarTotals totals{clock, std::vector<double>(tensors, 0), std::vector<double>(tensors, 0), 0, {}};
  for (const BlockScalars& part : parts) {
    totals.square[part.id.tensor.value] += part.square;
    totals.parameter_square[part.id.tensor.value] += part.parameter_square;
    totals.step_square += part.step_square;
    if (part.products.empty()) continue;
    totals.products.resize(std::max(totals.products.size(), part.products.size()));
    for (size_t i = 0; i < part.products.size(); ++i) totals.products[i] += part.products[i];
  }
  return totals;
}

// INVALID_ARGUMENT unless there is a number of at least 0 for each of so many tensors, and so many products or none.
inline absl::Status CheckTotals(const ScalarTotals& totals, size_t tensors, size_t products) {
  bool good = totals.square.size() == tensors && totals.parameter_square.size() == tensors &&
              (totals.products.empty() || totals.products.size() == products);
  for (const auto* squares : {&totals.square, &totals.parameter_square}) {
    for (double square : *squares) good &= square >= 0 && std::isfinite(square);
  }
  for (double product : totals.products) good &= std::isfinite(product);
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("scalars of clock ", totals.clock.value, ": expected sums of squares of ", tensors, " tensors, got ",
                   totals.square.size(), " and ", totals.parameter_square.size(), " numbers and ",
                   totals.products.size(), " products of ", products, ", or some that are none"));
}

// Of all tensors together.
inline double SumOfSquares(const ScalarTotals& totals) {
  double sum = 0;
  for (double square : totals.square) sum += square;
  return sum;
}

}  // namespace descent

#endif  // DESCENT_COMMON_TENSOR_GLOBAL_SCALARS_H_
