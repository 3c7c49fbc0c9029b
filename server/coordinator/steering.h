// What evaluations lead to: training ends before its length, its best model is gone back to, its learning rate is
// reduced; a run that has diverged fails, or goes back to where it had not (divergence.h). Everything decided is a
// function of evaluations at clocks that the job fixes, and takes effect at the clock of the evaluation: under ROUND no
// rank begins that clock before it is decided what comes of it (begin_below), so a run ends in the same bits on any
// cluster and after any deaths. Under PUSH ranks do not wait, and where a stop finds them depends on timing.
//
//   Evaluated(clock), and the norms of the round before it where a rule looks at them
//      -> decided: a stop; or a new rate, which every server must know, or a best model, which a cut must hold
//      -> released: the next clocks begin
//
// A cut holds what evaluations before its clock have led to, and a generation that goes on from it decides the rest
// again. Pure: no I/O, no clock; the same calls give the same answers. Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_STEERING_H_
#define DESCENT_SERVER_COORDINATOR_STEERING_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "descent/v1/coordinator.pb.h"
#include "descent/v1/job.pb.h"
#include "server/coordinator/divergence.h"
#include "server/coordinator/metric_merge.h"
#include "server/coordinator/patience.h"

namespace descent {

class Steering {
 public:
  explicit Steering(const v1::JobSpec& job);

  // Evaluations lead to something.
  bool enabled() const { return enabled_; }
  bool restores_best() const { return job_.stopping().early().restore_best(); }
  bool changes_rate() const { return job_.has_reduce_on_plateau() || rolls_back(); }
  bool rolls_back() const { return divergence_.rolls_back(); }
  // Evaluations are judged with the norms of the round before.
  bool needs_norms() const { return job_.stopping().has_parameter_change() || job_.stopping().has_gradient_norm(); }
  // Cuts that a run which goes on from this state may go back to.
  std::vector<uint64_t> NeededCuts(const v1::SteeringState& state) const;

  // A generation begins, with what its cut holds.
  void Begin(const v1::CoordinatorState& state);
  // Right after: it is the one that the run has been rolled back to.
  void RolledBack(const Rollback& rollback);

  // The evaluation at record.clock is complete; `end` is the length of the job. Ignored unless it is newer than what is
  // known.
  void Evaluated(const MetricRecord& record, uint64_t end);
  // The round whose norms are waited for.
  std::optional<uint64_t> wants_norms() const;
  // Squared norms of the round of `clock`: the mean gradient, and what it changed in the parameters.
  void Agreed(const v1::ScalarSquares& squares);

  // Whatever is known by now is decided and released. `last_cut`: number of the newest cut there is. `known`: how many
  // rate changes every server knows. `late`: norms that would only explain a divergence are not waited for any longer.
  // Returns what is to be told, in order: records of decisions.
  std::vector<MetricRecord> Step(uint64_t last_cut, uint64_t known, bool late = false);
  // Of a gradient that no step can be made with, at `clock`: the same as an evaluation beyond all bounds.
  MetricRecord NotFinite(uint64_t clock, const std::string& what);
  // The run has diverged: where it goes on, or why it fails.
  const std::optional<Rollback>& rollback() const { return rollback_; }
  const std::string& failure() const { return failure_; }

  // Ranks are held at this clock until there is a cut of it, or until it is given up.
  std::optional<uint64_t> wants_cut() const;
  // There will be no cut of the best model: training goes on without, and it can't be gone back to.
  void GiveUpCut();
  // No rank begins this clock or a later one yet, with evaluations every so many clocks; nullopt: nothing holds them.
  std::optional<uint64_t> begin_below(uint64_t every) const;
  // Why training is to end now; "": it goes on.
  const std::string& stop() const { return stop_; }
  const v1::SteeringState& state() const { return state_; }
  // The clock of the best evaluation; 0: there is none.
  uint64_t best_clock() const { return state_.best_clock(); }
  // Its cut was given up.
  bool best_not_kept() const { return state_.best_clock() > 0 && state_.best_clock() == not_kept_; }
  double FactorAt(uint64_t clock) const;

  // Of the evaluations before the clock of a cut (PUSH: of all that are in). nullopt: norms that belong to it have not
  // come yet.
  std::optional<v1::CoordinatorState> StateOf(uint64_t cut, uint64_t every) const;

 private:
  MetricRecord Decision(uint64_t clock, std::string what, std::string why) const;
  void Judge(const MetricRecord& record, bool at_end, std::vector<MetricRecord>* out);
  std::string Settled(const MetricRecord& record);
  std::string Reached(const MetricRecord& record) const;
  void Reduce(const MetricRecord& record, std::vector<MetricRecord>* out);
  bool Moves(const MetricRecord& record);
  bool Small(int rule, double value, double bound);
  bool Diverged(const MetricRecord& record) const;
  std::string Where(const MetricRecord& record) const;
  MetricRecord Diverge(uint64_t clock, const std::string& why);

  static constexpr size_t kMostKept = 256;  // states and norms of evaluations that cuts may still ask for

  const v1::JobSpec job_;
  const bool apply_push_, enabled_;
  const DivergenceBounds divergence_;
  const Patience early_, plateau_;
  const uint64_t most_at_one_point_;  // rounds; 0: not of a full-gradient method
  v1::SteeringState state_;
  std::map<uint64_t, v1::SteeringState> states_;  // by the clock of their last evaluation
  std::map<uint64_t, v1::ScalarSquares> norms_;
  std::optional<MetricRecord> pending_;  // evaluated, not decided yet
  bool at_end_ = false;                  // pending_ is the last
  uint64_t released_ = 0;                // the clocks from here up to the next evaluation may begin
  bool cut_needed_ = false;              // before state_.clock() is released
  uint64_t not_kept_ = 0;                // the clock of the last best model whose cut was given up
  std::string stop_;
  std::optional<Rollback> rollback_;
  std::string failure_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_STEERING_H_
