// The blocks and slots of one server under one numbering: dense blocks in (tensor, block) order, then slots in (table,
// slot) order. Array look-ups both ways. Immutable; thread-safe.
#ifndef DESCENT_SERVER_NODE_BLOCK_INDEX_H_
#define DESCENT_SERVER_NODE_BLOCK_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/tensor/partition_map.h"
#include "common/tensor/tensor_spec.h"
#include "common/wire/half.h"

namespace descent {

class BlockIndex {
 public:
  BlockIndex(const std::vector<TensorSpec>& tensors, const Geometry& geometry, const PartitionMap& map, ServerId self,
             WireEncoding encoding = WireEncoding::kF32);

  uint32_t dense() const { return dense_; }
  uint32_t size() const { return static_cast<uint32_t>(entries_.size()); }
  uint32_t slots() const { return size() - dense_; }
  BlockId id(uint32_t local) const { return entries_[local].id; }
  WireEncoding encoding() const { return encoding_; }
  // On the wire. Dense: bytes of the block. Slot: bytes of a row.
  size_t bytes(uint32_t local) const { return entries_[local].bytes; }

  // INVALID_ARGUMENT: no such tensor or block, the other kind of tensor, or another server's. `sparse`: a slot is
  // meant.
  absl::StatusOr<uint32_t> Find(BlockId id, bool sparse) const;
  // "tensor 'w', block 3" or "table 'w', slot 3".
  std::string Name(BlockId id) const;

 private:
  struct Entry {
    BlockId id;
    size_t bytes;
  };
  static constexpr uint32_t kElsewhere = ~uint32_t{0};
  std::vector<std::string> names_;
  std::vector<bool> sparse_;
  std::vector<std::vector<uint32_t>> local_;  // [tensor][block or slot]
  const PartitionMap map_;
  const ServerId self_;
  const WireEncoding encoding_;
  std::vector<Entry> entries_;
  uint32_t dense_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_NODE_BLOCK_INDEX_H_
