#include "tests/simulation/told.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/simulation/final_state.h"

namespace descent::simulation {

void Told::Add(const Reply& reply, Incarnation pusher) {
  for (const auto& part : reply.dense) versions_[part.id] = std::max(versions_[part.id], part.version);
  for (const auto& part : reply.sparse) versions_[part.id] = std::max(versions_[part.id], part.version);
  if (!reply.ack.has_value()) return;
  const PushAck& ack = *reply.ack;
  if (ack.outcome != Outcome::kApplied && ack.outcome != Outcome::kDuplicate) return;
  pushers_[ack.rank.value] = std::max(pushers_[ack.rank.value], pusher);
  if (ack.complete && ack.outcome == Outcome::kApplied) applied_[ack.rank.value].insert(ack.clock.value);
  if (!ack.complete && ack.expected <= ack.clock) return;
  marks_[ack.rank.value] = std::max(marks_[ack.rank.value], ack.clock.value + 1);
}

uint64_t Told::clocks() const { return std::accumulate(marks_.begin(), marks_.end(), uint64_t{0}); }

std::string Told::Check(const Job& job, const PartitionMap& map, ServerId server, const Ledger& ledger,
                        ServerNode& node) const {
  const std::vector<TensorSpec> specs = job.tensors();
  for (uint32_t t = 0; t < specs.size(); ++t) {
    for (uint32_t b = 0; b < job.geometry().blocks(specs[t]); ++b) {
      const BlockId id{TensorId(t), b};
      if (map.server(id) != server) continue;
      const std::vector<uint64_t> marks = node.Marks(id);
      for (uint32_t r = 0; r < job.ranks; ++r) {
        if (marks[r] >= marks_[r]) continue;
        return absl::StrCat("block ", b, " of tensor ", t, " expects clock ", marks[r], " of rank ", r,
                            ", of which clock ", marks_[r] - 1, " was acknowledged");
      }
      const auto told = versions_.find(id);
      if (told != versions_.end() && node.store().version(id) < told->second) {
        return absl::StrCat("block ", b, " of tensor ", t, " is at version ", node.store().version(id),
                            ", and version ", told->second, " was read");
      }
      std::vector<uint64_t> least(job.ranks);
      for (uint32_t r = 0; r < job.ranks && job.backup_ranks > 0; ++r) {
        const auto end = applied_[r].lower_bound(node.store().version(id));
        least[r] = static_cast<uint64_t>(std::distance(applied_[r].begin(), end));
      }
      if (std::string wrong = CheckBlock(job, ledger, id, least, node); !wrong.empty()) return wrong;
    }
  }
  return "";
}

}  // namespace descent::simulation
