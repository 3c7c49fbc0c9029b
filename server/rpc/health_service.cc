#include "server/rpc/health_service.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace descent {
namespace {

// How soon a watcher that went away gives its thread back.
constexpr absl::Duration kLook = absl::Seconds(1);

}  // namespace

void HealthService::Set(const std::string& service, bool serving) {
  MutexLock lock(&mu_);
  serving_[service] = serving;
  changed_.SignalAll();
}

void HealthService::Close() {
  MutexLock lock(&mu_);
  closed_ = true;
  changed_.SignalAll();
}

HealthService::Status::ServingStatus HealthService::Find(const std::string& service) const {
  const auto it = serving_.find(service);
  if (it == serving_.end()) return Status::SERVICE_UNKNOWN;
  return it->second ? Status::SERVING : Status::NOT_SERVING;
}

grpc::Status HealthService::Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest* request,
                                  Status* reply) {
  MutexLock lock(&mu_);
  const Status::ServingStatus status = Find(request->service());
  if (status == Status::SERVICE_UNKNOWN) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, absl::StrCat("no service '", request->service(), "' here"));
  }
  reply->set_status(status);
  return grpc::Status::OK;
}

grpc::Status HealthService::Watch(grpc::ServerContext* context, const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::ServerWriter<Status>* writer) {
  {
    MutexLock lock(&mu_);
    if (watchers_ == kMaxWatchers) {
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                          absl::StrCat("there are ", kMaxWatchers, " watchers already; use Check"));
    }
    ++watchers_;
  }
  std::optional<Status::ServingStatus> told;
  bool closed = false;
  while (!closed && !context->IsCancelled()) {
    Status reply;
    {
      MutexLock lock(&mu_);
      if (told == Find(request->service()) && !closed_) changed_.WaitUntil(&mu_, absl::Now() + kLook);
      reply.set_status(Find(request->service()));
      closed = closed_;
    }
    if (told == reply.status()) continue;
    told = reply.status();
    if (!writer->Write(reply)) break;
  }
  MutexLock lock(&mu_);
  --watchers_;
  return closed ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is stopping") : grpc::Status::OK;
}

}  // namespace descent
