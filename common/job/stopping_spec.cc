#include "common/job/stopping_spec.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/job/evaluation_spec.h"
#include "common/job/job.h"
#include "common/job/model_spec.h"

namespace descent {
namespace {

// What a model of two classes has covers what all others have.
constexpr Prediction kTwoClasses{true, 2};

void CheckMetric(const v1::JobSpec& job, const std::string& path, const std::string& metric, JobErrors* errors) {
  const std::vector<NamedMetric> named =
      NamedMetrics(job.evaluation(), PredictionOf(job.model()).value_or(kTwoClasses));
  if (std::any_of(named.begin(), named.end(), [&](const NamedMetric& n) { return n.name == metric; })) return;
  errors->Error(path, "`", metric, "` is none of what is evaluated: ",
                absl::StrJoin(named, ", ", [](std::string* out, const NamedMetric& n) { out->append(n.name); }));
}

void CheckNorms(const v1::JobSpec& job, absl::string_view path, JobErrors* errors) {
  if (ConsistencyOf(job).apply_push) errors->Error(path, "is of rounds: with apply PUSH there are none");
  if (job.replicas() > 0) errors->Error(path, "does not go with replicas: a backup that takes over has no norms");
}

void CheckEarly(const v1::JobSpec& job, JobErrors* errors) {
  const v1::EarlyStopping& early = job.stopping().early();
  CheckMetric(job, "stopping.early.metric", early.metric(), errors);
  errors->Range<uint64_t>("stopping.early.patience", early.patience(), 1, 1000000);
  errors->Positive("stopping.early.min_change", early.min_change(), /*or_zero=*/true);
  const Consistency consistency = ConsistencyOf(job);
  if (early.restore_best() && (consistency.apply_push || consistency.staleness > 0)) {
    errors->Error("stopping.early.restore_best",
                  "is for mode SYNC: otherwise what was evaluated is not what a checkpoint has");
  }
}

void CheckPlateau(const v1::JobSpec& job, JobErrors* errors) {
  const v1::ReduceOnPlateau& plateau = job.reduce_on_plateau();
  CheckMetric(job, "reduce_on_plateau.metric", plateau.metric(), errors);
  if (!(plateau.factor() > 0 && plateau.factor() <= 0.99) && std::isfinite(plateau.factor())) {
    errors->Error("reduce_on_plateau.factor", plateau.factor(), " is not above 0 and at most 0.99");
  }
  if (!(plateau.min_factor() >= 1e-30 && plateau.min_factor() < 1) && std::isfinite(plateau.min_factor())) {
    errors->Error("reduce_on_plateau.min_factor", plateau.min_factor(), " is not from 1e-30 to below 1");
  }
  errors->Range<uint64_t>("reduce_on_plateau.patience", plateau.patience(), 1, 1000000);
  errors->Range<uint64_t>("reduce_on_plateau.cooldown", plateau.cooldown(), 0, 1000000);
  errors->Positive("reduce_on_plateau.min_change", plateau.min_change(), /*or_zero=*/true);
  if (ConsistencyOf(job).apply_push) {
    errors->Error("reduce_on_plateau", "is of rounds: with apply PUSH the clock of a step depends on timing");
  }
  if (job.record_order())
    errors->Error("reduce_on_plateau", "does not go with record_order: a replay has no evaluations");
  if (job.optimizer().has_ftrl()) errors->Error("reduce_on_plateau", "ftrl takes a constant rate, its alpha");
}

void CheckDivergence(const v1::JobSpec& job, JobErrors* errors) {
  const v1::Divergence& divergence = job.divergence();
  CheckMetric(job, "divergence.metric", divergence.metric(), errors);
  if (MoreIsBetter(job.evaluation(), divergence.metric())) {
    errors->Error("divergence.metric", "`", divergence.metric(),
                  "` is better the more it is: expected a loss or an error");
  }
  if (!divergence.has_loss_above() && !divergence.has_jump_factor()) {
    errors->Error("divergence", "neither loss_above nor jump_factor is set: nothing is a divergence");
  }
  if (divergence.has_jump_factor() && std::isfinite(divergence.jump_factor()) && !(divergence.jump_factor() > 1)) {
    errors->Error("divergence.jump_factor", divergence.jump_factor(), " is not above 1");
  }
  if (!RollsBack(job)) {
    if (divergence.has_rate_factor()) errors->Error("divergence.rate_factor", "is for action ROLLBACK");
    if (divergence.max_rollbacks() != 0) errors->Error("divergence.max_rollbacks", "is for action ROLLBACK");
    return;
  }
  if (!(divergence.rate_factor() > 0 && divergence.rate_factor() <= 1) && std::isfinite(divergence.rate_factor())) {
    errors->Error("divergence.rate_factor", divergence.rate_factor(), " is not above 0 and at most 1");
  }
  errors->Range<uint64_t>("divergence.max_rollbacks", divergence.max_rollbacks(), 1, 1000);
  if (ConsistencyOf(job).apply_push || ConsistencyOf(job).staleness > 0) {
    errors->Error("divergence.action",
                  "ROLLBACK is for mode SYNC: otherwise what was evaluated is not what a checkpoint has");
  }
  if (job.record_order()) {
    errors->Error("divergence.action", "ROLLBACK does not go with record_order: a replay has no evaluations");
  }
  if (job.optimizer().has_ftrl()) errors->Error("divergence.action", "ROLLBACK: ftrl takes a constant rate, its alpha");
  if (job.optimizer().has_lbfgs() || job.optimizer().has_newton_cg()) {
    errors->Error("divergence.action", "ROLLBACK: a line search finds the rate, which no factor makes smaller");
  }
}

}  // namespace

bool CutsAtEvaluations(const v1::JobSpec& job) { return job.stopping().early().restore_best() || RollsBack(job); }

bool RollsBack(const v1::JobSpec& job) { return job.has_divergence() && job.divergence().action() == v1::ROLLBACK; }

bool LooksAtNorms(const v1::JobSpec& job) {
  return job.stopping().has_gradient_norm() || job.stopping().has_parameter_change() ||
         (job.has_divergence() && !ConsistencyOf(job).apply_push);
}

bool StopsByEvaluations(const v1::Stopping& stopping) {
  return stopping.has_loss_change() || stopping.has_parameter_change() || stopping.has_gradient_norm() ||
         stopping.has_early() || stopping.target_size() > 0;
}

bool MoreIsBetter(const v1::Evaluation& evaluation, absl::string_view metric) {
  for (const NamedMetric& named : NamedMetrics(evaluation, kTwoClasses)) {
    if (named.name == metric) return named.more_is_better;
  }
  return false;
}

void ResolveStopping(v1::JobSpec* job) {
  if (job->has_stopping()) {
    v1::Stopping* stopping = job->mutable_stopping();
    if (stopping->evaluations() == 0) stopping->set_evaluations(1);
    if (stopping->has_early() && stopping->early().metric().empty()) stopping->mutable_early()->set_metric("loss");
  }
  if (job->has_divergence()) {
    v1::Divergence* divergence = job->mutable_divergence();
    const bool train = job->data().has_train() && !job->data().has_validation();
    if (divergence->metric().empty()) divergence->set_metric(train ? "train_loss" : "loss");
    if (divergence->action() == v1::ROLLBACK && !divergence->has_rate_factor()) divergence->set_rate_factor(0.5);
    if (divergence->action() == v1::ROLLBACK && divergence->max_rollbacks() == 0) divergence->set_max_rollbacks(3);
  }
  if (!job->has_reduce_on_plateau()) return;
  v1::ReduceOnPlateau* plateau = job->mutable_reduce_on_plateau();
  if (plateau->metric().empty()) plateau->set_metric("loss");
  if (!plateau->has_factor()) plateau->set_factor(0.1);
  if (plateau->min_factor() == 0) plateau->set_min_factor(1e-4);
}

void CheckStopping(const v1::JobSpec& job, JobErrors* errors) {
  const v1::Stopping& stopping = job.stopping();
  const bool watched = StopsByEvaluations(stopping) || job.has_reduce_on_plateau() || job.has_divergence();
  if (watched && job.evaluation().every_case() == v1::Evaluation::EVERY_NOT_SET) {
    errors->Error(job.has_reduce_on_plateau()    ? "reduce_on_plateau"
                  : StopsByEvaluations(stopping) ? "stopping"
                                                 : "divergence",
                  "looks at evaluations, of which there are none: set evaluation.every_epochs or every_rounds");
  }
  if (job.has_stopping()) {
    errors->Positive("stopping.seconds", stopping.seconds(), /*or_zero=*/true);
    errors->Range<uint64_t>("stopping.evaluations", stopping.evaluations(), 1, 1000000);
    if (stopping.has_loss_change()) errors->Positive("stopping.loss_change", stopping.loss_change());
  }
  if (stopping.has_parameter_change()) {
    errors->Positive("stopping.parameter_change", stopping.parameter_change());
    CheckNorms(job, "stopping.parameter_change", errors);
    if (HasTable(job.model())) {
      errors->Error("stopping.parameter_change", "is of dense tensors: rows of a table move without a round of theirs");
    }
  }
  if (stopping.has_gradient_norm()) {
    errors->Positive("stopping.gradient_norm", stopping.gradient_norm());
    CheckNorms(job, "stopping.gradient_norm", errors);
  }
  if (stopping.has_early()) CheckEarly(job, errors);
  for (int i = 0; i < stopping.target_size(); ++i) {
    CheckMetric(job, absl::StrCat("stopping.target[", i, "].metric"), stopping.target(i).metric(), errors);
  }
  if (job.has_reduce_on_plateau()) CheckPlateau(job, errors);
  if (job.has_divergence()) CheckDivergence(job, errors);
}

}  // namespace descent
