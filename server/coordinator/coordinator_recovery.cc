// Generations: what a run goes on from when a server, or the coordinator before this one, has died; and the cuts that
// are taken for that.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/job/job.h"
#include "server/coordinator/coordinator.h"

namespace descent {
namespace {

// A run whose servers die as soon as they train would go round for ever.
constexpr uint32_t kMostFruitless = 20;
// Every rank has evaluated a cut before it goes past that; for the last of them to be told, with large counts in
// several beats. One that a worker took into its grave is never told.
constexpr absl::Duration kEvaluationPatience = absl::Seconds(5);

}  // namespace

void Coordinator::AdoptOrRestore() {
  if (!options_.adopt.has_value() || phase_ != v1::STARTING) return;
  // How far the rules that steer a run had counted is known of cuts alone.
  if (steering_.enabled() || !replication_.Adopt(*options_.adopt)) {
    log_.Warning(steering_.enabled() ? "what evaluations have led to is known of checkpoints alone"
                                     : "the servers that are there do not hold all blocks between them");
    Restore();
    return;
  }
  if (restore_.has_value()) ranks_.SetFloor(restore_->clocks);
  begun_at_ = round();
  log_.Warning(
      absl::StrCat("generation ", generation_.value, " goes on with what the servers hold: nothing is rolled back"));
}

std::optional<Coordinator::LastingViews> Coordinator::WantsViews() const {
  if (wants_generation_ || ended() || phase_ < v1::PLACING) return std::nullopt;
  std::optional<LastingViews> wanted = replication_.WantsLasting();
  if (wanted.has_value()) {
    wanted->views.set_run(options_.run.value);
    wanted->views.set_generation(generation_.value);
  }
  return wanted;
}

void Coordinator::ViewsLasting(uint64_t change, uint64_t news, absl::Time now) {
  Advance(now);
  replication_.Lasting(change, news);
}

void Coordinator::BeginGeneration(Generation generation, std::optional<RestoreFrom> restore, absl::Time now) {
  Advance(now);
  if (!wants_generation_ || ended() || generation <= generation_) return;
  wants_generation_ = false;
  generation_ = generation;
  restore_ = std::move(restore);
  if (!back_to_best_.has_value() && !rollback_.has_value()) ++recoveries_;
  first_ = FirstCause(lease_ + absl::Minutes(1));  // what has been mended is no cause
  const uint64_t before = round();
  Restore();
  if (ended()) return;
  log_.Warning(absl::StrCat("generation ", generation_.value, ": ", before - std::min(before, round()),
                            " clocks are rolled back; waiting for ",
                            want_servers_ - std::min<uint64_t>(want_servers_, members_.servers()), " servers"));
  phase_since_ = now_;
  Evolve();
}

// The state of the ranks and of all that is merged, as the cut has it.
void Coordinator::Restore() {
  const bool chosen = back_to_best_.has_value() || rollback_.has_value();  // nobody has died
  if (!chosen) fruitless_ = round() > begun_at_ ? 0 : fruitless_ + 1;
  if (fruitless_ > kMostFruitless) {
    Fail(absl::StrCat("no clock was finished in ", kMostFruitless, " generations; the last to go was ", last_death_));
    return;
  }
  leases_.Reset();
  orphans_since_.reset();
  ranks_.Restore(restore_.has_value() ? restore_->clocks : std::vector<uint64_t>(), now_);
  throughput_.Clear();
  begun_at_ = round();
  log_.Info(
      restore_.has_value()
          ? absl::StrCat("generation ", generation_.value, " goes on from cut ", restore_->number, ", clock ", round())
          : absl::StrCat("generation ", generation_.value, " begins with the initial values: there is no cut"));
  metrics_.RollBack(round(), generation_, now_);
  RestoreSteering();
}

void Coordinator::RollBack(absl::string_view why) {
  cuts_.Halt();
  members_.NobodyIsReady();
  wants_generation_ = true;
  if (phase_ != v1::PLACING) SetPhase(v1::PLACING, why);
}

bool Coordinator::CheckRestore() {
  if (!restore_.has_value() || restore_->tensors == admission_.specs()) return true;
  Fail(absl::StrCat("the cut ", restore_->folder, " is of another model: it has ", restore_->tensors.size(),
                    " tensors, the workers' model has ", admission_.specs().size(),
                    ", or their names, shapes or roles differ"));
  return false;
}

void Coordinator::TendCuts() {
  if (!cuts_.enabled()) return;
  if (phase_ == v1::RUNNING || phase_ == v1::SAVING) {
    cuts_.Advance(std::max(members_.FurthestRound(), round()), clocks_, now_, members_.LastRound());
  }
  for (std::string& trouble : cuts_.DrainTroubles()) log_.Warning(std::move(trouble));
}

// Under PUSH a cut is of no one clock, and with staleness an evaluation reads an older version than that of its clock.
bool Coordinator::CutsAreEvaluated() const {
  return !options_.apply_push && ConsistencyOf(options_.job).staleness == 0;
}

bool Coordinator::EvaluationOfCutToCome() {
  const uint64_t cut = cuts_.number(), every = EvaluateEvery(options_.job.evaluation(), clocks_per_epoch_);
  if (options_.job.checkpoint().keep_best() == 0 || !CutsAreEvaluated()) return false;
  // Whoever stops evaluates nothing any more.
  if (phase_ != v1::RUNNING || stopping() || cut == 0 || every == 0 || cut % every != 0) return false;
  if (!metrics_.MayEvaluate(cut)) return false;
  if (round() <= cut) return true;
  if (!passed_.has_value() || passed_->first != cut) passed_ = {cut, now_};
  return now_ - passed_->second < kEvaluationPatience;
}

std::optional<double> Coordinator::MetricOfCut() const {
  return CutsAreEvaluated() ? metrics_.LossAt(cuts_.number()) : std::nullopt;
}

}  // namespace descent
