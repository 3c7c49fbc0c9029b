#include "worker/loop/statistics_exchange.h"

#include <utility>

#include "common/base/status_macros.h"

namespace descent {
namespace {

constexpr absl::Duration kRetry = absl::Milliseconds(200);

bool MayPass(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status); }

absl::StatusOr<v1::FeatureStatistics> Exchange(const StatisticsCalls& calls, v1::ShareStatisticsRequest request,
                                               absl::Duration patience, const StatisticsPass& pass) {
  request.set_data(pass.data);
  request.set_pass(pass.number);
  request.set_units(pass.units);
  request.set_labels(pass.labels);
  absl::Duration unanswered = absl::ZeroDuration();
  while (true) {
    absl::StatusOr<v1::ShareStatisticsReply> reply = calls.share(request);
    if (MayPass(reply.status()) && unanswered < patience) {
      calls.pause(kRetry);
      unanswered += kRetry;
      continue;
    }
    DESCENT_RETURN_IF_ERROR(reply.status());
    unanswered = absl::ZeroDuration();
    request.clear_unit();
    request.clear_statistics();
    if (reply->has_total()) return std::move(*reply->mutable_total());
    if (!reply->has_unit()) {
      calls.pause(absl::Milliseconds(reply->next_ms()));
      continue;
    }
    if (reply->unit() >= pass.units) return absl::InternalError("the coordinator asks for a unit that does not exist");
    DESCENT_ASSIGN_OR_RETURN(*request.mutable_statistics(), pass.compute(reply->unit()));
    request.set_unit(reply->unit());
  }
}

}  // namespace

StatisticsExchange StatisticsWithOthers(StatisticsCalls calls, v1::ShareStatisticsRequest self,
                                        absl::Duration patience) {
  return [calls = std::move(calls), self = std::move(self), patience](const StatisticsPass& pass) {
    return Exchange(calls, self, patience, pass);
  };
}

}  // namespace descent
