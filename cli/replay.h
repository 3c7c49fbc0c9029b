// Does a recorded run again, one step after another in one process, with the code that the servers and workers ran:
// their store, their models, their data. What the run did in parallel is told by the order in its newest cut
// (server/node/order_log.h); the initial values come from the store, so that nothing of the result is taken from the
// cut.
//
// Not thread-safe.
#ifndef DESCENT_CLI_REPLAY_H_
#define DESCENT_CLI_REPLAY_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/tensor/tensor_spec.h"
#include "server/node/order_log.h"
#include "server/store/block_store.h"
#include "worker/loop/local_steps.h"
#include "worker/loop/trainer.h"
#include "worker/models/model.h"

namespace descent {

struct RecordedBlock {
  BlockOrder order;
  uint64_t version = 0;
  uint64_t steps = 0;  // of a slot: those of its table when the cut was taken
};

// What a replay is made of. All pointers outlive it.
struct ReplayInput {
  BlockStore* store = nullptr;  // of all blocks, at their initial values; PUSH or ROUND as the job says
  Model<float>* model = nullptr;
  BatchSource* batches = nullptr;
  LocalSteps* local_steps = nullptr;  // null: what a rank pushes is its gradient
  Geometry geometry;
  uint32_t ranks = 1;
  uint64_t staleness = 0;                // ROUND
  std::vector<StalenessChange> changes;  // of it
  bool tells_reads = false;              // PUSH: the store is told which version a push was computed from
  WireEncoding encoding = WireEncoding::kF32;
  bool averaged = false;                    // the model is the averages
  std::map<BlockId, RecordedBlock> blocks;  // all of the model
};

struct ReplayCounts {
  uint64_t gradients = 0;  // computed
  uint64_t steps = 0;      // made, over all blocks
};

// Brings the store to where the cut stood. DATA_LOSS: the orders contradict each other, or the data; names the block,
// rank and clock. Errors of the data as they are.
absl::Status ReplayPushes(const ReplayInput& input, ReplayCounts* counts);
absl::Status ReplayRounds(const ReplayInput& input, ReplayCounts* counts);

// As the saved model's (common/saved_model/canonical_hash.h), of slots caught up to `blocks`' steps.
struct ReplayedHashes {
  std::string parameters_sha256, state_sha256;
};
absl::StatusOr<ReplayedHashes> HashStore(const ReplayInput& input, bool apply_push);

struct ReplayOptions {
  std::string run_dir;
  std::string data_root;   // in the place of the job's; empty: as the job says
  std::string user_cache;  // where data shards are kept unless the job says so
};
struct ReplayOutcome {
  std::string cut;  // its folder's name
  std::string recorded_sha256, recorded_state_sha256;
  ReplayedHashes replayed;
  ReplayCounts counts;
  std::string note;  // for people: why it may differ, or which block does; empty
  bool equal() const {
    return replayed.parameters_sha256 == recorded_sha256 && replayed.state_sha256 == recorded_state_sha256;
  }
};
// NOT_FOUND, FAILED_PRECONDITION: no run, no summary, no order recorded, no cut that can be used. INVALID_ARGUMENT: a
// job or a model that cannot be made here. Else as above.
absl::StatusOr<ReplayOutcome> ReplayRun(const ReplayOptions& options);

}  // namespace descent

#endif  // DESCENT_CLI_REPLAY_H_
