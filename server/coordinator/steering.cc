#include "server/coordinator/steering.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/job/stopping_spec.h"

namespace descent {
namespace {

// The last is no rule: the clock of the last evaluation that differed from the one before, of a full-gradient method.
enum Rule { kLossChange, kParameterChange, kGradientNorm, kMoved, kRules };

std::optional<double> ValueOf(const MetricRecord& record, absl::string_view name) {
  if (name == "loss") return record.loss;
  if (name == "accuracy") return record.accuracy;
  if (name == "train_loss") return record.train_loss;
  if (name == "objective") return record.objective;
  const double* value = record.metrics.Find(std::string(name));
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::string Text(double value) { return absl::StrFormat("%.6g", value); }

Patience EarlyPatience(const v1::JobSpec& job) {
  const v1::EarlyStopping& early = job.stopping().early();
  return {early.patience(), early.min_change(), MoreIsBetter(job.evaluation(), early.metric())};
}
Patience PlateauPatience(const v1::JobSpec& job) {
  const v1::ReduceOnPlateau& plateau = job.reduce_on_plateau();
  return {plateau.patience(), plateau.min_change(), MoreIsBetter(job.evaluation(), plateau.metric())};
}

template <typename Map>
void KeepNewest(size_t most, Map* map) {
  while (map->size() > most) map->erase(map->begin());
}

}  // namespace

Steering::Steering(const v1::JobSpec& job)
    : job_(job),
      apply_push_(ConsistencyOf(job).apply_push),
      enabled_(StopsByEvaluations(job.stopping()) || job.has_reduce_on_plateau() || job.has_divergence()),
      divergence_(job),
      early_(EarlyPatience(job)),
      plateau_(PlateauPatience(job)),
      most_at_one_point_(TakesFullGradient(job.optimizer()) ? MostRoundsAtOnePoint(job.optimizer()) : 0) {
  Begin({});
}

void Steering::Begin(const v1::CoordinatorState& state) {
  state_ = state.steering();
  if (state_.below_size() != kRules) state_.mutable_below()->Resize(kRules, 0);
  states_ = {{state_.clock(), state_}};
  norms_.clear();
  if (state.has_scalars()) Agreed(state.scalars());
  pending_.reset();
  at_end_ = cut_needed_ = false;
  released_ = state_.clock();
  stop_.clear();
  failure_.clear();
  rollback_.reset();
}

void Steering::RolledBack(const Rollback& rollback) {
  v1::RateChange* change = state_.add_rate_change();
  change->set_clock(rollback.to);
  change->set_factor(rollback.factor);
  state_.set_rollbacks(rollback.count);
  states_ = {{state_.clock(), state_}};
}

void Steering::Evaluated(const MetricRecord& record, uint64_t end) {
  if (!enabled_ || pending_.has_value() || record.clock <= state_.clock()) return;
  pending_ = record;
  at_end_ = record.clock >= end;
}

void Steering::Agreed(const v1::ScalarSquares& squares) {
  if (!needs_norms() && !divergence_.given()) return;
  norms_[squares.clock()] = squares;
  KeepNewest(kMostKept, &norms_);
}

std::vector<MetricRecord> Steering::Step(uint64_t last_cut, uint64_t known, bool late) {
  std::vector<MetricRecord> out;
  if (rollback_.has_value() || !failure_.empty()) return out;
  if (pending_.has_value() && Diverged(*pending_)) {
    if (!late && !at_end_ && !apply_push_ && !norms_.contains(pending_->clock - 1)) return out;
    const MetricRecord record = *std::exchange(pending_, std::nullopt);
    const std::optional<double> least = state_.has_least() ? std::optional(state_.least()) : std::nullopt;
    out.push_back(Diverge(
        record.clock, absl::StrCat(divergence_.Broken(ValueOf(record, divergence_.metric()), least), Where(record))));
    return out;
  }
  if (pending_.has_value() && (!needs_norms() || at_end_ || norms_.contains(pending_->clock - 1))) {
    const MetricRecord record = *std::exchange(pending_, std::nullopt);
    Judge(record, at_end_, &out);
    states_[state_.clock()] = state_;
    KeepNewest(kMostKept, &states_);
  }
  if (last_cut == not_kept_) not_kept_ = 0;  // it has come after all
  if (pending_.has_value() || !stop_.empty()) return out;
  if (last_cut == state_.clock()) cut_needed_ = false;
  if (!cut_needed_ && known >= static_cast<uint64_t>(state_.rate_change_size())) released_ = state_.clock();
  return out;
}

void Steering::Judge(const MetricRecord& record, bool at_end, std::vector<MetricRecord>* out) {
  state_.set_clock(record.clock);
  if (divergence_.given()) {
    const std::optional<double> value = ValueOf(record, divergence_.metric());
    if (value.has_value() && (!state_.has_least() || *value < state_.least())) state_.set_least(*value);
    state_.set_within(record.clock);
  }
  if (most_at_one_point_ > 0 && !Moves(record) && !at_end) return;
  std::string settled = at_end ? "" : Settled(record);
  const v1::EarlyStopping& early = job_.stopping().early();
  bool over = false;
  if (job_.stopping().has_early()) {
    Patience::State patience{state_.has_best() ? std::optional(state_.best()) : std::nullopt, state_.worse()};
    const bool best = early_.Take(ValueOf(record, early.metric()), &patience);
    if (best) {
      state_.set_best(*patience.best);
      state_.set_best_clock(record.clock);
    }
    state_.set_worse(patience.worse);
    over = early_.Over(patience);
    cut_needed_ = best && early.restore_best() && !at_end;
    if (cut_needed_) not_kept_ = 0;  // it is tried anew in each generation
  }
  if (rolls_back() && !at_end) cut_needed_ = true;
  if (at_end) return;
  stop_ = std::move(settled);
  if (stop_.empty()) stop_ = Reached(record);
  if (stop_.empty() && over) {
    stop_ = absl::StrCat(
        early.metric(), " was no better in ", early.patience(), " evaluations than ",
        state_.has_best() ? absl::StrCat(Text(state_.best()), " at clock ", state_.best_clock()) : "not to be there");
  }
  if (!stop_.empty()) {
    out->push_back(Decision(record.clock, "stop", stop_));
    cut_needed_ = false;
    return;
  }
  if (job_.has_reduce_on_plateau()) Reduce(record, out);
}

// Between two steps of a full-gradient method the same point is evaluated again and again, which says nothing; unless
// it has been for so long that no step is to come.
bool Steering::Moves(const MetricRecord& record) {
  const double value = record.objective.value_or(record.loss);
  uint32_t* const moved = state_.mutable_below()->Mutable(kMoved);
  if (state_.has_loss() && state_.loss() == value) return record.clock - *moved > most_at_one_point_;
  *moved = static_cast<uint32_t>(record.clock);
  if (!job_.stopping().has_loss_change()) state_.set_loss(value);
  return true;
}

bool Steering::Diverged(const MetricRecord& record) const {
  const std::optional<double> least = state_.has_least() ? std::optional(state_.least()) : std::nullopt;
  return !divergence_.Broken(ValueOf(record, divergence_.metric()), least).empty();
}

std::string Steering::Where(const MetricRecord& record) const {
  std::string text;
  if (record.worst_rank.has_value()) {
    absl::StrAppend(&text, "; of the ranks' shares that of rank ", *record.worst_rank, " has the greatest loss, ",
                    Text(record.worst_loss));
  }
  const auto norms = norms_.find(record.clock - 1);
  if (norms != norms_.end() && !norms->second.tensor().empty()) {
    absl::StrAppend(&text, "; of the tensors '", norms->second.tensor(), "' has the greatest gradient, of norm ",
                    Text(std::sqrt(norms->second.of_tensor())));
  }
  return text;
}

MetricRecord Steering::Diverge(uint64_t clock, const std::string& why) {
  rollback_ = divergence_.Next(state_, FactorAt(clock));
  if (rollback_.has_value()) {
    return Decision(clock, "rollback", absl::StrCat(why, ": ", divergence_.RollbackText(*rollback_)));
  }
  failure_ = absl::StrCat("the run has diverged at clock ", clock, divergence_.EndText(), ": ", why);
  return Decision(clock, "diverged", why);
}

MetricRecord Steering::NotFinite(uint64_t clock, const std::string& what) {
  pending_.reset();
  return Diverge(clock, what);
}

std::vector<uint64_t> Steering::NeededCuts(const v1::SteeringState& state) const {
  std::vector<uint64_t> cuts;
  if (restores_best() && state.best_clock() > 0) cuts.push_back(state.best_clock());
  if (rolls_back() && state.within() > 0) cuts.push_back(state.within());
  return cuts;
}

bool Steering::Small(int rule, double value, double bound) {
  uint32_t* row = state_.mutable_below()->Mutable(rule);
  *row = value < bound ? *row + 1 : 0;
  return *row >= job_.stopping().evaluations();
}

std::string Steering::Settled(const MetricRecord& record) {
  const v1::Stopping& stopping = job_.stopping();
  const std::string row = absl::StrCat(" in ", stopping.evaluations(),
                                       stopping.evaluations() == 1 ? " evaluation" : " evaluations in a row");
  std::string why;
  const auto holds = [&](int rule, absl::string_view what, double value, double bound) {
    if (Small(rule, value, bound) && why.empty()) why = absl::StrCat(what, " was below ", Text(bound), row);
  };
  if (stopping.has_loss_change()) {
    const double loss = record.objective.value_or(record.loss);
    const double before = state_.has_loss() ? state_.loss() : INFINITY;
    holds(kLossChange, record.objective.has_value() ? "the change of the objective" : "the change of the loss",
          std::fabs(loss - before), stopping.loss_change());
    state_.set_loss(loss);
  }
  if (!needs_norms()) return why;
  const v1::ScalarSquares& squares = norms_.at(record.clock - 1);
  // The gradient of a full-gradient method is of the point that it tried: of what is evaluated only where that was
  // taken.
  if (most_at_one_point_ > 0 && squares.step() == 0) return why;
  if (stopping.has_parameter_change()) {
    holds(kParameterChange, "the change of the parameters", std::sqrt(squares.step()), stopping.parameter_change());
  }
  if (stopping.has_gradient_norm()) {
    holds(kGradientNorm, "the norm of the gradient", std::sqrt(squares.gradient()), stopping.gradient_norm());
  }
  return why;
}

std::string Steering::Reached(const MetricRecord& record) const {
  for (const v1::TargetMetric& target : job_.stopping().target()) {
    const std::optional<double> value = ValueOf(record, target.metric());
    if (!value.has_value()) continue;
    const bool more = MoreIsBetter(job_.evaluation(), target.metric());
    if (more ? !(*value >= target.value()) : !(*value <= target.value())) continue;
    return absl::StrCat("the target is reached: ", target.metric(), " ", Text(*value), " is at ",
                        more ? "least " : "most ", Text(target.value()));
  }
  return "";
}

void Steering::Reduce(const MetricRecord& record, std::vector<MetricRecord>* out) {
  const v1::ReduceOnPlateau& plateau = job_.reduce_on_plateau();
  Patience::State patience{state_.has_plateau_best() ? std::optional(state_.plateau_best()) : std::nullopt,
                           state_.plateau_worse()};
  if (plateau_.Take(ValueOf(record, plateau.metric()), &patience)) state_.set_plateau_best(*patience.best);
  if (state_.cooldown() > 0) {
    state_.set_cooldown(state_.cooldown() - 1);
    patience.worse = 0;
  }
  const double before = FactorAt(record.clock), after = std::max(before * plateau.factor(), plateau.min_factor());
  if (plateau_.Over(patience) && after < before) {
    v1::RateChange* change = state_.add_rate_change();
    change->set_clock(record.clock);
    change->set_factor(after);
    out->push_back(Decision(record.clock, "rate",
                            absl::StrCat(plateau.metric(), " was no better in ", plateau.patience(),
                                         " evaluations: the rate is now ", Text(after), " of the schedule's")));
    patience.worse = 0;
    state_.set_cooldown(plateau.cooldown());
  }
  state_.set_plateau_worse(patience.worse);
}

MetricRecord Steering::Decision(uint64_t clock, std::string what, std::string why) const {
  MetricRecord record;
  record.kind = MetricRecord::Kind::kDecision;
  record.clock = clock;
  record.decision = std::move(what);
  record.why = std::move(why);
  return record;
}

std::optional<uint64_t> Steering::wants_norms() const {
  if (!pending_.has_value()) return std::nullopt;
  if (!divergence_.given() && (!needs_norms() || at_end_)) return std::nullopt;
  return pending_->clock - 1;
}

std::optional<uint64_t> Steering::wants_cut() const {
  return cut_needed_ ? std::optional<uint64_t>(state_.clock()) : std::nullopt;
}

void Steering::GiveUpCut() {
  if (!std::exchange(cut_needed_, false)) return;
  not_kept_ = state_.clock();
}

std::optional<uint64_t> Steering::begin_below(uint64_t every) const {
  if (!enabled_ || apply_push_ || every == 0) return std::nullopt;
  return released_ + every;
}

double Steering::FactorAt(uint64_t clock) const {
  double factor = 1;
  for (const v1::RateChange& change : state_.rate_change()) {
    if (change.clock() <= clock) factor = change.factor();
  }
  return factor;
}

std::optional<v1::CoordinatorState> Steering::StateOf(uint64_t cut, uint64_t every) const {
  v1::CoordinatorState out;
  if (!enabled_) return out;
  if (apply_push_) {
    *out.mutable_steering() = state_;
    return out;
  }
  auto state = states_.lower_bound(cut);
  if (state == states_.begin()) return std::nullopt;
  *out.mutable_steering() = (--state)->second;
  if (needs_norms() && every > 0 && cut % every == 0 && cut > 0) {
    const auto norms = norms_.find(cut - 1);
    if (norms == norms_.end()) return std::nullopt;
    *out.mutable_scalars() = norms->second;
  }
  return out;
}

}  // namespace descent
