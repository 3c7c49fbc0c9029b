#include "server/process/scalar_agent.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/control/messages.h"

namespace descent {

void ScalarAgent::Speak(const Identity& identity, size_t keep, ControlClient* control, ParameterService* service,
                        Warn warn) {
  MutexLock lock(&mu_);
  if (identity == identity_ || stopped_) return;
  identity_ = identity;
  control_ = control;
  service_ = service;
  warn_ = std::move(warn);
  telling_.TellAgain(keep);
  changed_.SignalAll();
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
}

void ScalarAgent::Measured(Clock clock, std::vector<BlockScalars> parts) {
  MutexLock lock(&mu_);
  telling_.Measured(clock, std::move(parts));
  changed_.SignalAll();
}

void ScalarAgent::Forget() {
  MutexLock lock(&mu_);
  telling_.Forget();
}

void ScalarAgent::Stop() {
  {
    MutexLock lock(&mu_);
    stopped_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

v1::ScalarPartials ScalarAgent::MessageOf(const ScalarTelling::Told& told) const {
  v1::ScalarPartials message;
  message.set_member(identity_.member);
  message.set_generation(identity_.generation);
  message.set_server(identity_.server);
  message.set_clock(told.clock.value);
  message.set_before_step(true);
  v1::TensorPartials* tensor = nullptr;
  for (const BlockScalars& part : told.parts) {
    if (tensor == nullptr || tensor->tensor() != part.id.tensor.value) {
      tensor = message.add_tensor();
      tensor->set_tensor(part.id.tensor.value);
    }
    tensor->add_block(part.id.index);
    tensor->add_square(part.square);
    tensor->add_parameter_square(part.parameter_square);
    tensor->mutable_product()->Add(part.products.begin(), part.products.end());
  }
  return message;
}

void ScalarAgent::Pause(absl::Duration pause) { changed_.WaitUntil(&mu_, absl::Now() + pause); }

void ScalarAgent::Run() {
  mu_.Lock();
  while (!stopped_) {
    const ScalarTelling::Told* const next = telling_.Next();
    if (next == nullptr) {
      changed_.WaitUntil(&mu_, absl::InfiniteFuture());
      continue;
    }
    const Clock clock = next->clock;
    const uint64_t epoch = telling_.epoch();
    const v1::ScalarPartials message = MessageOf(*next);
    ControlClient* const control = control_;
    mu_.Unlock();
    const absl::StatusOr<v1::ScalarTotals> totals = control->AgreeScalars(message);
    mu_.Lock();
    if (epoch != telling_.epoch() || stopped_) {
      insistence_.Reset();
      continue;
    }
    if (!totals.ok()) {
      // Of a coordinator that is being replaced, or one that has begun another generation: news of it will come. Where
      // none does, whoever waits for the step finds out here why.
      if (insistence_.Failed(absl::Now())) {
        warn_(absl::StrCat("the step of clock ", clock.value, " waits: its norms can't be told to the coordinator for ",
                           absl::FormatDuration(absl::Trunc(insistence_.failing_for(absl::Now()), absl::Seconds(1))),
                           ": ", totals.status().message()));
      }
      Pause(insistence_.after_failure());
      continue;
    }
    if (!totals->ready()) {
      Pause(insistence_.NotReady());  // the coordinator has not waited where many servers ask
      continue;
    }
    insistence_.Reset();
    telling_.Answered(clock);
    // Under the lock, so that it comes before a node that is installed after Forget.
    service_->Post([agreed = FromMessage(*totals), warn = warn_](ServerNode* node) {
      if (node == nullptr) return;
      const absl::Status taken = node->Agreed(agreed, absl::Now());
      if (!taken.ok()) warn(absl::StrCat("the step waits for ever: ", taken.message()));
    });
  }
  mu_.Unlock();
}

}  // namespace descent
