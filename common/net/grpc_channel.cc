#include "common/net/grpc_channel.h"

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/channel_arguments.h>

#include "common/net/local_socket.h"
#include "common/wire/frame.h"

namespace descent {
namespace {

struct Setting {
  const char* name;
  int value;
};

// A dead host is noticed within 8 s. Clients ping even when no call is under way, and servers permit that; otherwise a
// server ends the connection with GOAWAY too_many_pings.
constexpr Setting kKeepalive[] = {
    {GRPC_ARG_KEEPALIVE_TIME_MS, 5000},
    {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3000},
    {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
    {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0},
};

constexpr Setting kClient[] = {
    // A restarted peer is found again within a second (defaults: 1 s, 20 s, 120 s).
    {GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 500},
    {GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50},
    {GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000},
    // A restarted container has another address under its name (default: 30 s).
    {GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 500},
    // Lanes have connections of their own.
    {GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1},
    // A proxy in the environment is not meant for a cluster's inner traffic.
    {GRPC_ARG_ENABLE_HTTP_PROXY, 0},
};

constexpr Setting kBulk[] = {
    // gRPC would keep a copy of every message for a retry; the client core sends again by itself.
    {GRPC_ARG_ENABLE_RETRIES, 0},
};

constexpr Setting kServer[] = {
    // Two servers on one port would each get half of the clients.
    {GRPC_ARG_ALLOW_REUSEPORT, 0},
    {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000},
    {GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0},
};

grpc::ChannelArguments ArgumentsOf(Lane lane) {
  grpc::ChannelArguments arguments;
  const auto set = [&](const auto& table) {
    for (const Setting& setting : table) arguments.SetInt(setting.name, setting.value);
  };
  set(kKeepalive);
  set(kClient);
  if (lane == Lane::kBulk) set(kBulk);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  arguments.SetMaxSendMessageSize(static_cast<int>(kMaxMessageBytes));
  return arguments;
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, Lane lane) {
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), ArgumentsOf(lane));
}

std::shared_ptr<grpc::Channel> MakeLocalChannel(const std::string& address, Lane lane) {
  absl::StatusOr<FileDescriptor> fd = ConnectLocally(address);
  if (!fd.ok()) return nullptr;
  return grpc::CreateCustomInsecureChannelFromFd(address, fd->Release(), ArgumentsOf(lane));
}

void ApplyServerSettings(grpc::ServerBuilder* builder) {
  for (const Setting& setting : kKeepalive) builder->AddChannelArgument(setting.name, setting.value);
  for (const Setting& setting : kServer) builder->AddChannelArgument(setting.name, setting.value);
  builder->SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  builder->SetMaxSendMessageSize(static_cast<int>(kMaxMessageBytes));
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

}  // namespace descent
