// The steps that rows of a sparse table missed because no batch touched them: replayed with g == 0 when a row is next
// needed, so that a row holds at all times what a dense tensor would hold, bit for bit.
//
// Step `clock` (from 0) is number clock + 1. Rounds without any weight made no step and are skipped. The newest steps
// are kept prepared; older ones are prepared again where a row reaches back so far.
//
// Thread-safety: none.
#ifndef DESCENT_SERVER_STORE_MISSED_STEPS_H_
#define DESCENT_SERVER_STORE_MISSED_STEPS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/store/tensor_context.h"

namespace descent {

class MissedSteps {
 public:
  explicit MissedSteps(const TensorContext* context) : context_(context) {}

  // `clock` made no step. Clocks ascend, and come before a CatchUp that reaches past them.
  void Skip(uint64_t clock);

  // Clocks below `end` that made no step, ascending.
  std::vector<uint64_t> SkippedUntil(uint64_t end) const;

  // Row i, which has made the steps of clocks < last[i], makes those of clocks < to. Rows that are ahead stay.
  void CatchUp(uint64_t to, size_t count, float* const* rows, const uint64_t* last);

  uint64_t bytes() const {
    return kept_.capacity() * sizeof(StepFactors) + scratch_.capacity() * sizeof(StepFactors) +
           skipped_.capacity() * sizeof(uint64_t);
  }

 private:
  void Extend(uint64_t to);
  void Append(uint64_t begin, uint64_t end, std::vector<StepFactors>* out) const;
  uint64_t SkippedBelow(uint64_t clock) const;
  // Steps of clocks [begin, end), prepared in `steps`.
  void Replay(const std::vector<StepFactors>& steps, uint64_t begin, uint64_t end, size_t count, float* const* rows,
              const uint64_t* last);

  const TensorContext* const context_;
  std::vector<uint64_t> skipped_;  // ascending
  std::vector<StepFactors> kept_;  // of clocks [kept_begin_, kept_end_) but the skipped
  uint64_t kept_begin_ = 0;
  uint64_t kept_end_ = 0;
  std::vector<StepFactors> scratch_;
  std::vector<uint32_t> first_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_MISSED_STEPS_H_
