// The class of every training row, for what samples by class. A value.
#ifndef DESCENT_WORKER_DATA_ROW_CLASSES_H_
#define DESCENT_WORKER_DATA_ROW_CLASSES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/dataset.h"

namespace descent {

struct RowClasses {
  std::vector<uint32_t> of_row;
  std::vector<uint64_t> rows;  // of each class
};

// A pass over the data, whose labels are classes below `classes`: 4 bytes of memory for each row. Errors as
// Dataset::Read.
absl::StatusOr<RowClasses> ReadClasses(const Dataset& data, uint32_t classes);

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_ROW_CLASSES_H_
