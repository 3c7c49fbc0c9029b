#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "server/node/node_impl.h"

namespace descent {

namespace {

constexpr uint64_t kMostStaleness = 4096;  // with ROUND, whose versions are kept

absl::Status Validate(const ServerNodeOptions& options) {
  const StoreOptions& store = options.store;
  if (store.ranks == 0) return absl::InvalidArgumentError("ranks: 0, at least 1 is needed");
  if (!store.apply_push && options.staleness != kUnbounded && options.staleness > kMostStaleness) {
    return absl::InvalidArgumentError(
        absl::StrCat("staleness: ", options.staleness, ", with apply: ROUND at most ", kMostStaleness));
  }
  if (options.backup_ranks > 0 && (store.apply_push || options.staleness != 0)) {
    return absl::InvalidArgumentError("backup_ranks: they are for apply: ROUND without staleness");
  }
  if (options.backup_ranks >= store.ranks) {
    return absl::InvalidArgumentError(
        absl::StrCat("backup_ranks: ", options.backup_ranks, " of ", store.ranks, " ranks"));
  }
  if (options.send_window == 0) return absl::InvalidArgumentError("send_window: 0, at least 1 is needed");
  if (options.restored.has_value()) {
    const std::vector<Clock>& restart = options.restored->restart;
    if (!restart.empty() && restart.size() != store.ranks) {
      return absl::InvalidArgumentError(
          absl::StrCat("cut: it has clocks of ", restart.size(), " ranks, the job has ", store.ranks));
    }
    for (uint32_t r = 1; r < restart.size() && !store.apply_push; ++r) {
      if (restart[r] == restart[0]) continue;
      return absl::InvalidArgumentError(absl::StrCat("cut: rank ", r, " goes on with clock ", restart[r].value,
                                                     ", rank 0 with ", restart[0].value,
                                                     ", but with apply: ROUND all are the cut's"));
    }
  }
  if (store.map.placement.size() != store.tensors.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("partition map: ", store.map.placement.size(), " tensors, the job has ", store.tensors.size()));
  }
  for (size_t t = 0; t < store.tensors.size(); ++t) {
    const uint32_t blocks = store.geometry.blocks(store.tensors[t]);
    if (store.map.placement[t].size() != blocks) {
      return absl::InvalidArgumentError(absl::StrCat("partition map: tensor '", store.tensors[t].name, "' has ", blocks,
                                                     " blocks, the map ", store.map.placement[t].size()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

uint32_t HistoryFor(const ServerNodeOptions& options) {
  // What a push was computed from: as many pushes ago as two of each rank make.
  if (options.store.apply_push && options.store.compensation > 0) return 2 * options.store.ranks;
  if (options.store.apply_push || options.staleness == kUnbounded) return 0;
  const uint64_t s = std::min(options.staleness, kMostStaleness);
  // With backup ranks the others need not wait for a rank whose rows of a table are half in on another server: who does
  // not read there goes on until it may push no more, two clocks further, and the rank is still to read its own.
  const bool tables = std::any_of(options.store.tensors.begin(), options.store.tensors.end(),
                                  [](const TensorSpec& spec) { return spec.sparse; });
  if (options.backup_ranks > 0 && tables) return 3;
  return static_cast<uint32_t>(2 * s + 1 + (options.fault == EngineFault::kGateOffByOne ? 1 : 0));
}

absl::StatusOr<std::unique_ptr<ServerNode>> ServerNode::Create(ServerNodeOptions options,
                                                               std::unique_ptr<BlockStore> store, Output* output) {
  DESCENT_RETURN_IF_ERROR(Validate(options));
  return std::unique_ptr<ServerNode>(new NodeImpl(std::move(options), std::move(store), output));
}

}  // namespace descent
