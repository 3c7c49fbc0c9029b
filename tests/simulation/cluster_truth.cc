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
  for (const char* role : kRoleNames) {
    for (const char* moment : kMomentNames) names.push_back(absl::StrCat("kills of a ", role, " while ", moment));
  }
  return names;
}

void ClusterTruth::Serves(Generation generation, std::optional<CutId> from) {
  ++generations_;
  coverage.Add("generations");
  if (generation <= served_) {
    Wrong(absl::StrCat("generation ", generation.value, " is served after generation ", served_.value));
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
  restored_from_cut_ = true;
  coverage.Add("restores from cuts");
  const auto pushed = pushed_of_.find(key);
  if (pushed == pushed_of_.end()) {
    return Wrong(absl::StrCat("generation ", generation.value, " goes on from cut ", key.second, " of generation ",
                              key.first, ", whose parts were never all there"));
  }
  ledger(generation).GoOnFrom(pushed->second, key.second);
}

}  // namespace descent::simulation
