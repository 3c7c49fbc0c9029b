#include "common/job/step_spec.h"

#include <string>

#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/job/learning_rate_spec.h"

namespace descent {
namespace {

bool Layerwise(const v1::JobSpec& job) { return job.optimizer().has_lars() || job.optimizer().has_lamb(); }

class StepChecker {
 public:
  StepChecker(const v1::JobSpec& job, bool epochs, bool tables, JobErrors* errors)
      : job_(job), epochs_(epochs), tables_(tables), push_(ConsistencyOf(job).apply_push), errors_(errors) {}

  void Run() {
    Clipping();
    Noise();
    Layers();
    MomentumSchedule();
    Averages();
    if (job_.optimizer().proximal().group_lasso() != 0) GroupLasso();
    Delays();
  }

 private:
  void Clipping() {
    const v1::Clip& clip = job_.clip();
    errors_->FloatFromZero("clip.value", clip.value());
    errors_->FloatFromZero("clip.norm", clip.norm());
    errors_->FloatFromZero("clip.global_norm", clip.global_norm());
    if (job_.has_clip() && clip.value() == 0 && clip.norm() == 0 && clip.global_norm() == 0) {
      errors_->Error("clip", "does nothing: set value, norm or global_norm");
    }
    const char* norm = clip.norm() != 0 ? "clip.norm" : clip.global_norm() != 0 ? "clip.global_norm" : nullptr;
    if (norm == nullptr) return;
    if (push_) {
      errors_->Error(norm,
                     "is of a whole step, which rounds have; with apply: PUSH each block makes its step as soon as ",
                     "its part of a push is there. clip.value goes with both");
    }
    if (job_.optimizer().has_lamb()) {
      errors_->Error(norm, "does not go with lamb, whose ratio would have to be measured once more after it; ",
                     "clip.value does");
    }
  }

  void Noise() {
    if (!job_.has_gradient_noise()) return;
    errors_->PositiveFloat("gradient_noise.eta", job_.gradient_noise().eta());
    errors_->FloatFromZero("gradient_noise.gamma", job_.gradient_noise().gamma());
    if (Layerwise(job_)) {
      errors_->Error("gradient_noise", "does not go with lars and lamb, whose ratios are of the gradient without it");
    }
    if (job_.optimizer().has_ftrl()) {
      errors_->Error("gradient_noise", "does not go with ftrl, which takes a gradient of 0 as none");
    }
    if (tables_) {
      errors_->Error("gradient_noise",
                     "is on every element of a gradient; of a sparse_table only the rows of the batch ", "have one");
    }
  }

  void Layers() {
    if (!Layerwise(job_)) return;
    const std::string rule = job_.optimizer().has_lars() ? "optimizer.lars" : "optimizer.lamb";
    if (push_) {
      errors_->Error(rule,
                     "needs the norms of whole tensors before any block makes its step, which rounds have; apply: ",
                     "PUSH has none");
    }
    if (tables_) {
      errors_->Error(rule, "needs the norm of all parameters; of a sparse_table only the rows that occurred are there");
    }
  }

  void MomentumSchedule() {
    if (!job_.has_momentum_schedule()) return;
    const std::string path = "momentum_schedule";
    const v1::LearningRate& schedule = job_.momentum_schedule();
    const v1::Optimizer& rule = job_.optimizer();
    if (!(rule.has_momentum() || rule.has_nesterov() || rule.has_lars() || rule.rmsprop().momentum() > 0)) {
      errors_->Error(path, "is for momentum, nesterov, lars, and rmsprop with a momentum");
    }
    if (rule.momentum().dampening() != 0) {
      errors_->Error(path, "does not go with dampening, which is for one momentum");
    }
    if (rule.has_proximal()) {
      errors_->Error(path, "does not go with a proximal step, whose size is for one momentum");
    }
    if (schedule.scaling() != v1::NO_SCALING || schedule.scaled_from() != 0) {
      errors_->Error(path + ".scaling", "is for rates");
    }
    CheckLearningRate(schedule, epochs_, errors_, path);
    for (const double value :
         {schedule.constant(), schedule.step().initial(), schedule.exponential().initial(),
          schedule.inverse_time().initial(), schedule.inverse_sqrt().initial(), schedule.polynomial().initial(),
          schedule.polynomial().final(), schedule.cosine().initial(), schedule.cosine().final(),
          schedule.one_cycle().peak(), schedule.one_cycle().initial(), schedule.one_cycle().final()}) {
      if (value >= 1) errors_->Error(path, "reaches ", value, "; a momentum is below 1");
    }
  }

