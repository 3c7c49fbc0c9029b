#include "common/job/learning_rate_spec.h"

#include <cmath>
#include <string>

namespace descent {
namespace {

constexpr uint64_t kMostRounds = uint64_t{1} << 48;

class RateChecker {
 public:
  RateChecker(bool epochs, JobErrors* errors) : epochs_(epochs), errors_(errors) {}

  void First(const std::string& path, double value) {
    if (value == 0) return errors_->Error(path, "missing: how far a step goes");
    errors_->PositiveFloat(path, value);
  }
  void Factor(const std::string& path, double value) {
    if (std::isfinite(value) && !(value > 0 && value <= 1)) errors_->Error(path, value, " is not from above 0 to 1");
  }
  void Rounds(const std::string& path, bool given, uint64_t rounds) {
    if (given) errors_->Range<uint64_t>(path, rounds, 1, kMostRounds);
  }
  void Epochs(const std::string& path, bool given, double epochs) {
    if (!given) return;
    if (!epochs_) errors_->Error(path, "the model reads no data, so it has no epochs: set rounds");
    errors_->Positive(path, epochs);
    if (std::isfinite(epochs) && epochs > 1e9) errors_->Error(path, epochs, " is more than 1e9");
  }
  template <typename Schedule>
  void Length(const std::string& path, const Schedule& schedule, bool rest_of_run) {
    Rounds(path + ".rounds", schedule.length_case() == Schedule::kRounds, schedule.rounds());
    Epochs(path + ".epochs", schedule.length_case() == Schedule::kEpochs, schedule.epochs());
    if (!rest_of_run && schedule.length_case() == Schedule::LENGTH_NOT_SET) {
      errors_->Error(path + ".rounds", "missing, and epochs as well: how soon the rate falls");
    }
  }

 private:
  const bool epochs_;
  JobErrors* const errors_;
};

}  // namespace

void ResolveLearningRate(v1::LearningRate* rate) {
  if (rate->scaling() != v1::NO_SCALING && rate->scaled_from() == 0) rate->set_scaled_from(1);
  if (rate->has_step() && !rate->step().has_factor()) rate->mutable_step()->set_factor(0.1);
  if (rate->has_exponential() && !rate->exponential().has_factor()) rate->mutable_exponential()->set_factor(0.1);
  if (rate->has_polynomial() && !rate->polynomial().has_power()) rate->mutable_polynomial()->set_power(1);
  if (rate->has_cosine() && rate->cosine().growth() == 0) rate->mutable_cosine()->set_growth(1);
  if (rate->has_one_cycle()) {
    v1::OneCycleRate* cycle = rate->mutable_one_cycle();
    if (!cycle->has_initial()) cycle->set_initial(cycle->peak() / 10);
    if (!cycle->has_final()) cycle->set_final(cycle->initial() / 100);
    if (!cycle->has_rise()) cycle->set_rise(0.45);
  }
}

void CheckLearningRate(const v1::LearningRate& rate, bool epochs, JobErrors* errors, const std::string& field) {
  RateChecker check(epochs, errors);
  const std::string path = field + ".";
  switch (rate.schedule_case()) {
    case v1::LearningRate::SCHEDULE_NOT_SET:
      errors->Error(path + "constant", "missing: how far a step goes");
      break;
    case v1::LearningRate::kConstant:
      check.First(path + "constant", rate.constant());
      break;
    case v1::LearningRate::kStep:
      check.First(path + "step.initial", rate.step().initial());
      check.Factor(path + "step.factor", rate.step().factor());
      check.Rounds(path + "step.every_rounds", rate.step().every_case() == v1::StepRate::kEveryRounds,
                   rate.step().every_rounds());
      check.Epochs(path + "step.every_epochs", rate.step().every_case() == v1::StepRate::kEveryEpochs,
                   rate.step().every_epochs());
      if (rate.step().every_case() == v1::StepRate::EVERY_NOT_SET) {
        errors->Error(path + "step.every_rounds", "missing, and every_epochs as well: how soon the rate falls");
      }
      break;
    case v1::LearningRate::kExponential:
      check.First(path + "exponential.initial", rate.exponential().initial());
      check.Factor(path + "exponential.factor", rate.exponential().factor());
      check.Length(path + "exponential", rate.exponential(), false);
      break;
    case v1::LearningRate::kInverseTime:
      check.First(path + "inverse_time.initial", rate.inverse_time().initial());
      check.Length(path + "inverse_time", rate.inverse_time(), false);
      break;
    case v1::LearningRate::kInverseSqrt:
      check.First(path + "inverse_sqrt.initial", rate.inverse_sqrt().initial());
      check.Length(path + "inverse_sqrt", rate.inverse_sqrt(), false);
      break;
    case v1::LearningRate::kPolynomial:
      check.First(path + "polynomial.initial", rate.polynomial().initial());
      errors->FloatFromZero(path + "polynomial.final", rate.polynomial().final());
      errors->Positive(path + "polynomial.power", rate.polynomial().power());
      check.Length(path + "polynomial", rate.polynomial(), true);
      break;
    case v1::LearningRate::kCosine:
      check.First(path + "cosine.initial", rate.cosine().initial());
      errors->FloatFromZero(path + "cosine.final", rate.cosine().final());
      check.Length(path + "cosine", rate.cosine(), true);
      errors->Range<uint64_t>(path + "cosine.growth", rate.cosine().growth(), 1, 1000);
      if (rate.cosine().growth() > 1 && !rate.cosine().restarts()) {
        errors->Error(path + "cosine.growth", rate.cosine().growth(), " is for cycles that follow: set restarts");
      }
      break;
    case v1::LearningRate::kOneCycle:
      check.First(path + "one_cycle.peak", rate.one_cycle().peak());
      errors->FloatFromZero(path + "one_cycle.initial", rate.one_cycle().initial());
      errors->FloatFromZero(path + "one_cycle.final", rate.one_cycle().final());
      if (const double rise = rate.one_cycle().rise(); std::isfinite(rise) && !(rise > 0 && rise <= 0.5)) {
        errors->Error(path + "one_cycle.rise", rise, " is not from above 0 to 0.5: the fall takes as long");
      }
      check.Length(path + "one_cycle", rate.one_cycle(), true);
      break;
  }
  if (rate.scaling() == v1::NO_SCALING && rate.scaled_from() != 0) {
    errors->Error(path + "scaled_from", "is for a rate with scaling: LINEAR or SQUARE_ROOT");
  }
  check.Rounds(path + "warmup_rounds", rate.warmup_case() == v1::LearningRate::kWarmupRounds, rate.warmup_rounds());
  check.Epochs(path + "warmup_epochs", rate.warmup_case() == v1::LearningRate::kWarmupEpochs, rate.warmup_epochs());
}

}  // namespace descent
