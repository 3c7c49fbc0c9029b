#include "tests/simulation/cluster_truth.h"

namespace descent::simulation {

std::vector<std::string> ClusterCoverage::Names() {
  std::vector<std::string> names = {"double kills",        "power losses",         "pauses",
                                    "partitions one-way",  "partitions two-way",   "disk full",
                                    "failing fsyncs",      "failing renames",      "bytes damaged",
                                    "generations",         "restores from cuts",   "restarts from nothing",
                                    "cuts committed",      "cuts given up",        "bad cuts skipped",
                                    "torn or lost writes", "zombies back",         "pushes fenced",
                                    "duplicates",          "pulls held",           "saves tried again",
                                    "servers moved",       "deaths amid disk work"};
  for (const char* name :
       {"promotions", "backups joined", "adoptions", "clocks acknowledged under replication",
        "clocks that a successor has to hold", "workers that followed a promotion", "links to backups broken",
        "partitions of a primary and its backup", "backups given up", "kills of a primary and its backup",
        "servers cut off from the coordinator", "ranks left behind", "deaths to be got over without a new generation",
        "other faults to be got over without a new generation",
        "deaths of the coordinator to be got over without a roll-back"}) {
    names.push_back(name);
  }
  for (size_t role = 0; role < kRoles; ++role) {
    for (size_t moment = 0; moment < kMoments; ++moment) {
      // What a worker does when servers change hands is seen where it follows.
      if (role == static_cast<size_t>(Role::kWorker) && moment >= static_cast<size_t>(Moment::kPromoting)) continue;
      names.push_back(absl::StrCat("kills of a ", kRoleNames[role], " while ", kMomentNames[moment]));
    }
  }
  return names;
}

void ClusterTruth::Serves(Generation generation, std::optional<CutId> from) {
  ++generations_;
  coverage.Add("generations");
  if (generation <= served_) {
    Wrong(absl::StrCat("generation ", generation.value, " is served after generation ", served_.value));
  }
  if (expected_ == Expected::kSameGeneration) {
    Wrong(
        absl::StrCat("everything was held twice when one thing failed, and generation ", generation.value, " begins"));
  }
  served_ = generation;
  const CutKey key = from.has_value() ? Key(*from) : CutKey{0, 0};
  if (key < committed_) {
    Wrong(absl::StrCat("generation ", generation.value, " goes on from cut ", key.second, " of generation ", key.first,
                       ", but cut ", committed_.second, " of generation ", committed_.first, " had been committed"));
  }
  if (!from.has_value()) {
    if (generations_ > 1) coverage.Add("restarts from nothing");
    return;
  }
  coverage.Add("restores from cuts");
  const auto pushed = pushed_of_.find(key);
  if (pushed == pushed_of_.end()) {
    return Wrong(absl::StrCat("generation ", generation.value, " goes on from cut ", key.second, " of generation ",
                              key.first, ", whose parts were never all there"));
  }
  ledger(generation).GoOnFrom(pushed->second, key.second);
}

void ClusterTruth::BeginsAnew(Generation generation, bool restored) {
  restored_from_cut_ |= restored;
  if (expected_ == Expected::kAnything || generation.value == 1) return;
  Wrong(absl::StrCat("blocks of generation ", generation.value, " are made anew, though nothing was lost"));
}

void ClusterTruth::Carried(Generation from, Generation to, ServerId server) {
  if (carried_.insert(to).second) coverage.Add("adoptions");
  // What was pushed until now may be seen.
  ledger(to).GoOnWith(ledger(from));
  told(to, server) = told(from, server);
}

}  // namespace descent::simulation
