// The learning rate of a clock: a function of the job and the clock alone.
//
// With W rounds of warm-up, t = clock - W from there on, T the schedule's length in rounds and x = t / T:
//   constant      initial
//   step          initial * factor^floor(x)
//   exponential   initial * factor^x
//   inverse_time  initial / (1 + x)                        (Robbins & Monro 1951; in this form Bottou 2012)
//   inverse_sqrt  initial / sqrt(1 + x)                    (Zinkevich 2003)
//   polynomial    final + (initial - final) (1 - x)^power;                    from T on: final
//   cosine        final + (initial - final) (1 + cos(pi x)) / 2;              from T on: final, or with restarts
//                 the next cycle, `growth` times as long   (Loshchilov & Hutter 2017)
//   one_cycle     linear from `initial` to `peak` over the share `rise` of T, back in as long, then to `final`;
//                 from T on: final                         (Smith 2018)
// and before, for clock < W, linear: schedule(0) * (clock + 1) / (W + 1)      (Goyal et al. 2017).
//
// A rate may be scaled, all of it, by k = ranks / scaled_from (Goyal et al. 2017) or by its root (Krizhevsky 2014).
//
// Bits. Everything is computed in double and rounded to float once. Only cos (cosine) and pow (exponential, polynomial
// with a power that is not whole) are the mathematical library's; the fingerprint of a process's arithmetic, which SYNC
// compares, covers both.
//
// A value; thread-safe.
#ifndef DESCENT_COMMON_JOB_LEARNING_RATE_SCHEDULE_H_
#define DESCENT_COMMON_JOB_LEARNING_RATE_SCHEDULE_H_

#include <cstdint>

#include "descent/v1/job.pb.h"

namespace descent {

class LearningRateSchedule {
 public:
  // Of a valid job. clocks_per_epoch: what lengths in epochs are counted by; any for jobs that name none.
  LearningRateSchedule(const v1::JobSpec& job, uint64_t clocks_per_epoch)
      : LearningRateSchedule(job.learning_rate(), job, clocks_per_epoch) {}
  // `rate` in the place of the job's.
  LearningRateSchedule(const v1::LearningRate& rate, const v1::JobSpec& job, uint64_t clocks_per_epoch);

  float At(uint64_t clock) const;

 private:
  void SetLength(uint64_t rounds) { length_ = static_cast<double>(rounds); }
  double Value(double t) const;
  double Cosine(double t) const;
  double OneCycle(double x) const;

  v1::LearningRate::ScheduleCase kind_;
  uint64_t warmup_ = 0;
  double scaling_ = 1;
  double length_ = 1;
  double initial_ = 0, final_ = 0, factor_ = 1, power_ = 1, peak_ = 0, rise_ = 0, growth_ = 1;
  bool restarts_ = false;
};

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_LEARNING_RATE_SCHEDULE_H_
