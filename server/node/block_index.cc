#include "server/node/block_index.h"

#include "absl/strings/str_cat.h"

namespace descent {

BlockIndex::BlockIndex(const std::vector<TensorSpec>& tensors, const Geometry& geometry, const PartitionMap& map,
                       ServerId self, WireEncoding encoding)
    : map_(map), self_(self), encoding_(encoding) {
  const size_t bytes = BytesPerFloat(encoding);
  local_.resize(tensors.size());
  for (bool sparse : {false, true}) {
    for (uint32_t t = 0; t < tensors.size(); ++t) {
      if (tensors[t].sparse != sparse) continue;
      const uint32_t blocks = geometry.blocks(tensors[t]);
      local_[t].assign(blocks, kElsewhere);
      for (uint32_t b = 0; b < blocks; ++b) {
        const BlockId id{TensorId(t), b};
        if (map.server(id) != self) continue;
        local_[t][b] = size();
        entries_.push_back({id, bytes * (sparse ? tensors[t].dim() : geometry.block_size(tensors[t], b))});
      }
    }
    if (!sparse) dense_ = size();
  }
  for (const TensorSpec& spec : tensors) {
    names_.push_back(spec.name);
    sparse_.push_back(spec.sparse);
  }
}

absl::StatusOr<uint32_t> BlockIndex::Find(BlockId id, bool sparse) const {
  const uint32_t t = id.tensor.value;
  if (t >= local_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("unknown tensor ", t, ": the job has ", local_.size()));
  }
  if (sparse_[t] != sparse) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", names_[t], "' is ", sparse_[t] ? "sparse" : "dense",
                                                   ", not ", sparse ? "sparse" : "dense"));
  }
  if (id.index >= local_[t].size()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", names_[t], "' has ", local_[t].size(),
                                                   sparse ? " slots, no slot " : " blocks, no block ", id.index));
  }
  if (local_[t][id.index] == kElsewhere) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(id), " belongs to server ", map_.server(id).value, ", this is server ", self_.value));
  }
  return local_[t][id.index];
}

std::string BlockIndex::Name(BlockId id) const {
  const uint32_t t = id.tensor.value;
  return absl::StrCat(sparse_[t] ? "table '" : "tensor '", names_[t], sparse_[t] ? "', slot " : "', block ", id.index);
}

}  // namespace descent
