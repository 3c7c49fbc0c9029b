// Norms that steps wait for, brought to the coordinator and back, as server/process/scalar_agent does on a thread.
#include <utility>

#include "common/control/messages.h"
#include "server/coordinator/coordinator.h"
#include "tests/simulation/cluster_coordinator.h"
#include "tests/simulation/cluster_seat.h"

namespace descent::simulation {

void ClusterSeat::Speak(uint64_t member) {
  if (!cluster_->job.measures) return;
  const std::pair<uint64_t, uint64_t> as(member, state_.generation());
  if (std::exchange(speaks_as_, as) == as) return;
  const bool all_answered = telling_.Next() == nullptr;
  telling_.TellAgain(cluster_->job.staleness + 2);
  if (all_answered && telling_.Next() != nullptr) {
    cluster_->truth.coverage.Add("norms told again to another coordinator");
  }
  TellNorms();
}

void ClusterSeat::Measured(Clock clock, std::vector<BlockScalars> parts) {
  telling_.Measured(clock, std::move(parts));
  After(absl::ZeroDuration(), &ClusterSeat::TellNorms);  // the node is at work
}

void ClusterSeat::TellNorms() {
  const ScalarTelling::Told* const next = telling_.Next();
  if (asking_ || next == nullptr || speaks_as_.first == 0) return;
  asking_ = true;
  v1::ScalarPartials partials;
  partials.set_member(speaks_as_.first);
  partials.set_generation(speaks_as_.second);
  partials.set_server(server_.value);
  partials.set_clock(next->clock.value);
  partials.set_before_step(true);
  for (const BlockScalars& part : next->parts) {
    v1::TensorPartials* tensor = partials.add_tensor();
    tensor->set_tensor(part.id.tensor.value);
    tensor->add_block(part.id.index);
    tensor->add_square(part.square);
    tensor->add_parameter_square(part.parameter_square);
  }
  cluster_->net.Call<v1::ScalarTotals>(
      process_, 0,
      [cluster = cluster_, partials]() -> absl::StatusOr<v1::ScalarTotals> {
        absl::StatusOr<v1::ScalarTotals> totals;
        const auto served = cluster->coordinator->Serve([&](Coordinator& c) {
          totals = c.AgreeScalars(partials, cluster->net.now());
          return true;
        });
        if (!served.ok()) return served.status();
        return totals;
      },
      [self = weak_from_this(), epoch = telling_.epoch(),
       clock = next->clock](absl::StatusOr<v1::ScalarTotals> totals) {
        if (const auto seat = self.lock()) seat->OnNorms(epoch, clock, totals);
      });
}

void ClusterSeat::OnNorms(uint64_t epoch, Clock clock, const absl::StatusOr<v1::ScalarTotals>& totals) {
  asking_ = false;
  if (epoch != telling_.epoch()) {
    insistence_.Reset();
    return TellNorms();
  }
  if (!totals.ok()) return After(insistence_.after_failure(), &ClusterSeat::TellNorms);
  if (!totals->ready()) return After(insistence_.NotReady(), &ClusterSeat::TellNorms);
  insistence_.Reset();
  telling_.Answered(clock);
  cluster_->truth.AgreedOn(clock, totals->square());
  if (node_ != nullptr) {
    const absl::Status taken = node_->Agreed(FromMessage(*totals), cluster_->net.now());
    if (!taken.ok()) cluster_->truth.Wrong(absl::StrCat(name(), ": ", taken.message()));
    AfterNode();
  }
  TellNorms();
}

}  // namespace descent::simulation
