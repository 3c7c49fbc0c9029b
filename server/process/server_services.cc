#include "server/process/server_services.h"

#include "absl/time/clock.h"

namespace descent {
namespace {

// Clocks whose norms wait to be told: these, and as many more as have so many numbers. Older ones are dropped: norms
// are for people.
constexpr size_t kMaxScalars = 64, kMaxSquares = size_t{1} << 20;

}  // namespace

ServerServices::ServerServices() {
  ParameterService::Callbacks callbacks;
  callbacks.fail = [this](absl::Status cause) {
    MutexLock lock(&mu_);
    if (failure_.ok()) failure_ = std::move(cause);
    changed_.SignalAll();
  };
  callbacks.scalars = [this](Clock clock, std::vector<BlockSquare> squares) {
    Keep({clock, std::move(squares), false});
  };
  callbacks.norms = [this](Clock clock, std::vector<BlockSquare> squares) { Keep({clock, std::move(squares), true}); };
  callbacks.measured = [this](Clock clock, std::vector<BlockScalars> parts) {
    agent_.Measured(clock, std::move(parts));
  };
  service_ = ParameterService::Create(ParameterServiceOptions{}, std::move(callbacks));
}

void ServerServices::Keep(Scalars scalars) {
  MutexLock lock(&mu_);
  squares_ += scalars.squares.size();
  pressing_ |= !scalars.norms_only;
  scalars_.push_back(std::move(scalars));
  while (scalars_.size() > kMaxScalars && squares_ > kMaxSquares) {
    squares_ -= scalars_.front().squares.size();
    scalars_.pop_front();
  }
  if (pressing_) changed_.SignalAll();
}

void ServerServices::Wait(absl::Time deadline, bool failure_known) {
  MutexLock lock(&mu_);
  while (!pressing_ && (failure_known || failure_.ok()) && absl::Now() < deadline) {
    changed_.WaitUntil(&mu_, deadline);
  }
}

std::deque<ServerServices::Scalars> ServerServices::TakeScalars() {
  MutexLock lock(&mu_);
  squares_ = 0;
  pressing_ = false;
  return std::exchange(scalars_, {});
}

absl::Status ServerServices::failure() const {
  MutexLock lock(&mu_);
  return failure_;
}

void ServerServices::ForgetNode() {
  MutexLock lock(&mu_);
  scalars_.clear();
  squares_ = 0;
  pressing_ = false;
  failure_ = absl::OkStatus();
}

}  // namespace descent
