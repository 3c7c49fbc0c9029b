#include "common/control/control_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "common/net/grpc_channel.h"
#include "common/wire/frame.h"
#include "descent/v1/coordinator.grpc.pb.h"

namespace descent {
namespace {

// gRPC wraps the system's words in its own; people want the system's.
std::string Reason(const grpc::Status& status) {
  std::string text = status.error_message();
  if (const size_t colon = text.rfind(": "); colon != std::string::npos && colon + 2 < text.size()) {
    text = text.substr(colon + 2);
  }
  return text.empty() ? absl::StrCat("gRPC status ", static_cast<int>(status.error_code())) : text;
}

uint64_t DrawNonce() {
  std::random_device device;
  return ((uint64_t{device()} << 32) | device()) | 1;
}

class ControlClientImpl final : public ControlClient {
 public:
  explicit ControlClientImpl(ControlClientOptions options)
      : options_(std::move(options)),
        channel_(MakeChannel(options_.address, Lane::kControl)),
        stub_(v1::CoordinatorService::NewStub(channel_)),
        nonce_(DrawNonce()) {}

  absl::StatusOr<v1::GetJobReply> WaitForJob(absl::Duration timeout) override;

  absl::StatusOr<v1::GetJobReply> GetJob() override {
    v1::GetJobRequest request;
    request.set_protocol(kProtocolVersion);
    return Call<v1::GetJobReply>(&v1::CoordinatorService::Stub::GetJob, request, false);
  }
  absl::StatusOr<v1::RegisterReply> RegisterServer(v1::RegisterServerRequest request) override {
    if (request.nonce() == 0) request.set_nonce(Nonce());
    return Admitted(Call<v1::RegisterReply>(&v1::CoordinatorService::Stub::RegisterServer, request, true));
  }
  absl::StatusOr<v1::RegisterReply> RegisterWorker(v1::RegisterWorkerRequest request) override {
    if (request.nonce() == 0) request.set_nonce(Nonce());
    return Admitted(Call<v1::RegisterReply>(&v1::CoordinatorService::Stub::RegisterWorker, request, true));
  }
  absl::StatusOr<v1::ShareStatisticsReply> ShareStatistics(const v1::ShareStatisticsRequest& request) override {
    auto reply = Call<v1::ShareStatisticsReply>(&v1::CoordinatorService::Stub::ShareStatistics, request, true);
    if (reply.ok() && !reply->mismatch().empty()) return absl::FailedPreconditionError(reply->mismatch());
    return reply;
  }
  void ForgetRegistration() override {
    MutexLock lock(&mu_);
    nonce_ = DrawNonce();
  }
  absl::StatusOr<v1::HeartbeatReply> Heartbeat(const v1::HeartbeatRequest& request) override {
    v1::HeartbeatRequest signed_request = request;
    signed_request.set_nonce(Nonce());
    return Call<v1::HeartbeatReply>(&v1::CoordinatorService::Stub::Heartbeat, signed_request, false);
  }
  absl::Status Leave(uint64_t member, const std::string& why) override {
    v1::LeaveRequest request;
    request.set_member(member);
    request.set_why(why);
    request.set_nonce(Nonce());
    return Call<v1::LeaveReply>(&v1::CoordinatorService::Stub::Leave, request, false).status();
  }
  absl::StatusOr<v1::StatusReply> Status() override {
    return Call<v1::StatusReply>(&v1::CoordinatorService::Stub::Status, v1::StatusRequest(), false);
  }
  absl::Status Stop(int signal, bool at_once) override {
    v1::StopRequest request;
    request.set_signal(signal);
    request.set_at_once(at_once);
    return Call<v1::StopReply>(&v1::CoordinatorService::Stub::Stop, request, false).status();
  }
  absl::Status ReportFailure(const v1::FailureReport& report) override {
    v1::FailureReport signed_report = report;
    if (report.own()) signed_report.set_nonce(Nonce());
    return Call<v1::FailureReportReply>(&v1::CoordinatorService::Stub::ReportFailure, signed_report, false).status();
  }
  absl::StatusOr<v1::ScalarTotals> AgreeScalars(const v1::ScalarPartials& partials) override {
    return Call<v1::ScalarTotals>(&v1::CoordinatorService::Stub::AgreeScalars, partials, false);
  }

  void Cancel() override {
    MutexLock lock(&mu_);
    cancelled_ = true;
    for (grpc::ClientContext* context : calls_) context->TryCancel();
    cancel_.SignalAll();
  }

 private:
  template <typename Reply, typename Request>
  using Method = grpc::Status (v1::CoordinatorService::Stub::*)(grpc::ClientContext*, const Request&, Reply*);

  // One attempt.
  template <typename Reply, typename Request>
  grpc::Status Once(Method<Reply, Request> method, const Request& request, absl::Time deadline, Reply* reply) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    {
      MutexLock lock(&mu_);
      if (cancelled_) return grpc::Status(grpc::StatusCode::CANCELLED, "cancelled");
    }
    if (!Connect(std::min(deadline - absl::Milliseconds(100), absl::Now() + absl::Seconds(1)))) {
      return grpc::Status(grpc::StatusCode::CANCELLED, "cancelled");
    }
    {
      MutexLock lock(&mu_);
      if (cancelled_) return grpc::Status(grpc::StatusCode::CANCELLED, "cancelled");
      calls_.insert(&context);
    }
    const grpc::Status status = (stub_.get()->*method)(&context, request, reply);
    MutexLock lock(&mu_);
    calls_.erase(&context);
    return status;
  }

