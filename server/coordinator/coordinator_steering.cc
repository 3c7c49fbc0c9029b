// What evaluations lead to (steering.h), carried out: cuts of best models ordered, servers told of rates, the run ended,
// and gone back to its best cut.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/job/job.h"
#include "server/coordinator/coordinator.h"

namespace descent {

uint64_t Coordinator::EvaluationEvery() const { return EvaluateEvery(options_.job.evaluation(), clocks_per_epoch_); }

double Coordinator::TrainedSeconds() const {
  const bool runs = phase_ == v1::RUNNING || phase_ == v1::SAVING;
  return steering_.state().seconds() + (runs ? absl::ToDoubleSeconds(now_ - running_since_) : 0);
}

void Coordinator::Steer() {
  if (phase_ != v1::RUNNING || stopping_) return;
  if (back_to_best_.has_value()) {
    // Evaluated once more, as what the run ends with; nothing else is to be decided.
    if (last_evaluation_.has_value() && last_evaluation_->clock == *back_to_best_) EndBy(end_reason_);
    return;
  }
  if (steering_.needs_norms()) {
    for (const auto& squares : scalars_.Drain()) steering_.Agreed(squares);
  }
  uint64_t known = kUnbounded;
  for (const auto& [id, member] : members_) {
    if (member.is_server) known = std::min<uint64_t>(known, member.rate_changes);
  }
  for (MetricRecord& record : steering_.Step(cuts_.last(), known)) {
    Log(LogLine::Level::kInfo, absl::StrCat("decided at clock ", record.clock, ": ", record.decision, ": ", record.why));
    record.time = now_;
    record.epoch = EpochOf(record.clock);
    records_.push_back(std::move(record));
  }
  if (!steering_.stop().empty()) {
    EndBy(steering_.stop());
    return;
  }
  // A cut that failed is tried again: without it the best model could not be gone back to.
  if (const std::optional<uint64_t> cut = steering_.wants_cut(); cut.has_value() && cuts_.demand_met()) {
    cuts_.Demand(*cut, now_);
  }
  const double most = options_.job.stopping().seconds();
  if (most > 0 && TrainedSeconds() >= most) EndBy(absl::StrCat("the time is over: ", most, " s"));
}

void Coordinator::EndBy(std::string reason) {
  end_reason_ = std::move(reason);
  ended_by_rule_ = stopping_ = true;
  stop_since_ = now_;
  Log(LogLine::Level::kInfo, absl::StrCat("training ends: ", end_reason_));
}

bool Coordinator::GoBackToBest() {
  if (stopping_ && !ended_by_rule_) return false;
  if (end_reason_.empty()) end_reason_ = absl::StrCat("the length is reached: ", clocks_, " clocks");
  const uint64_t best = steering_.best_clock();
  if (!steering_.restores_best() || back_to_best_.has_value() || best == 0 || best == round()) return false;
  back_to_best_ = best;
  Log(LogLine::Level::kInfo, absl::StrCat("going back to the best model, that of clock ", best));
  ForgetStop();
  RollBack("back to the best model");
  return true;
}

void Coordinator::ForgetStop() {
  stopping_ = ended_by_rule_ = false;
  stop_told_.reset();
}

void Coordinator::BeginSteering() {
  steering_.Begin(restore_.has_value() ? restore_->state : v1::CoordinatorState());
  last_evaluation_.reset();
  if (back_to_best_.has_value() && (!restore_.has_value() || restore_->number != *back_to_best_)) {
    Log(LogLine::Level::kWarning, absl::StrCat("the checkpoint of the best model, of clock ", *back_to_best_,
                                               ", can't be used; training goes on to its end, which is saved"));
    back_to_best_.reset();
    end_reason_.clear();
    best_lost_ = true;
  }
}

std::optional<v1::CoordinatorState> Coordinator::StateOfCut() const {
  std::optional<v1::CoordinatorState> state = steering_.StateOf(cuts_.number(), EvaluationEvery());
  if (state.has_value()) state->mutable_steering()->set_seconds(TrainedSeconds());
  return state;
}

}  // namespace descent
