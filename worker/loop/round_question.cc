#include "worker/loop/round_question.h"

#include "absl/time/time.h"

namespace descent {
namespace {

std::optional<absl::Status> AnswerTo(ParameterClient* client, Ticket ticket) {
  absl::Status status = client->Wait(ticket, absl::InfinitePast());
  if (absl::IsDeadlineExceeded(status)) return std::nullopt;
  return status;
}

}  // namespace

void RoundQuestion::Ask(ParameterClient* client, Clock clock, Rank rank) {
  if (ticket_.has_value() && clock_ == clock) return;
  if (ticket_.has_value()) old_.push_back(*ticket_);
  std::erase_if(old_, [&](Ticket ticket) { return AnswerTo(client, ticket).has_value(); });
  PullSpec pull;
  pull.rank = rank;
  pull.clock = Clock(clock.value + 1);
  ticket_ = client->Exchange(std::nullopt, pull);
  clock_ = clock;
  closed_ = false;
}

bool RoundQuestion::Closed(ParameterClient* client) {
  if (!ticket_.has_value()) return closed_;
  const std::optional<absl::Status> answer = AnswerTo(client, *ticket_);
  if (!answer.has_value()) return false;
  ticket_.reset();
  closed_ = answer->ok();  // what is wrong shows where it matters
  return closed_;
}

}  // namespace descent
