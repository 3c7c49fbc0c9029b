// Runs of a batch's rows as batches of their own: what is computed a few rows at a time is taken from one long batch.
//
// Thread-safety: none; a value is written.
#ifndef DESCENT_WORKER_DATA_BATCH_ROWS_H_
#define DESCENT_WORKER_DATA_BATCH_ROWS_H_

#include <cstddef>

#include "worker/data/batch.h"

namespace descent {

// *part becomes `rows` rows of `batch` from `first` on, with the rank and clock of `batch`. They are copied, so that
// models find them where they find those of any batch: aligned. The rows must be there. Not of batches with keys.
void CopyRows(const Batch& batch, size_t first, size_t rows, Batch* part);

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_BATCH_ROWS_H_
