#include "worker/loop/statistics_exchange.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

constexpr absl::Duration kRetry = absl::Milliseconds(200), kTellAgain = absl::Seconds(10);

bool MayPass(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status); }

absl::StatusOr<v1::FeatureStatistics> Exchange(const StatisticsCalls& calls, v1::ShareStatisticsRequest request,
                                               absl::Duration patience, const StatisticsPass& pass) {
  request.set_data(pass.data);
  request.set_pass(pass.number);
  request.set_units(pass.units);
  request.set_labels(pass.labels);
  absl::Time answered = calls.now(), told = answered;
  while (true) {
    absl::StatusOr<v1::ShareStatisticsReply> reply = calls.share(request);
    const absl::Time now = calls.now();
    if (MayPass(reply.status()) && now - answered < patience) {
      if (now - told >= kTellAgain) {
        calls.tell(absl::StrCat("statistics of the training data: the coordinator has not answered for ",
                                absl::FormatDuration(absl::Trunc(now - answered, absl::Seconds(1))), " of at most ",
                                absl::FormatDuration(patience), ": ", reply.status().message()));
        told = now;
      }
      calls.pause(kRetry);
      continue;
    }
    DESCENT_RETURN_IF_ERROR(reply.status());
    answered = told = now;
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
