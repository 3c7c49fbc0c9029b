// Bounds of a job beyond which its run has diverged (JobSpec.divergence), judged at evaluations. Pure; a value.
#ifndef DESCENT_SERVER_COORDINATOR_DIVERGENCE_H_
#define DESCENT_SERVER_COORDINATOR_DIVERGENCE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "descent/v1/coordinator.pb.h"
#include "descent/v1/job.pb.h"

namespace descent {

// Back to where the last evaluation within bounds was, with a smaller rate.
struct Rollback {
  uint64_t to = 0;     // clock of a cut; 0: the initial values
  double factor = 1;   // of the schedule's rate from there on
  uint32_t count = 0;  // of the run, with this one
};

class DivergenceBounds {
 public:
  // `job` is resolved.
  explicit DivergenceBounds(const v1::JobSpec& job) : spec_(job.divergence()), given_(job.has_divergence()) {}

  bool given() const { return given_; }
  bool rolls_back() const { return given_ && spec_.action() == v1::ROLLBACK; }
  const std::string& metric() const { return spec_.metric(); }

  // What is wrong with a value of the metric, given the least before it; "": nothing. One that was not evaluated is
  // within bounds.
  std::string Broken(std::optional<double> value, std::optional<double> least) const;

  // What the next rollback is, where there may be one more. `factor`: of the rate so far.
  std::optional<Rollback> Next(const v1::SteeringState& state, double factor) const;
  std::string RollbackText(const Rollback& rollback) const;
  // What is added where there is to be no rollback.
  std::string EndText() const;

 private:
  v1::Divergence spec_;
  bool given_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_DIVERGENCE_H_
