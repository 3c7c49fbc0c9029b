#include "worker/features/label_pass.h"

#include <vector>

#include "common/base/status_macros.h"
#include "common/features/feature_statistics.h"

namespace descent {

absl::StatusOr<v1::FeatureStatistics> LabelStatistics(const Dataset& data, BatchPlan* plan, Rank rank,
                                                      uint32_t classes) {
  Moments numbers;
  std::vector<uint64_t> count(classes);
  uint64_t rows_read = 0;
  Batch batch;
  std::vector<uint64_t> rows;
  for (uint64_t clock = 0; clock < plan->clocks_per_epoch(); ++clock) {
    rows.clear();
    plan->Rows(rank, Clock(clock), &rows);
    DESCENT_RETURN_IF_ERROR(data.Read(rows, &batch));
    rows_read += batch.rows;
    for (const float label : batch.label) {
      if (classes == 0) {
        numbers.Add(label);
      } else {
        ++count[static_cast<size_t>(label)];
      }
    }
  }
  v1::FeatureStatistics statistics;
  statistics.set_rows(rows_read);
  statistics.set_columns(classes == 0 ? 1 : classes);
  if (classes == 0) AppendMoments(numbers, &statistics);
  for (const uint64_t k : count) {
    Moments of_class;
    of_class.count = rows_read;
    if (rows_read > 0) {
      of_class.mean = static_cast<double>(k) / static_cast<double>(rows_read);
      of_class.scatter = static_cast<double>(k) * (1 - of_class.mean);
      of_class.least = k == rows_read ? 1 : 0;
      of_class.greatest = k > 0 ? 1 : 0;
    }
    AppendMoments(of_class, &statistics);
  }
  return statistics;
}

}  // namespace descent
