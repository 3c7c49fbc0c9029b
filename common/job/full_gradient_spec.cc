#include "common/job/full_gradient_spec.h"

#include <string>

#include "common/job/job.h"
#include "common/job/model_spec.h"

namespace descent {
namespace {

// Why the model's objective has no gradient everywhere, or more than one minimum; null: it is neither.
const char* NotConvex(const v1::ModelSpec& model) {
  switch (model.kind_case()) {
    case v1::ModelSpec::kSvm:
      return model.svm().squared_hinge() ? nullptr : "the hinge loss has a kink: set model.svm.squared_hinge";
    case v1::ModelSpec::kLinear:
      switch (model.linear().loss().kind_case()) {
        case v1::Loss::kAbsolute:
        case v1::Loss::kQuantile:
        case v1::Loss::kEpsilonInsensitive:
          return "the loss has a kink; huber has none";
        default:
          return nullptr;
      }
    case v1::ModelSpec::kLogistic:
      return model.logistic().focal_gamma() > 0 ? "focal loss is not convex" : nullptr;
    case v1::ModelSpec::kSoftmax:
      return model.softmax().focal_gamma() > 0 ? "focal loss is not convex" : nullptr;
    case v1::ModelSpec::kPoisson:
    case v1::ModelSpec::kQuadratic:
    case v1::ModelSpec::kCustom:  // its author knows
      return nullptr;
    default:
      return "its objective is not convex";
  }
}

}  // namespace

bool TakesFullGradient(const v1::Optimizer& optimizer) { return optimizer.has_lbfgs() || optimizer.has_newton_cg(); }

uint32_t FullGradientSlots(const v1::Optimizer& optimizer) {
  return optimizer.has_lbfgs() ? 2 + 2 * optimizer.lbfgs().history() : 4;
}

uint64_t MostRoundsAtOnePoint(const v1::Optimizer& optimizer) {
  constexpr uint64_t kSizes = 20;  // of one step that are tried (server/store/slope_search.h)
  return optimizer.has_lbfgs() ? 2 * kSizes + 2 : kSizes + 2 + optimizer.newton_cg().max_products();
}

bool EvaluatesAverages(const v1::JobSpec& job) { return job.has_averaging() || TakesFullGradient(job.optimizer()); }

void ResolveFullGradientRule(v1::Optimizer* optimizer) {
  if (optimizer->has_lbfgs() && optimizer->lbfgs().history() == 0) optimizer->mutable_lbfgs()->set_history(10);
  if (optimizer->has_newton_cg()) {
    v1::NewtonCg* newton = optimizer->mutable_newton_cg();
    if (newton->max_products() == 0) newton->set_max_products(50);
    if (!newton->has_forcing()) newton->set_forcing(0.5);
  }
}

void CheckFullGradientRule(const v1::Optimizer& optimizer, JobErrors* errors) {
  if (optimizer.has_lbfgs()) {
    errors->Range<uint32_t>("optimizer.lbfgs.history", optimizer.lbfgs().history(), 1, 20);
    errors->FloatFromZero("optimizer.lbfgs.l1", optimizer.lbfgs().l1());
  }
  if (optimizer.has_newton_cg()) {
    errors->Range<uint32_t>("optimizer.newton_cg.max_products", optimizer.newton_cg().max_products(), 1, 1000000);
    const double forcing = optimizer.newton_cg().forcing();
    if (!(forcing > 0 && forcing < 1)) {
      errors->Error("optimizer.newton_cg.forcing", forcing, " is not between 0 and 1");
    }
  }
}

void ResolveFullGradient(v1::JobSpec* job) {
  if (!TakesFullGradient(job->optimizer())) return;
  if (job->batch_size() == 0) job->set_batch_size(kWholeShare);
  if (job->block_elements() == 0) job->set_block_elements(16384);  // many vectors of a block go in one message
  // In the order of the files, so that equal points have gradients of equal bits.
  if (job->has_data() && job->data().sampling() == v1::WITHOUT_REPLACEMENT) {
    job->mutable_data()->set_sampling(v1::SEQUENTIAL);
  }
}

void CheckFullGradient(const v1::JobSpec& job, JobErrors* errors) {
  const v1::Optimizer& optimizer = job.optimizer();
  if (!TakesFullGradient(optimizer)) return;
  const std::string rule = optimizer.has_lbfgs() ? "lbfgs" : "newton_cg";
  if (job.record_order()) {
    errors->Error("record_order", rule, " makes the same steps again by itself: run the job once more");
  }
  const auto refuse = [&](const char* path, const auto&... why) { errors->Error(path, why...); };
  if (job.batch_size() != kWholeShare) {
    refuse("batch_size", job.batch_size(), ", but ", rule, " takes the gradient of all data: leave it out");
  }
  if (job.has_data() && job.data().sampling() != v1::SEQUENTIAL) {
    refuse("data.sampling", rule, " takes every example once a round: leave it out, or say SEQUENTIAL");
  }
  if (job.data().has_resampling()) refuse("data.resampling", rule, " takes every example once a round");
  if (job.has_learning_rate()) refuse("learning_rate", rule, " finds the size of each step by itself: leave it out");
  if (const char* why = NotConvex(job.model()); why != nullptr) {
    refuse("optimizer", rule, " is for models whose objective is convex and smooth; ", why);
  }
  if (HasTable(job.model())) {
    refuse("optimizer", rule,
           " takes products over all parameters; of a sparse_table only the rows that occurred are "
           "there: set features, and no sparse_table");
  }
  if (ConsistencyOf(job).apply_push || ConsistencyOf(job).staleness > 0) {
    refuse("consistency.mode", rule, " takes the gradient of all data at one point, which SYNC gives");
  }
  if (job.consistency().backup_ranks() > 0) {
    refuse("consistency.backup_ranks", rule,
           " takes the gradient of all data, and a round without some ranks has none");
  }
  if (job.consistency().reduce() == v1::SUM) refuse("consistency.reduce", rule, " minimises a mean: leave it out");
  if (job.encoding() != v1::F32) refuse("encoding", rule, " takes differences of gradients, which 16 bits do not have");
  if (job.has_clip()) refuse("clip", rule, " takes the gradient as it is");
  if (job.has_gradient_noise()) refuse("gradient_noise", rule, " takes the gradient as it is");
  if (job.has_averaging()) refuse("averaging", rule, " keeps the best point by itself");
  if (job.has_reduce_on_plateau()) refuse("reduce_on_plateau", rule, " has no learning rate");
  if (optimizer.has_proximal()) {
    refuse("optimizer.proximal", rule,
           optimizer.has_lbfgs() ? " has an l1 of its own" : " minimises smooth objectives");
  }
}

}  // namespace descent
