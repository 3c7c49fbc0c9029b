#include "server/process/server_services.h"

#include "absl/time/clock.h"

namespace descent {
namespace {

constexpr size_t kMaxScalars = 64;  // clocks whose norms wait to be told; older ones are dropped, norms are for people

}  // namespace

ServerServices::ServerServices() {
  ParameterService::Callbacks callbacks;
  callbacks.fail = [this](absl::Status cause) {
    MutexLock lock(&mu_);
    if (failure_.ok()) failure_ = std::move(cause);
    changed_.SignalAll();
  };
  callbacks.scalars = [this](Clock clock, std::vector<BlockSquare> squares) {
    MutexLock lock(&mu_);
    if (scalars_.size() >= kMaxScalars) scalars_.erase(scalars_.begin());
    scalars_.push_back({clock, std::move(squares)});
    changed_.SignalAll();
  };
  callbacks.measured = [this](Clock clock, std::vector<BlockScalars> parts) {
    agent_.Measured(clock, std::move(parts));
  };
  service_ = ParameterService::Create(ParameterServiceOptions{}, std::move(callbacks));
}

void ServerServices::Wait(absl::Time deadline, bool failure_known) {
  MutexLock lock(&mu_);
  while (scalars_.empty() && (failure_known || failure_.ok()) && absl::Now() < deadline) {
    changed_.WaitUntil(&mu_, deadline);
  }
}

std::vector<ServerServices::Scalars> ServerServices::TakeScalars() {
  MutexLock lock(&mu_);
  return std::exchange(scalars_, {});
}

absl::Status ServerServices::failure() const {
  MutexLock lock(&mu_);
  return failure_;
}

void ServerServices::ForgetFailure() {
  MutexLock lock(&mu_);
  failure_ = absl::OkStatus();
}

}  // namespace descent
