#include "common/job/learning_rate_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/job/job.h"

namespace descent {
namespace {

// By squaring: the same bits whatever the mathematical library.
double WholePower(double base, double exponent) {
  double result = 1;
  for (auto n = static_cast<uint64_t>(std::min(exponent, 1e18)); n != 0; n >>= 1, base *= base) {
    if (n & 1) result *= base;
  }
  return result;
}

double Power(double base, double exponent) {
  return exponent == std::floor(exponent) ? WholePower(base, exponent) : std::pow(base, exponent);
}

}  // namespace

LearningRateSchedule::LearningRateSchedule(const v1::LearningRate& rate, const v1::JobSpec& job,
                                           uint64_t clocks_per_epoch) {
  if (rate.scaling() != v1::NO_SCALING) scaling_ = static_cast<double>(job.ranks()) / std::max(1u, rate.scaled_from());
  if (rate.scaling() == v1::SQUARE_ROOT) scaling_ = std::sqrt(scaling_);
  kind_ = rate.schedule_case();
  if (rate.warmup_case() == v1::LearningRate::kWarmupRounds) warmup_ = rate.warmup_rounds();
  if (rate.warmup_case() == v1::LearningRate::kWarmupEpochs) {
    warmup_ = RoundsOf(rate.warmup_epochs(), clocks_per_epoch);
  }
  const auto length = [&](const auto& schedule) -> uint64_t {
    if (schedule.rounds() > 0) return schedule.rounds();
    if (schedule.epochs() > 0) return RoundsOf(schedule.epochs(), clocks_per_epoch);
    const uint64_t clocks = ClocksOf(job, clocks_per_epoch);
    return clocks > warmup_ ? clocks - warmup_ : 1;
  };
  switch (kind_) {
    case v1::LearningRate::kConstant:
      initial_ = rate.constant();
      break;
    case v1::LearningRate::kStep:
      initial_ = rate.step().initial();
      factor_ = rate.step().factor();
      SetLength(rate.step().every_rounds() > 0 ? rate.step().every_rounds()
                                               : RoundsOf(rate.step().every_epochs(), clocks_per_epoch));
      break;
    case v1::LearningRate::kExponential:
      initial_ = rate.exponential().initial();
      factor_ = rate.exponential().factor();
      SetLength(length(rate.exponential()));
      break;
    case v1::LearningRate::kInverseTime:
      initial_ = rate.inverse_time().initial();
      SetLength(length(rate.inverse_time()));
      break;
    case v1::LearningRate::kInverseSqrt:
      initial_ = rate.inverse_sqrt().initial();
      SetLength(length(rate.inverse_sqrt()));
      break;
    case v1::LearningRate::kPolynomial:
      initial_ = rate.polynomial().initial();
      final_ = rate.polynomial().final();
      power_ = rate.polynomial().power();
      SetLength(length(rate.polynomial()));
      break;
    case v1::LearningRate::kCosine:
      initial_ = rate.cosine().initial();
      final_ = rate.cosine().final();
      restarts_ = rate.cosine().restarts();
      growth_ = rate.cosine().growth();
      SetLength(length(rate.cosine()));
      break;
    case v1::LearningRate::kOneCycle:
      initial_ = rate.one_cycle().initial();
      final_ = rate.one_cycle().final();
      peak_ = rate.one_cycle().peak();
      rise_ = rate.one_cycle().rise();
      SetLength(length(rate.one_cycle()));
      break;
    case v1::LearningRate::SCHEDULE_NOT_SET:
      break;
  }
}

double LearningRateSchedule::Cosine(double t) const {
  double cycle = length_;
  if (restarts_ && growth_ == 1) t = std::fmod(t, cycle);
  if (restarts_ && growth_ > 1) {
    for (; t >= cycle; cycle *= growth_) t -= cycle;
  }
  if (t >= cycle) return final_;
  return final_ + (initial_ - final_) * (1 + std::cos(std::numbers::pi * (t / cycle))) / 2;
}

double LearningRateSchedule::OneCycle(double x) const {
  if (x < rise_) return initial_ + (peak_ - initial_) * (x / rise_);
  if (x < 2 * rise_) return peak_ - (peak_ - initial_) * ((x - rise_) / rise_);
  if (x < 1) return initial_ - (initial_ - final_) * ((x - 2 * rise_) / (1 - 2 * rise_));
  return final_;
}

double LearningRateSchedule::Value(double t) const {
  const double x = t / length_;
  switch (kind_) {
    case v1::LearningRate::kStep:
      return initial_ * WholePower(factor_, std::floor(x));
    case v1::LearningRate::kExponential:
      return initial_ * Power(factor_, x);
    case v1::LearningRate::kInverseTime:
      return initial_ / (1 + x);
    case v1::LearningRate::kInverseSqrt:
      return initial_ / std::sqrt(1 + x);
    case v1::LearningRate::kPolynomial:
      return x < 1 ? final_ + (initial_ - final_) * Power(1 - x, power_) : final_;
    case v1::LearningRate::kCosine:
      return Cosine(t);
    case v1::LearningRate::kOneCycle:
      return OneCycle(x);
    default:
      return initial_;
  }
}

float LearningRateSchedule::At(uint64_t clock) const {
  if (clock >= warmup_) return static_cast<float>(scaling_ * Value(static_cast<double>(clock - warmup_)));
  return static_cast<float>(scaling_ * Value(0) * (static_cast<double>(clock + 1) / static_cast<double>(warmup_ + 1)));
}

}  // namespace descent
