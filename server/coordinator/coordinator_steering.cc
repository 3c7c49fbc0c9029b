// What evaluations lead to (steering.h), carried out: cuts of best models ordered, training ended, the best model gone
// back to.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/job/job.h"
#include "server/coordinator/coordinator.h"

namespace descent {
namespace {

// To take the cut of a best model: a disk that is full for a moment costs nothing, one that stays so costs that model.
constexpr uint32_t kMostFailures = 30;
constexpr absl::Duration kNormsPatience = absl::Seconds(2);  // which tensor it was is for people to know

}  // namespace

void Coordinator::Steer() {
  if (phase_ != v1::RUNNING || stopping()) return;
  if (back_to_best_.has_value()) {
    // It is evaluated once more, as what the run ends with; nothing else is to be decided.
    if (metrics_.evaluations() > evaluations_before_best_) EndTraining(std::move(end_reason_));
    return;
  }
  TakeNorms(steering_.wants_norms());
  uint64_t known = kUnbounded;
  for (const auto& [id, member] : members_) {
    if (member.is_server) known = std::min<uint64_t>(known, member.rate_changes);
  }
  const bool late = evaluated_.has_value() && now_ - *evaluated_ > kNormsPatience;
  for (const MetricRecord& record : steering_.Step(cuts_.last(), known, late)) {
    log_.Info(absl::StrCat("decided at clock ", record.clock, ": ", record.decision, ": ", record.why));
    metrics_.AddDecision(record, now_);
    TellRates();
  }
  if (steering_.rollback().has_value() || !steering_.failure().empty()) {
    EndDivergence();
    return;
  }
  const double most = options_.job.stopping().seconds();
  if (!steering_.stop().empty()) {
    EndTraining(steering_.stop());
  } else if (most > 0 && TrainedSeconds() >= most) {
    EndTraining(absl::StrCat("the time is over: ", most, " s"));
  } else if (const std::optional<uint64_t> cut = steering_.wants_cut(); cut.has_value()) {
    KeepBest(*cut);
  } else {
    held_.reset();
  }
}

void Coordinator::KeepBest(uint64_t cut) {
  if (!held_.has_value()) held_ = {now_, cuts_.failures()};
  held_->failures = std::min(held_->failures, cuts_.failures());  // another was committed meanwhile
  const uint32_t failed = cuts_.failures() - held_->failures;
  if (failed < kMostFailures && now_ - held_->since < stall_timeout_ / 2) {
    if (cuts_.demand_met()) cuts_.Demand(cut, now_);  // again if it has failed
    return;
  }
  const char* what = steering_.rolls_back() ? "the model" : "the best model";
  log_.Warning(absl::StrCat(what, ", of clock ", cut, ", is not kept: its checkpoint failed ", failed, " times in ",
                            absl::FormatDuration(absl::Trunc(now_ - held_->since, absl::Seconds(1))),
                            cuts_.last_trouble().empty() ? "" : "; the last time: ", cuts_.last_trouble(),
                            steering_.rolls_back()
                                ? "; training goes on, and fails if it diverges before the next is kept"
                                : "; training goes on, and what it ends with is saved unless a better one is kept"));
  steering_.GiveUpCut();
  held_.reset();
  advanced_ = now_;
}

void Coordinator::EndDivergence() {
  if (!steering_.rollback().has_value()) {
    Fail(steering_.failure());
    return;
  }
  rollback_ = steering_.rollback();
  replication_.Halt();
  RollBack("the run has diverged");
}

void Coordinator::TellRates() {
  RateChanges::List list;
  for (const v1::RateChange& change : steering_.state().rate_change())
    list.emplace_back(change.clock(), change.factor());
  metrics_.rate_changes().Set(std::move(list));
}

void Coordinator::TakeNorms(std::optional<uint64_t> clock) {
  if (!clock.has_value()) return;
  const ScalarTotals* agreed = metrics_.scalars().Totals(*clock);
  if (agreed == nullptr) return;
  v1::ScalarSquares squares;
  squares.set_clock(*clock);
  squares.set_gradient(SumOfSquares(*agreed));
  squares.set_step(agreed->step_square);
  const auto greatest = std::max_element(agreed->square.begin(), agreed->square.end());
  if (greatest != agreed->square.end()) {
    squares.set_tensor(admission_.specs()[static_cast<size_t>(greatest - agreed->square.begin())].name);
    squares.set_of_tensor(*greatest);
  }
  steering_.Agreed(squares);
}

double Coordinator::TrainedSeconds() const {
  const double before = options_.restore.has_value() ? options_.restore->state.steering().seconds() : 0;
  return before + (running_since_.has_value() ? absl::ToDoubleSeconds(now_ - *running_since_) : 0);
}

std::optional<uint64_t> Coordinator::BeginBelow() const {
  if (back_to_best_.has_value()) return back_to_best_;
  return steering_.begin_below(EvaluateEvery(options_.job.evaluation(), clocks_per_epoch_));
}

void Coordinator::EndTraining(std::string reason) {
  end_reason_ = std::move(reason);
  ended_by_rule_ = true;
  stop_.Ask(now_);
  log_.Info(absl::StrCat("training ends: ", end_reason_));
}

bool Coordinator::GoBackToBest() {
  if (stopping() && !ended_by_rule_) {
    end_reason_ = "a request to stop";
    return false;
  }
  if (end_reason_.empty()) end_reason_ = absl::StrCat("the length is reached: ", clocks_, " clocks");
  const uint64_t best = steering_.best_clock();
  if (steering_.restores_best() && steering_.best_not_kept() && best != round()) {
    absl::StrAppend(&end_reason_, "; the best model, of clock ", best, ", could not be kept");
  }
  const bool stands = best == 0 || best == round() || best == best_lost_ || steering_.best_not_kept();
  if (!steering_.restores_best() || back_to_best_.has_value() || stands) return false;
  log_.Info(absl::StrCat("going back to the best model, that of clock ", best));
  back_to_best_ = best;
  ForgetEnd();
  replication_.Halt();
  RollBack("back to the best model");
  return true;
}

void Coordinator::ForgetEnd() {
  stop_.Withdraw();
  ended_by_rule_ = false;
}

void Coordinator::RestoreSteering() {
  steering_.Begin(restore_.has_value() ? restore_->state : v1::CoordinatorState());
  if (const auto rollback = std::exchange(rollback_, std::nullopt); rollback.has_value()) {
    if (rollback->to != (restore_.has_value() ? restore_->number : 0)) {
      Fail(absl::StrCat("the run has diverged, and the checkpoint of clock ", rollback->to,
                        ", to go back to, can't be used"));
      return;
    }
    steering_.RolledBack(*rollback);
  }
  TellRates();
  evaluations_before_best_ = metrics_.evaluations();
  if (!back_to_best_.has_value()) {
    end_reason_.clear();
    return;
  }
  if (restore_.has_value() && restore_->number == *back_to_best_) return;
  log_.Warning(absl::StrCat("the checkpoint of the best model, of clock ", *back_to_best_,
                            ", can't be used; training goes on to its end, and that is saved"));
  best_lost_ = *std::exchange(back_to_best_, std::nullopt);
  end_reason_.clear();
}

std::optional<v1::CoordinatorState> Coordinator::StateOfCut() {
  if (EvaluationOfCutToCome()) return std::nullopt;
  const uint64_t every = EvaluateEvery(options_.job.evaluation(), clocks_per_epoch_), cut = cuts_.number();
  if (steering_.needs_norms() && every > 0 && cut > 0 && cut % every == 0) TakeNorms(cut - 1);
  std::optional<v1::CoordinatorState> state = steering_.StateOf(cut, every);
  if (state.has_value()) state->mutable_steering()->set_seconds(TrainedSeconds());
  return state;
}

}  // namespace descent
