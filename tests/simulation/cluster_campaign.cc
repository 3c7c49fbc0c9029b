#include "absl/strings/str_cat.h"
#include "tests/simulation/cluster_simulation.h"

namespace descent::simulation {

const std::vector<std::pair<std::string, ClusterFault>>& AllClusterFaults() {
  static const auto* const faults = new std::vector<std::pair<std::string, ClusterFault>>{
      {"sync-skipped", ClusterFault::kSyncSkipped},
      {"manifest-before-parts", ClusterFault::kManifestBeforeParts},
      {"generation-not-durable", ClusterFault::kGenerationNotDurable},
      {"incarnation-reused", ClusterFault::kIncarnationReused},
      {"uncommitted-restored", ClusterFault::kUncommittedRestored},
      {"zombie-stays", ClusterFault::kZombieStays},
      {"cut-attempt-kept", ClusterFault::kCutAttemptKept},
      {"norms-not-told-again", ClusterFault::kNormsNotToldAgain},
      {"ack-before-replicate", ClusterFault::kAckBeforeReplicate},
      {"synced-too-soon", ClusterFault::kSyncedTooSoon},
      {"views-not-lasting", ClusterFault::kViewsNotLasting},
      {"goes-alone-unasked", ClusterFault::kGoesAloneUnasked},
      {"given-up-promoted", ClusterFault::kGivenUpPromoted},
  };
  return *faults;
}

bool ClusterCampaign::Run(const ClusterOptions& options) {
  const ClusterResult result = SimulateCluster(options);
  ++seeds;
  pulls += result.pulls;
  events += result.events;
  blows += result.blows;
  coverage.Add(result.coverage);
  std::string error = result.error;
  if (error.empty() && result.has_reference) error = references.Check(result.job, result.parameters_hash);
  if (error.empty()) return true;
  errors.emplace_back(options.seed, std::move(error));
  return false;
}

std::vector<std::string> ClusterCampaign::Uncovered() const {
  std::vector<std::string> names;
  for (const auto& [name, count] : coverage.counts()) {
    if (count == 0) names.push_back(name);
  }
  return names;
}

std::string ClusterCampaign::Report() const {
  std::string text = absl::StrCat(seeds, " clusters, ", blows, " faults, ", pulls, " pulls checked by the ledger, ",
                                  events, " events\n");
  for (const auto& [name, count] : coverage.counts()) absl::StrAppend(&text, "  ", name, ": ", count, "\n");
  for (const auto& [seed, what] : errors) absl::StrAppend(&text, "seed ", seed, ": ", what, "\n");
  return text;
}

}  // namespace descent::simulation
