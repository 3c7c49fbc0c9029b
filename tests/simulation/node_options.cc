#include "tests/simulation/node_options.h"

#include <utility>

#include "common/base/check.h"
#include "descent/v1/job.pb.h"

namespace descent::simulation {

ServerNodeOptions MakeNodeOptions(const Job& job, const Schedule& schedule, const PartitionMap& map,
                                  const Envelope& envelope, ServerId self) {
  auto rule = UpdateRule::Make(v1::Optimizer());  // plain gradient descent
  DESCENT_CHECK(rule.ok());
  ServerNodeOptions node;
  node.envelope = envelope;
  node.store.tensors = job.tensors();
  node.store.geometry = job.geometry();
  node.store.map = map;
  node.store.self = self;
  node.store.seed = job.number;
  node.store.ranks = job.ranks;
  node.store.rule = *std::move(rule);
  node.store.rate = [](Clock) { return 1.0f; };
  node.store.reduce_sum = job.reduce_sum;
  node.store.apply_push = job.apply_push;
  if (job.measures) node.store.clip.global_norm = 1e9f;  // far away: the ledger adds 1 for each push
  node.staleness = job.staleness;
  node.backup_ranks = job.backup_ranks;
  node.full_every = job.full_every;
  node.waiting_notice = absl::Milliseconds(40);
  node.send_window = schedule.send_window;
  return node;
}

}  // namespace descent::simulation
