#include "cli/grpc_health.h"

#include <grpcpp/grpcpp.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/net/grpc_channel.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace descent {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
absl::Status CheckHealth(const std::string& address, const std::string& service, absl::Duration timeout) {
  const auto stub = Health::NewStub(MakeChannel(address, Lane::kControl));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  HealthCheckRequest request;
  request.set_service(service);
  HealthCheckResponse reply;
  if (const grpc::Status status = stub->Check(&context, request, &reply); !status.ok()) {
    return absl::UnavailableError(absl::StrCat(address, ": ", status.error_message()));
  }
  if (reply.status() != HealthCheckResponse::SERVING) {
    return absl::UnavailableError(
        absl::StrCat(address, ": not serving (status ", HealthCheckResponse::ServingStatus_Name(reply.status()), ")"));
  }
  return absl::OkStatus();
}

}  // namespace descent
