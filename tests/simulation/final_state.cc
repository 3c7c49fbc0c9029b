#include "tests/simulation/final_state.h"

#include <optional>

#include "absl/strings/str_cat.h"

namespace descent::simulation {

namespace {

// A block's elements, or the rows of all keys of a slot.
struct Contents {
  std::vector<uint64_t> keys;
  std::vector<float> values;
};

absl::StatusOr<Contents> Read(const Job& job, const TensorSpec& spec, BlockId id, ServerNode& node) {
  Contents contents;
  absl::StatusOr<Payload> read;
  if (spec.sparse) {
    for (uint64_t k = 0; k < kKeys; ++k) {
      if (job.geometry().slot(k) == id.index) contents.keys.push_back(k);
    }
    Payload asked;
    asked.Append(contents.keys.data(), contents.keys.size() * sizeof(uint64_t), nullptr);
    read = node.store().ReadSparse(id, static_cast<uint32_t>(contents.keys.size()), asked, std::nullopt);
  } else {
    read = node.store().Read(id, std::nullopt);
  }
  if (!read.ok()) return read.status();
  contents.values.resize(read->size() / sizeof(float));
  read->CopyTo(contents.values.data());
  return contents;
}

}  // namespace

std::string CheckServers(const Job& job, const PartitionMap& map, const Ledger& ledger,
                         const std::vector<ServerNode*>& servers, uint64_t* hash) {
  const std::vector<TensorSpec> specs = job.tensors();
  const Geometry geometry = job.geometry();
  *hash = 0;
  std::vector<float> dense, counts(job.sparse ? kKeys * kDim : 0);
  for (uint32_t t = 0; t < specs.size(); ++t) {
    for (uint32_t b = 0; b < geometry.blocks(specs[t]); ++b) {
      const BlockId id{TensorId(t), b};
      ServerNode& node = *servers[map.server(id).value];
      const std::vector<uint64_t> marks = node.Marks(id);
      for (uint32_t r = 0; r < job.ranks; ++r) {
        if (marks[r] != job.clocks) {
          return absl::StrCat("block ", b, " of tensor ", t, " expects clock ", marks[r], " of rank ", r);
        }
      }
      const absl::StatusOr<Contents> read = Read(job, specs[t], id, node);
      if (!read.ok()) return read.status().ToString();
      const auto& [keys, values] = *read;
      *hash = HashFloats(*hash, values);
      if (t == kLedger) dense.insert(dense.end(), values.begin(), values.end());
      for (size_t k = 0; k < keys.size(); ++k) {
        for (uint32_t d = 0; d < kDim; ++d) counts[keys[k] * kDim + d] = values[k * kDim + d];
      }
    }
  }
  return ledger.CheckEnd(dense, counts);
}

std::string CheckBlock(const Job& job, const Ledger& ledger, BlockId id, const std::vector<uint64_t>& least,
                       ServerNode& node) {
  if (id.tensor.value != kLedger && id.tensor.value != kCounts) return "";
  const absl::StatusOr<Contents> read = Read(job, job.tensors()[id.tensor.value], id, node);
  if (!read.ok()) return read.status().ToString();
  std::vector<uint64_t> clocks = node.Marks(id);
  if (!job.apply_push) clocks.assign(job.ranks, node.store().version(id));
  const std::string wrong = id.tensor.value == kLedger ? ledger.CheckDense(read->values, clocks, least)
                                                       : ledger.CheckRows(read->keys, read->values, clocks);
  return wrong.empty() ? "" : absl::StrCat("block ", id.index, " of tensor ", id.tensor.value, ": ", wrong);
}

}  // namespace descent::simulation
