#include "tests/simulation/cluster_truth.h"

namespace descent::simulation {

std::vector<std::string> ClusterCoverage::Names() {
  std::vector<std::string> names = {"double kills",
                                    "power losses",
                                    "pauses",
                                    "partitions one-way",
                                    "partitions two-way",
                                    "disk full",
                                    "failing fsyncs",
                                    "failing renames",
                                    "damaged cuts found",
                                    "generations",
                                    "restores from cuts",
                                    "restarts from nothing",
                                    "cuts committed",
                                    "cuts given up",
                                    "bad cuts skipped",
                                    "torn or lost writes",
                                    "zombies back",
                                    "pushes fenced",
                                    "duplicates",
                                    "pulls held",
                                    "saves tried again",
                                    "servers moved",
                                    "deaths amid disk work",
                                    "norms agreed on",
                                    "norms told again to another coordinator"};
  for (const char* name : {"promotions",
                           "backups joined",
                           "adoptions",
                           "clocks acknowledged under replication",
                           "clocks that a successor has to hold",
                           "workers that followed a promotion",
                           "links to backups mended",
                           "partitions of a primary and its backup",
                           "backups given up",
                           "kills of a primary and its backup",
                           "servers cut off from the coordinator",
                           "ranks left behind",
                           "deaths got over without a new generation",
                           "other faults got over without a new generation",
                           "deaths of the coordinator amid an adoption got over without a roll-back",
                           "deaths of the coordinator got over without a roll-back",
                           "backups taken back",
                           "stops, cut demanded",
                           "stops with replicas, cut demanded",
                           "stops while a backup joined, cut demanded",
                           "stops in which a server died, cut demanded",
                           "stops gone on from"}) {
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
  began_as_ = generations_ == 1 ? "" : from.has_value() ? "restores from cuts" : "restarts from nothing";
  if (!from.has_value()) return;
  const auto pushed = pushed_of_.find(key);
  if (pushed == pushed_of_.end()) {
    return Wrong(absl::StrCat("generation ", generation.value, " goes on from cut ", key.second, " of generation ",
                              key.first, ", whose parts were never all there"));
  }
  ledger(generation).GoOnFrom(pushed->second, key.second);
}

void ClusterTruth::Runs(Generation generation) {
  if (std::exchange(runs_, generation) == generation) return;
  coverage.Add("generations");
  if (carried_.contains(generation)) began_as_ = "adoptions";
  if (!began_as_.empty()) coverage.Add(began_as_);
}

bool ClusterTruth::Awaited::Look(Generation generation, uint64_t round, absl::Time now) {
  if (now < from) return false;
  if (!at.has_value() || at->first != generation) at.emplace(generation, round);
  return round > at->second;
}

void ClusterTruth::Expect(Expected expected, std::string name, absl::Time from) {
  expected_ = expected;
  awaited_if_undisturbed_.reset();
  if (!name.empty()) awaited_if_undisturbed_ = Awaited{std::move(name), from, std::nullopt};
}

void ClusterTruth::Reached(Generation generation, uint64_t round, absl::Time now) {
  std::vector<Awaited> still;
  for (Awaited& a : awaited_) {
    if (a.Look(generation, round, now)) {
      coverage.Add(a.name);
    } else {
      still.push_back(std::move(a));
    }
  }
  awaited_ = std::move(still);
  if (!awaited_if_undisturbed_.has_value() || !awaited_if_undisturbed_->Look(generation, round, now)) return;
  coverage.Add(awaited_if_undisturbed_->name);
  awaited_if_undisturbed_.reset();
}

void ClusterTruth::Ended(absl::Time now) {
  if (awaited_if_undisturbed_.has_value()) awaited_.push_back(*awaited_if_undisturbed_);
  for (const Awaited& a : awaited_) {
    if (a.from <= now) coverage.Add(a.name);
  }
  awaited_.clear();
  awaited_if_undisturbed_.reset();
}

void ClusterTruth::BeginsAnew(Generation generation, bool restored) {
  restored_from_cut_ |= restored;
  if (expected_ == Expected::kAnything || generation.value == 1) return;
  Wrong(absl::StrCat("blocks of generation ", generation.value, " are made anew, though nothing was lost"));
}

void ClusterTruth::AgreedOn(Clock clock, double square) {
  coverage.Add("norms agreed on");
  const auto [before, first] = norms_.try_emplace(clock, square);
  if (first || before->second == square) return;
  Wrong(absl::StrCat("the squared norm of clock ", clock.value, " was ", before->second, ", and is ", square));
}

void ClusterTruth::Carried(Generation from, Generation to, ServerId server) {
  carried_.insert(to);
  // What was pushed until now may be seen.
  ledger(to).GoOnWith(ledger(from));
  told(to, server) = told(from, server);
}

}  // namespace descent::simulation
