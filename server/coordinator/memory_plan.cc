#include "server/coordinator/memory_plan.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/optimizer_spec.h"
#include "common/job/step_spec.h"

namespace descent {
namespace {

std::string Bytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= uint64_t{1} << 30) return absl::StrFormat("%.2f GiB", value / (1 << 30));
  if (bytes >= uint64_t{1} << 20) return absl::StrFormat("%.1f MiB", value / (1 << 20));
  return absl::StrFormat("%.1f KiB", value / (1 << 10));
}

}  // namespace

MemoryPlan EstimateMemory(const v1::JobSpec& job, bool apply_push, const Geometry& geometry, ServerId server,
                          const std::vector<TensorSpec>& specs, const PartitionMap& map) {
  uint64_t parameters = 0;
  for (size_t t = 0; t < specs.size(); ++t) {
    if (specs[t].sparse) continue;
    for (uint32_t b = 0; b < map.placement[t].size(); ++b) {
      if (map.placement[t][b] == server) parameters += uint64_t{4} * geometry.block_size(specs[t], b);
    }
  }
  const uint64_t held = apply_push ? 1 : (job.ranks() + 1) / 2;
  // Averages are in two versions, too.
  const uint64_t state =
      (StateSlots(job.optimizer()) + StateBesideRule(job) + (EvaluatesAverages(job) ? 2 : 0)) * parameters;
  return MemoryPlan{2 * parameters + state + held * parameters,
                    absl::StrCat("parameters in two versions ", Bytes(2 * parameters), ", optimizer state ",
                                 Bytes(state), ", held contributions ", Bytes(held * parameters))};
}

MemoryFit FitMemory(const MemberTable& members, uint32_t servers, bool replicated,
                    const std::function<MemoryPlan(ServerId)>& needs) {
  MemoryFit fit;
  uint64_t largest = 0;
  for (const auto& [id, member] : members) {
    if (!member.is_server) continue;
    MemoryPlan plan = needs(member.server);
    if (replicated) {
      const uint64_t backup = needs(ServerId((member.server.value + servers - 1) % servers)).bytes;
      plan.bytes += backup;
      absl::StrAppend(&plan.parts, ", backup of another server ", Bytes(backup));
    }
    if (plan.bytes >= largest) {
      largest = plan.bytes;
      fit.line = absl::StrCat("server ", member.server.value, " needs ", Bytes(plan.bytes), " of ",
                              member.memory_bytes > 0 ? Bytes(member.memory_bytes) : "an unlimited budget", " (",
                              plan.parts, ")");
    }
    if (member.memory_bytes > 0 && plan.bytes > member.memory_bytes) {
      fit.refused.push_back(absl::StrCat(NameOf(member), " needs ", Bytes(plan.bytes), " (", plan.parts, ") and has ",
                                         Bytes(member.memory_bytes)));
    }
  }
  return fit;
}

}  // namespace descent
