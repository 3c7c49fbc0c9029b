#include "cli/grpc_health.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/net/grpc_channel.h"
#include "google/protobuf/io/coded_stream.h"

namespace descent {
namespace {

// HealthCheckRequest { string service = 1; }
grpc::ByteBuffer Request(const std::string& service) {
  std::string bytes;
  if (!service.empty()) {
    bytes.push_back(0x0a);
    for (size_t length = service.size(); true; length >>= 7) {
      bytes.push_back(static_cast<char>(length < 128 ? length : (length & 127) | 128));
      if (length < 128) break;
    }
    bytes += service;
  }
  grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// HealthCheckResponse { enum status = 1 } with 1 for SERVING.
uint32_t ServingStatus(const grpc::ByteBuffer& reply) {
  grpc::Slice slice;
  if (!reply.DumpToSingleSlice(&slice).ok()) return 0;
  google::protobuf::io::CodedInputStream in(slice.begin(), static_cast<int>(slice.size()));
  uint32_t tag, status = 0;
  while ((tag = in.ReadTag()) == 8) {
    if (!in.ReadVarint32(&status)) return 0;
  }
  return status;
}

}  // namespace

absl::Status CheckHealth(const std::string& address, const std::string& service, absl::Duration timeout) {
  grpc::GenericStub stub(MakeChannel(address, Lane::kControl));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  context.set_wait_for_ready(false);
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", Request(service), &queue);
  call->StartCall();
  grpc::ByteBuffer reply;
  grpc::Status status;
  call->Finish(&reply, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  if (!status.ok()) return absl::UnavailableError(absl::StrCat(address, ": ", status.error_message()));
  if (const uint32_t serving = ServingStatus(reply); serving != 1) {
    return absl::UnavailableError(absl::StrCat(address, ": not serving (status ", serving, ")"));
  }
  return absl::OkStatus();
}

}  // namespace descent
