// What is true of a simulated cluster, whatever its processes believe: which generations were served, which cuts were
// committed, who was given which rank, what each line of history may hold. And what has happened, in numbers.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_TRUTH_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_TRUTH_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/checkpoint/cut_id.h"
#include "tests/simulation/cluster_scenario.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/told.h"

namespace descent::simulation {

// By name; those of Names() are there from the beginning, and none may be 0 after a campaign. What is counted has come
// about: a fault once the run has gone on after it (ClusterTruth::Await), a promotion once the new primary has
// acknowledged a push, a backup's return once it is synced again.
class ClusterCoverage {
 public:
  static std::vector<std::string> Names();
  ClusterCoverage() {
    for (const std::string& name : Names()) counts_[name];
  }
  void Add(const std::string& name, uint64_t n = 1) { counts_[name] += n; }
  void Add(const ClusterCoverage& other) {
    for (const auto& [name, n] : other.counts_) counts_[name] += n;
  }
  const std::map<std::string, uint64_t>& counts() const { return counts_; }

 private:
  std::map<std::string, uint64_t> counts_;
};

class ClusterTruth {
 public:
  explicit ClusterTruth(const Job& job) : job_(job) {}

  void Wrong(std::string what) {
    if (error_.empty()) error_ = std::move(what);
  }
  const std::string& error() const { return error_; }

  // A coordinator begins to serve a generation, on from that cut.
  void Serves(Generation generation, std::optional<CutId> from);
  // All parts of a cut are reported, and its manifest is about to be written; and it has been.
  void Committing(const CutId& cut) { pushed_of_.try_emplace(Key(cut), ledger(cut.generation).pushed()); }
  void Committed(const CutId& cut) { committed_ = std::max(committed_, Key(cut)); }
  // A committed cut has gone bad on the disk; `next` is the newest good one that is left.
  void Damaged(std::optional<CutId> next) {
    committed_ = next.has_value() ? Key(*next) : CutKey{0, 0};
    damaged_ = true;
  }
  bool damaged() const { return damaged_; }
  // A server makes its blocks from a cut, or as the run began.
  void BeginsAnew(Generation generation, bool restored);
  // A server goes on into another generation with what it holds.
  void Carried(Generation from, Generation to, ServerId server);
  // What the run is to get over: until told otherwise, no later generation begins, or none that goes back.
  // `name`: counted once that is over, `from` then on, and the run has gone on; unless something else comes first.
  enum class Expected : uint8_t { kAnything, kSameGeneration, kNothingRolledBack };
  void Expect(Expected expected, std::string name = "", absl::Time from = absl::InfinitePast());
  Expected expected() const { return expected_; }
  // Counted once the run has gone on by a round after that moment, or has ended well.
  void Await(std::string name, absl::Time from) { awaited_.push_back({std::move(name), from, std::nullopt}); }
  // The run trains, and is at that round; its model is saved.
  void Reached(Generation generation, uint64_t round, absl::Time now);
  void Ended(absl::Time now);
  // A generation runs: counted as what it began as.
  void Runs(Generation generation);
  // Of what clients of that server's blocks are told in that generation.
  Told& told(Generation generation, ServerId server) {
    return told_.try_emplace({generation, server}, Told(job_.ranks)).first->second;
  }
  uint64_t generations() const { return generations_; }
  bool restored_from_cut() const { return restored_from_cut_; }

  // All servers' parts of the norm that the step of that clock waits for are in: the same however often it is made.
  void AgreedOn(Clock clock, double square);

  // That worker process was told that it holds the rank.
  void Granted(ProcessId worker, uint64_t life, Rank rank, Incarnation incarnation) {
    Incarnation& newest = granted_[{worker, life, rank.value}];
    newest = std::max(newest, incarnation);
  }
  Incarnation granted(ProcessId worker, uint64_t life, Rank rank) const {
    const auto it = granted_.find({worker, life, rank.value});
    return it == granted_.end() ? Incarnation() : it->second;
  }

  Ledger& ledger(Generation generation) { return ledgers_.try_emplace(generation, job_).first->second; }
  uint64_t pulls() const {
    uint64_t n = 0;
    for (const auto& [generation, ledger] : ledgers_) n += ledger.pulls();
    return n;
  }

  ClusterCoverage coverage;

 private:
  using CutKey = std::pair<uint64_t, uint64_t>;  // generation, number
  static CutKey Key(const CutId& cut) { return {cut.generation.value, cut.number}; }

  struct Awaited {
    std::string name;
    absl::Time from;
    std::optional<std::pair<Generation, uint64_t>> at;  // the round of the first look after that
    // It has come about.
    bool Look(Generation generation, uint64_t round, absl::Time now);
  };

  const Job job_;
  std::string error_;
  Generation served_;
  uint64_t generations_ = 0;
  bool restored_from_cut_ = false, damaged_ = false;
  Expected expected_ = Expected::kAnything;
  CutKey committed_ = {0, 0};
  std::map<CutKey, std::vector<uint64_t>> pushed_of_;
  std::map<Generation, Ledger> ledgers_;
  std::map<std::pair<Generation, ServerId>, Told> told_;
  std::set<Generation> carried_;
  std::vector<Awaited> awaited_;
  std::optional<Awaited> awaited_if_undisturbed_;
  std::string began_as_;  // the generation that is served
  Generation runs_;
  std::map<std::tuple<ProcessId, uint64_t, uint32_t>, Incarnation> granted_;
  std::map<Clock, double> norms_;  // squared
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_TRUTH_H_
