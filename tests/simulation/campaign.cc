#include "tests/simulation/campaign.h"

#include "absl/strings/str_cat.h"

namespace descent::simulation {
namespace {

std::vector<std::pair<std::string, uint64_t>> Counters(const Coverage& c) {
  return {{"duplicates dropped", c.duplicates},
          {"fenced", c.fenced},
          {"held", c.held},
          {"retried", c.retried},
          {"reordered", c.reordered},
          {"messages dropped", c.dropped},
          {"messages duplicated", c.duplicated},
          {"lease moves", c.moves},
          {"workers killed", c.kills},
          {"connections broken", c.breaks},
          {"restored from cuts", c.restores},
          {"too early", c.too_early},
          {"holders overtaken", c.overtaken},
          {"waiting notices", c.waiting_notices}};
}

}  // namespace

void Coverage::Add(const Coverage& o) {
  duplicates += o.duplicates, fenced += o.fenced, held += o.held, waiting_notices += o.waiting_notices;
  too_early += o.too_early, retried += o.retried, dropped += o.dropped, duplicated += o.duplicated;
  overtaken += o.overtaken, reordered += o.reordered, breaks += o.breaks, kills += o.kills, moves += o.moves;
  restores += o.restores;
}

const std::vector<std::pair<std::string, Faults>>& AllFaults() {
  static const auto* const faults = [] {
    auto* all = new std::vector<std::pair<std::string, Faults>>;
    const auto server = [&](const char* name, EngineFault fault) { all->push_back({name, {fault, {}}}); };
    server("dedupe-off", EngineFault::kDedupeOff);
    server("ack-before-apply", EngineFault::kAckBeforeApply);
    server("fence-ignored", EngineFault::kFenceIgnored);
    server("gate-off-by-one", EngineFault::kGateOffByOne);
    server("weight-dropped", EngineFault::kWeightDropped);
    server("complete-early", EngineFault::kCompleteEarly);
    server("marks-not-in-cut", EngineFault::kMarksNotInCut);
    server("cut-torn", EngineFault::kCutTorn);
    const auto client = [&](const char* name, bool ClientFaults::*fault) {
      Faults f;
      f.client.*fault = true;
      all->push_back({name, f});
    };
    client("never-resend", &ClientFaults::never_resend);
    client("count-parts-twice", &ClientFaults::count_parts_twice);
    client("done-on-any-ack", &ClientFaults::done_on_any_ack);
    return all;
  }();
  return *faults;
}

bool Campaign::Run(uint64_t seed, const Faults& faults) {
  const SimulationResult result = Simulate({seed, faults.server, faults.client});
  ++seeds;
  pulls += result.pulls;
  events += result.events;
  coverage.Add(result.coverage);
  std::string error = result.error;
  if (error.empty() && result.reproducible) error = references.Check(result.job, result.parameters_hash);
  if (error.empty()) return true;
  errors.emplace_back(seed, std::move(error));
  return false;
}

std::vector<std::string> Campaign::Uncovered() const {
  std::vector<std::string> names;
  for (const auto& [name, count] : Counters(coverage)) {
    if (count == 0) names.push_back(name);
  }
  return names;
}

std::string Campaign::Report() const {
  std::string text = absl::StrCat(seeds, " seeds, ", pulls, " pulls checked by the ledger, ", events, " events\n");
  for (const auto& [name, count] : Counters(coverage)) absl::StrAppend(&text, "  ", name, ": ", count, "\n");
  for (const auto& [seed, what] : errors) absl::StrAppend(&text, "seed ", seed, ": ", what, "\n");
  return text;
}

}  // namespace descent::simulation
