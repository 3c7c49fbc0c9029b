// Everything that can be wrong with a request before the engine sees it: ids, spans, weights, and the payload's length
// against what the parts say. Nothing from the wire is trusted.
//
// Thread-safety: none; one RequestCheck per thread (it keeps scratch space).
#ifndef DESCENT_SERVER_NODE_REQUEST_CHECK_H_
#define DESCENT_SERVER_NODE_REQUEST_CHECK_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/frame.h"
#include "server/node/block_index.h"

namespace descent {

// What a checked request refers to. Valid until the next Check.
struct CheckedRequest {
  std::vector<uint32_t> push_blocks;  // local numbers, dense parts then sparse ones
  std::vector<size_t> push_bytes;     // of each part in the payload
  std::vector<uint32_t> pull_dense;   // local numbers, as listed; empty for all_dense
  size_t push_size = 0;               // sum of push_bytes; the pull's keys follow
};

class RequestCheck {
 public:
  RequestCheck(const BlockIndex* index, uint32_t ranks);

  // Protocol, job and run: FAILED_PRECONDITION, both values named. Generation: ABORTED. Map epoch: FAILED_PRECONDITION.
  static absl::Status CheckEnvelope(const Envelope& expected, const Envelope& got, Outcome* outcome);

  // INVALID_ARGUMENT names what is wrong.
  absl::Status Check(const Request& request);
  const CheckedRequest& checked() const { return checked_; }

 private:
  absl::Status CheckPush(const PushFrame& push);
  absl::Status CheckPull(const PullFrame& pull, uint64_t* key_bytes);
  absl::Status Once(uint32_t local);

  const BlockIndex* const index_;
  const uint32_t ranks_;
  CheckedRequest checked_;
  std::vector<uint64_t> stamp_;  // per block: the last part list that named it
  uint64_t lists_ = 0;
};

// A contribution in contiguous memory, `keys` keys and rows of `row_bytes` (dense: keys = 0, and `size` bytes of
// floats). Names the first value that is no finite number, or the first key that is out of order or of another slot.
struct PartFault {
  absl::Status status;     // OK: none
  bool nonfinite = false;  // else the form is wrong
};
PartFault CheckPart(const BlockIndex& index, const Geometry& geometry, uint32_t local, uint32_t keys,
                    const std::byte* data, size_t size);

}  // namespace descent

#endif  // DESCENT_SERVER_NODE_REQUEST_CHECK_H_
