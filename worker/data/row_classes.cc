#include "worker/data/row_classes.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace descent {

absl::StatusOr<RowClasses> ReadClasses(const Dataset& data, uint32_t classes) {
  constexpr uint64_t kStep = 8192;
  RowClasses out;
  out.rows.resize(classes);
  out.of_row.reserve(data.rows());
  std::vector<uint64_t> rows;
  Batch batch;
  for (uint64_t begin = 0; begin < data.rows(); begin += kStep) {
    rows.resize(std::min(kStep, data.rows() - begin));
    std::iota(rows.begin(), rows.end(), begin);
    DESCENT_RETURN_IF_ERROR(data.Read(rows, &batch));
    for (const float label : batch.label) {
      if (!(label >= 0 && label < static_cast<float>(classes))) {
        return absl::InvalidArgumentError(absl::StrCat("row ", out.of_row.size(), " has the label ", label,
                                                       "; a class below ", classes, " was expected"));
      }
      out.of_row.push_back(static_cast<uint32_t>(label));
      ++out.rows[out.of_row.back()];
    }
  }
  return out;
}

}  // namespace descent
