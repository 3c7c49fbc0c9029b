#include "server/process/scalar_agent.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "common/control/messages.h"

namespace descent {
namespace {
constexpr absl::Duration kRetry = absl::Milliseconds(100);
}  // namespace

void ScalarAgent::Speak(const Identity& identity, size_t keep, ControlClient* control, ParameterService* service) {
  MutexLock lock(&mu_);
  if (identity == identity_ || stopped_) return;
  identity_ = identity;
  keep_ = keep;
  control_ = control;
  service_ = service;
  ++epoch_;
  for (Told& told : told_) told.answered = false;
  changed_.SignalAll();
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
}

void ScalarAgent::Measured(Clock clock, std::vector<BlockScalars> parts) {
  MutexLock lock(&mu_);
  told_.push_back({clock, std::move(parts), false});
  while (told_.size() > keep_) told_.pop_front();
  changed_.SignalAll();
}

void ScalarAgent::Forget() {
  MutexLock lock(&mu_);
  ++epoch_;
  told_.clear();
}

void ScalarAgent::Stop() {
  {
    MutexLock lock(&mu_);
    stopped_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

v1::ScalarPartials ScalarAgent::MessageOf(const Told& told) const {
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

void ScalarAgent::Run() {
  mu_.Lock();
  while (!stopped_) {
    const auto next = std::find_if(told_.begin(), told_.end(), [](const Told& told) { return !told.answered; });
    if (next == told_.end()) {
      changed_.WaitUntil(&mu_, absl::InfiniteFuture());
      continue;
    }
    const Clock clock = next->clock;
    const uint64_t epoch = epoch_;
    const v1::ScalarPartials message = MessageOf(*next);
    ControlClient* const control = control_;
    mu_.Unlock();
    const absl::StatusOr<v1::ScalarTotals> totals = control->AgreeScalars(message);
    mu_.Lock();
    if (epoch != epoch_ || stopped_) continue;
    if (!totals.ok()) {
      // Of a coordinator that is being replaced, or one that has begun another generation: news of it will come.
      changed_.WaitUntil(&mu_, absl::Now() + kRetry);
      continue;
    }
    if (!totals->ready()) continue;
    for (Told& told : told_) told.answered |= told.clock == clock;
    // Under the lock, so that it comes before a node that is installed after Forget.
    service_->Post([agreed = FromMessage(*totals)](ServerNode* node) {
      if (node != nullptr) node->Agreed(agreed, absl::Now()).IgnoreError();
    });
  }
  mu_.Unlock();
}

}  // namespace descent
