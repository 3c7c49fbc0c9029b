// A worker's part in the statistics of the training data: it computes the units that the coordinator gives it and waits
// for what all come to. Before registration, so it waits by asking again.
#ifndef DESCENT_WORKER_LOOP_STATISTICS_EXCHANGE_H_
#define DESCENT_WORKER_LOOP_STATISTICS_EXCHANGE_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "descent/v1/coordinator.pb.h"
#include "worker/features/fit_features.h"

namespace descent {

struct StatisticsCalls {
  std::function<absl::StatusOr<v1::ShareStatisticsReply>(const v1::ShareStatisticsRequest&)> share;
  std::function<void(absl::Duration)> pause;
  std::function<absl::Time()> now;
  std::function<void(const std::string&)> tell;  // that the coordinator has not answered, every 10 s
};

// `self`: protocol, job, host and pid. UNAVAILABLE: the coordinator has not answered for `patience` (it may be started
// again meanwhile). FAILED_PRECONDITION: refused.
StatisticsExchange StatisticsWithOthers(StatisticsCalls calls, v1::ShareStatisticsRequest self,
                                        absl::Duration patience);

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_STATISTICS_EXCHANGE_H_