  // gRPC makes no headway with a connection while nobody polls, and a call that may fail at once does not poll: between
  // calls, every attempt to connect again would time out. So a call waits for the connection first, for a while; then
  // it is sent either way, and brings back why there is none. False: cancelled.
  bool Connect(absl::Time until) {
    for (absl::Time now = absl::Now(); now < until && channel_->GetState(true) != GRPC_CHANNEL_READY;
         now = absl::Now()) {
      channel_->WaitForConnected(absl::ToChronoTime(std::min(until, now + absl::Milliseconds(50))));
      MutexLock lock(&mu_);
      if (cancelled_) return false;
    }
    return true;
  }

  template <typename Reply, typename Request>
  absl::StatusOr<Reply> Call(Method<Reply, Request> method, const Request& request, bool again) {
    const absl::Time deadline = absl::Now() + options_.call_timeout;
    Reply reply;
    grpc::Status status = Once(method, request, deadline, &reply);
    while (again && status.error_code() == grpc::StatusCode::UNAVAILABLE && Pause(absl::Milliseconds(100), deadline)) {
      status = Once(method, request, deadline, &reply);
    }
    if (status.ok()) return reply;
    return Failure(status);
  }

  absl::Status Failure(const grpc::Status& status) const {
    const auto code = static_cast<absl::StatusCode>(status.error_code());
    if (code == absl::StatusCode::kCancelled) return absl::CancelledError("cancelled");
    if (code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kDeadlineExceeded) {
      return absl::Status(code, absl::StrCat("the coordinator at ", options_.address, ": ", Reason(status)));
    }
    return absl::Status(code, status.error_message());
  }

  static absl::StatusOr<v1::RegisterReply> Admitted(absl::StatusOr<v1::RegisterReply> reply) {
    if (reply.ok() && reply->mismatch_size() > 0) {
      const std::string why = absl::StrJoin(reply->mismatch(), "\n");
      return reply->later() ? absl::UnavailableError(why) : absl::FailedPreconditionError(why);
    }
    return reply;
  }

  // False: cancelled, or the deadline would be over.
  bool Pause(absl::Duration pause, absl::Time deadline) {
    const absl::Time until = absl::Now() + pause;
    if (until >= deadline) return false;
    MutexLock lock(&mu_);
    while (!cancelled_ && absl::Now() < until) cancel_.WaitUntil(&mu_, until);
    return !cancelled_;
  }

  uint64_t Nonce() {
    MutexLock lock(&mu_);
    return nonce_;
  }

  const ControlClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::CoordinatorService::Stub> stub_;
  Mutex mu_;
  CondVar cancel_;
  uint64_t nonce_ ABSL_GUARDED_BY(mu_);
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mu_);
};

absl::StatusOr<v1::GetJobReply> ControlClientImpl::WaitForJob(absl::Duration timeout) {
  const absl::Time start = absl::Now(), end = start + timeout;
  absl::Duration told = absl::ZeroDuration(), interval = absl::Seconds(1);
  std::string reason = "no answer";
  v1::GetJobRequest request;
  request.set_protocol(kProtocolVersion);
  for (;;) {
    v1::GetJobReply reply;
    const grpc::Status status = Once<v1::GetJobReply>(&v1::CoordinatorService::Stub::GetJob, request,
                                                      std::min(end, absl::Now() + options_.call_timeout), &reply);
    if (status.ok()) {
      if (reply.protocol() != kProtocolVersion) {
        return absl::FailedPreconditionError(absl::StrCat("the coordinator at ", options_.address,
                                                          " speaks protocol version ", reply.protocol(), "; expected ",
                                                          kProtocolVersion));
      }
      return reply;
    }
    const bool passes = status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                        status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
    if (!passes) return Failure(status);
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) reason = Reason(status);
    const absl::Duration waited = absl::Now() - start;
    if (options_.progress && waited - told >= interval) {
      options_.progress(absl::StrCat("waiting ", absl::ToInt64Seconds(waited), " s for the coordinator at ",
                                     options_.address, ": ", reason));
      told = waited;
      interval = std::min(absl::Seconds(10), interval * 2);
    }
    if (!Pause(absl::Milliseconds(20), end)) {
      MutexLock lock(&mu_);
      if (cancelled_) return absl::CancelledError("cancelled");
      return absl::DeadlineExceededError(absl::StrCat("the coordinator at ", options_.address,
                                                      " did not answer within ", absl::FormatDuration(timeout), ": ",
                                                      reason));
    }
  }
}

}  // namespace

std::unique_ptr<ControlClient> ControlClient::Create(ControlClientOptions options) {
  return std::make_unique<ControlClientImpl>(std::move(options));
}

}  // namespace descent