  void Averages() {
    if (!job_.has_averaging()) return;
    const v1::Averaging& averaging = job_.averaging();
    if (averaging.has_decay()) errors_->Share("averaging.decay", averaging.decay());
    if (averaging.from_case() == v1::Averaging::kFromEpoch) {
      errors_->Positive("averaging.from_epoch", averaging.from_epoch(), /*or_zero=*/true);
      if (!epochs_)
        errors_->Error("averaging.from_epoch", "the model reads no data, so it has no epochs: set from_round");
    }
    if (tables_) {
      errors_->Error("averaging",
                     "does not go with a sparse_table: the averages of rows that no batch names move, too");
    }
  }

  void GroupLasso() {
    const v1::Optimizer& rule = job_.optimizer();
    const v1::Proximal& step = rule.proximal();
    const std::string path = "optimizer.proximal.group_lasso";
    errors_->FloatFromZero(path, step.group_lasso());
    if (!rule.has_sgd() && !rule.has_momentum()) {
      errors_->Error(path, "goes with sgd and momentum: the step size must be the same for all of a row");
    }
    if (step.has_lower() || step.has_upper() || step.non_negative()) {
      errors_->Error(path, "does not go with lower, upper and non_negative: no order of the two makes the stated step");
    }
  }

  void Delays() {
    const v1::Consistency& spec = job_.consistency();
    if (spec.staleness_aware_rate() && !push_) {
      errors_->Error("consistency.staleness_aware_rate",
                     "is for apply: PUSH: in a round all gradients are of one staleness");
    }
    const v1::Optimizer& rule = job_.optimizer();
    const bool catches_up =
        tables_ && job_.l2_rows() == v1::LAZY_EXACT && (job_.l2() > 0 || rule.has_proximal() || rule.has_adamw());
    if (spec.staleness_aware_rate() && catches_up) {
      errors_->Error("consistency.staleness_aware_rate",
                     "does not go with rows that make up for steps they missed, whose ",
                     "staleness is no longer known then: set l2_rows: TOUCHED");
    }
    if (spec.staleness_aware_rate() && rule.has_ftrl()) {
      errors_->Error("consistency.staleness_aware_rate", "does not go with ftrl, which takes one rate");
    }
    if (!spec.has_delay_compensation()) return;
    const std::string path = "consistency.delay_compensation";
    errors_->PositiveFloat(path + ".lambda", spec.delay_compensation().lambda());
    errors_->Share(path + ".mean_square_decay", spec.delay_compensation().mean_square_decay());
    if (!push_) errors_->Error(path, "is for apply: PUSH");
    if (tables_)
      errors_->Error(path, "needs the parameters that a push was computed from; of a sparse_table none are kept");
    if (job_.replicas() > 0) {
      errors_->Error(path, "does not go with replicas: a backup that joins has no older parameters than it was sent");
    }
  }

  const v1::JobSpec& job_;
  const bool epochs_, tables_, push_;
  JobErrors* const errors_;
};

}  // namespace

void ResolveSteps(v1::JobSpec* job) {
  if (job->has_gradient_noise() && !job->gradient_noise().has_gamma()) job->mutable_gradient_noise()->set_gamma(0.55);
  if (job->has_momentum_schedule()) ResolveLearningRate(job->mutable_momentum_schedule());
}

void CheckSteps(const v1::JobSpec& job, bool epochs, bool tables, JobErrors* errors) {
  StepChecker(job, epochs, tables, errors).Run();
}

bool NeedsScalars(const v1::JobSpec& job) {
  return job.clip().norm() > 0 || job.clip().global_norm() > 0 || Layerwise(job) || TakesFullGradient(job.optimizer());
}

uint32_t StateBesideRule(const v1::JobSpec& job) {
  return job.consistency().delay_compensation().mean_square_decay() > 0 ? 1 : 0;
}

}  // namespace descent
