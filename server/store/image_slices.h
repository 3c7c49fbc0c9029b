// A block's or slot's image in pieces that fit into messages and records: for export, cuts and replicas. Pure.
#ifndef DESCENT_SERVER_STORE_IMAGE_SLICES_H_
#define DESCENT_SERVER_STORE_IMAGE_SLICES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/wire/payload.h"
#include "server/store/block_store.h"

namespace descent {

struct ImageSlice {
  uint32_t first = 0;  // row
  uint32_t keys = 0;   // rows; dense: 0
  bool more = false;   // another slice with further rows follows
  Payload payload;     // shares the export's owners
};

// A dense block in one slice, a slot's rows in as many as keep each payload within `most_bytes` (one row at least; one
// slice, of no rows, for a slot without any). `dim` is a table's, 0 for dense.
std::vector<ImageSlice> SliceImage(const BlockExport& block, uint32_t dim, size_t most_bytes);

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_IMAGE_SLICES_H_
