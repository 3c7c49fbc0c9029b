// By what the schedule's rate is multiplied, as decided on the way (reduce_on_plateau). A value; pure.
#ifndef DESCENT_COMMON_JOB_RATE_CHANGES_H_
#define DESCENT_COMMON_JOB_RATE_CHANGES_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace descent {

class RateChanges {
 public:
  using List = std::vector<std::pair<uint64_t, double>>;  // (clock from which on, factor), clocks ascending

  void Set(List list) { list_ = std::move(list); }
  uint32_t size() const { return static_cast<uint32_t>(list_.size()); }
  // The schedule's rate where nothing was changed, bit for bit.
  float Apply(float rate, uint64_t clock) const;

 private:
  List list_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_JOB_RATE_CHANGES_H_
