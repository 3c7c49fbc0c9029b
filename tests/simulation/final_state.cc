#include "tests/simulation/final_state.h"

#include <optional>

#include "absl/strings/str_cat.h"

namespace descent::simulation {

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
      std::vector<uint64_t> keys;
      absl::StatusOr<Payload> read;
      if (specs[t].sparse) {
        for (uint64_t k = 0; k < kKeys; ++k) {
          if (geometry.slot(k) == b) keys.push_back(k);
        }
        Payload asked;
        asked.Append(keys.data(), keys.size() * sizeof(uint64_t), nullptr);
        read = node.store().ReadSparse(id, static_cast<uint32_t>(keys.size()), asked, std::nullopt);
      } else {
        read = node.store().Read(id, std::nullopt);
      }
      if (!read.ok()) return read.status().ToString();
      std::vector<float> values(read->size() / sizeof(float));
      read->CopyTo(values.data());
      *hash = HashFloats(*hash, values);
      if (t == kLedger) dense.insert(dense.end(), values.begin(), values.end());
      for (size_t k = 0; k < keys.size(); ++k) {
        for (uint32_t d = 0; d < kDim; ++d) counts[keys[k] * kDim + d] = values[k * kDim + d];
      }
    }
  }
  return ledger.CheckEnd(dense, counts);
}

}  // namespace descent::simulation
