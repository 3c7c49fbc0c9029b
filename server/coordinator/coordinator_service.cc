#include "server/coordinator/coordinator_service.h"

#include <grpcpp/grpcpp.h>

#include <string>

#include "descent/v1/coordinator.grpc.pb.h"

namespace descent {

class CoordinatorHost::Service final : public v1::CoordinatorService::CallbackService {
 public:
  explicit Service(CoordinatorHost* host) : host_(host) {}

  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest*,
                                   v1::GetJobReply* reply) override {
    *reply = host_->With([](Coordinator& c, absl::Time) { return c.GetJob(); });
    return Finish(context);
  }
  grpc::ServerUnaryReactor* RegisterServer(grpc::CallbackServerContext* context,
                                           const v1::RegisterServerRequest* request,
                                           v1::RegisterReply* reply) override {
    *reply = host_->With([&](Coordinator& c, absl::Time now) { return c.RegisterServer(*request, now); });
    return Finish(context);
  }
  grpc::ServerUnaryReactor* RegisterWorker(grpc::CallbackServerContext* context,
                                           const v1::RegisterWorkerRequest* request,
                                           v1::RegisterReply* reply) override {
    *reply = host_->With([&](Coordinator& c, absl::Time now) { return c.RegisterWorker(*request, now); });
    return Finish(context);
  }
  grpc::ServerUnaryReactor* Heartbeat(grpc::CallbackServerContext* context, const v1::HeartbeatRequest* request,
                                      v1::HeartbeatReply* reply) override {
    *reply = host_->With([&](Coordinator& c, absl::Time now) { return c.Heartbeat(*request, now); });
    return Finish(context);
  }
  grpc::ServerUnaryReactor* Leave(grpc::CallbackServerContext* context, const v1::LeaveRequest* request,
                                  v1::LeaveReply*) override {
    host_->With([&](Coordinator& c, absl::Time now) { c.Leave(*request, now); });
    return Finish(context);
  }
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context, const v1::StatusRequest*,
                                   v1::StatusReply* reply) override {
    *reply = host_->With([](Coordinator& c, absl::Time now) { return c.Status(now); });
    return Finish(context);
  }
  grpc::ServerUnaryReactor* Stop(grpc::CallbackServerContext* context, const v1::StopRequest* request,
                                 v1::StopReply*) override {
    host_->With([&](Coordinator& c, absl::Time now) { c.Stop(*request, now); });
    return Finish(context);
  }
  grpc::ServerUnaryReactor* ReportFailure(grpc::CallbackServerContext* context, const v1::FailureReport* request,
                                          v1::FailureReportReply*) override {
    host_->With([&](Coordinator& c, absl::Time now) { c.ReportFailure(*request, now); });
    return Finish(context);
  }
  grpc::ServerUnaryReactor* AgreeScalars(grpc::CallbackServerContext* context, const v1::ScalarPartials* request,
                                         v1::ScalarTotals* reply) override {
    absl::StatusOr<v1::ScalarTotals> totals =
        host_->With([&](Coordinator& c, absl::Time now) { return c.AgreeScalars(*request, now); });
    if (totals.ok()) *reply = *std::move(totals);
    return Finish(context, totals.status());
  }

 private:
  static grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context,
                                          const absl::Status& status = absl::OkStatus()) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()), std::string(status.message())));
    return reactor;
  }

  CoordinatorHost* const host_;
};

CoordinatorHost::CoordinatorHost(std::unique_ptr<Coordinator> coordinator, const TimeSource* time)
    : time_(time), coordinator_(std::move(coordinator)), service_(std::make_unique<Service>(this)) {}

CoordinatorHost::~CoordinatorHost() = default;

grpc::Service* CoordinatorHost::service() { return service_.get(); }

}  // namespace descent
