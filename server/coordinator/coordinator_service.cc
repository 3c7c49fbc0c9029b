#include "server/coordinator/coordinator_service.h"

#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/time/clock.h"
#include "common/net/grpc_channel.h"
#include "descent/v1/coordinator.grpc.pb.h"

namespace descent {

// Synchronous: beside the parameter service's queue gRPC gives such calls threads that wait for calls but poll no
// socket, so they take no events away from the data path's thread. The callback API's threads do.
class CoordinatorHost::Service final : public v1::CoordinatorService::Service {
 public:
  explicit Service(CoordinatorHost* host) : host_(host) {}

  grpc::Status GetJob(grpc::ServerContext*, const v1::GetJobRequest*, v1::GetJobReply* reply) override {
    *reply = host_->With([](Coordinator& c, absl::Time) { return c.GetJob(); });
    return grpc::Status::OK;
  }
  grpc::Status RegisterServer(grpc::ServerContext*, const v1::RegisterServerRequest* request,
                              v1::RegisterReply* reply) override {
    *reply = host_->With([&](Coordinator& c, absl::Time now) { return c.RegisterServer(*request, now); });
    return grpc::Status::OK;
  }
  grpc::Status RegisterWorker(grpc::ServerContext*, const v1::RegisterWorkerRequest* request,
                              v1::RegisterReply* reply) override {
    *reply = host_->With([&](Coordinator& c, absl::Time now) { return c.RegisterWorker(*request, now); });
    return grpc::Status::OK;
  }
  grpc::Status ShareStatistics(grpc::ServerContext*, const v1::ShareStatisticsRequest* request,
                               v1::ShareStatisticsReply* reply) override {
    *reply = host_->With([&](Coordinator& c, absl::Time now) { return c.ShareStatistics(*request, now); });
    return grpc::Status::OK;
  }
  grpc::Status Heartbeat(grpc::ServerContext*, const v1::HeartbeatRequest* request,
                         v1::HeartbeatReply* reply) override {
    *reply = host_->With([&](Coordinator& c, absl::Time now) { return c.Heartbeat(*request, now); });
    return grpc::Status::OK;
  }
  grpc::Status Leave(grpc::ServerContext*, const v1::LeaveRequest* request, v1::LeaveReply*) override {
    host_->With([&](Coordinator& c, absl::Time now) { c.Leave(*request, now); });
    return grpc::Status::OK;
  }
  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*, v1::StatusReply* reply) override {
    *reply = host_->With([](Coordinator& c, absl::Time now) { return c.Status(now); });
    return grpc::Status::OK;
  }
  grpc::Status Stop(grpc::ServerContext*, const v1::StopRequest* request, v1::StopReply*) override {
    host_->With([&](Coordinator& c, absl::Time now) { c.Stop(*request, now); });
    return grpc::Status::OK;
  }
  grpc::Status ReportFailure(grpc::ServerContext*, const v1::FailureReport* request, v1::FailureReportReply*) override {
    host_->With([&](Coordinator& c, absl::Time now) { c.ReportFailure(*request, now); });
    return grpc::Status::OK;
  }
  grpc::Status AgreeScalars(grpc::ServerContext*, const v1::ScalarPartials* request, v1::ScalarTotals* reply) override {
    absl::StatusOr<v1::ScalarTotals> totals = host_->AgreeScalars(*request);
    if (totals.ok()) *reply = *std::move(totals);
    return ToGrpc(totals.status());
  }

 private:
  CoordinatorHost* const host_;
};

CoordinatorHost::CoordinatorHost(std::unique_ptr<Coordinator> coordinator, const TimeSource* time,
                                 absl::Duration scalar_patience)
    : time_(time),
      scalar_patience_(scalar_patience),
      coordinator_(std::move(coordinator)),
      service_(std::make_unique<Service>(this)) {}

CoordinatorHost::~CoordinatorHost() = default;

absl::StatusOr<v1::ScalarTotals> CoordinatorHost::AgreeScalars(const v1::ScalarPartials& partials) {
  MutexLock lock(&mu_);
  for (const absl::Time deadline = absl::Now() + scalar_patience_; true;) {
    absl::StatusOr<v1::ScalarTotals> totals = coordinator_->AgreeScalars(partials, time_->Now());
    if (totals.ok() && totals->ready()) agreed_.SignalAll();
    if (!totals.ok() || totals->ready() || !partials.before_step() || absl::Now() >= deadline) return totals;
    if (waiting_ >= kMostWaiting) return totals;
    ++waiting_;
    agreed_.WaitUntil(&mu_, deadline);
    --waiting_;
  }
}

grpc::Service* CoordinatorHost::service() { return service_.get(); }

}  // namespace descent
