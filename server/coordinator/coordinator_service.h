// The coordinator behind gRPC: the machine under a lock, and a service whose calls decode, step and answer at once, but
// for AgreeScalars, which may wait for other servers. Each call that waits holds a thread of the server, which has few
// (server/rpc/rpc_server.h): kMostWaiting wait at most, whoever asks beyond that hears at once that it is not ready and
// comes again. So servers of any number leave threads for heartbeats and status.
// Nothing blocks under the lock and nothing is written: the owner ticks, drains records and log, and saves the model.
// Thread-safe.
#ifndef DESCENT_SERVER_COORDINATOR_COORDINATOR_SERVICE_H_
#define DESCENT_SERVER_COORDINATOR_COORDINATOR_SERVICE_H_

#include <memory>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/time_source.h"
#include "server/coordinator/coordinator.h"

namespace grpc {
class Service;
}

namespace descent {

class CoordinatorHost {
 public:
  static constexpr uint32_t kMostWaiting = 16;

  // `time` outlives the host. `scalar_patience`: of a call of AgreeScalars whose step waits for other servers.
  CoordinatorHost(std::unique_ptr<Coordinator> coordinator, const TimeSource* time,
                  absl::Duration scalar_patience = absl::Seconds(1));
  ~CoordinatorHost();

  // For ServerBuilder::RegisterService. Lives as long as the host; shut the gRPC server down first.
  grpc::Service* service();

  // Calls f(Coordinator&, absl::Time now) under the lock: for the process that hosts the coordinator. f must not block.
  template <typename F>
  auto With(F&& f) {
    MutexLock lock(&mu_);
    return std::forward<F>(f)(*coordinator_, time_->Now());
  }
  // At least every 100 ms.
  void Tick() {
    With([](Coordinator& coordinator, absl::Time now) { coordinator.Tick(now); });
  }

 private:
  class Service;

  const TimeSource* const time_;
  const absl::Duration scalar_patience_;
  // Where a step waits for it: once the last server has told its part, or after a while, or where enough wait already,
  // not ready.
  absl::StatusOr<v1::ScalarTotals> AgreeScalars(const v1::ScalarPartials& partials);

  Mutex mu_;
  CondVar agreed_;
  uint32_t waiting_ ABSL_GUARDED_BY(mu_) = 0;  // calls of AgreeScalars
  const std::unique_ptr<Coordinator> coordinator_ ABSL_PT_GUARDED_BY(mu_);
  const std::unique_ptr<Service> service_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_COORDINATOR_SERVICE_H_
