#include "worker/data/batch_rows.h"

#include <cstdint>

#include "common/base/check.h"
#include "common/base/copy_bytes.h"

namespace descent {

void CopyRows(const Batch& batch, size_t first, size_t rows, Batch* part) {
  DESCENT_CHECK(batch.keys.empty());
  DESCENT_CHECK(first <= batch.rows && rows <= batch.rows - first);
  part->rows = rows;
  part->rank = batch.rank;
  part->clock = batch.clock;
  part->features = batch.features;
  part->sparse = batch.sparse;
  part->label.assign(batch.label.begin() + first, batch.label.begin() + first + rows);
  part->weight.clear();
  if (!batch.weight.empty()) part->weight.assign(batch.weight.begin() + first, batch.weight.begin() + first + rows);
  if (!batch.sparse) {
    part->dense.Resize(rows * batch.features);
    CopyBytes(part->dense.data(), batch.dense.data() + first * batch.features, rows * batch.features * sizeof(float));
    return;
  }
  const uint32_t begin = batch.row_begin[first], end = batch.row_begin[first + rows];
  part->row_begin.resize(rows + 1);
  for (size_t i = 0; i <= rows; ++i) part->row_begin[i] = batch.row_begin[first + i] - begin;
  part->column.assign(batch.column.begin() + begin, batch.column.begin() + end);
  part->value.assign(batch.value.begin() + begin, batch.value.begin() + end);
}

}  // namespace descent
