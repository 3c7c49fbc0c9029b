// The one table of what gRPC is told about channels and servers, and how they are made. gRPC's defaults are for wide
// networks and many services: a peer's death is noticed after hours, a restarted one found after minutes.
//
// Functions are thread-safe.
#ifndef DESCENT_COMMON_NET_GRPC_CHANNEL_H_
#define DESCENT_COMMON_NET_GRPC_CHANNEL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace grpc {
class Channel;
class ServerBuilder;
class Status;
}  // namespace grpc

namespace descent {

// Channels of different lanes never share a connection: a heartbeat does not queue behind 64 MiB of gradients.
enum class Lane { kControl, kBulk };

// `address` is "host:port". Insecure credentials. Connects by itself, on first use, and again after a loss.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, Lane lane);

// The same for a server of this machine, over a local socket (local_socket.h): connected already, and of one
// connection; when that is lost, make another. Null: no server is reached so under this address, and TCP is the way.
std::shared_ptr<grpc::Channel> MakeLocalChannel(const std::string& address, Lane lane);

// The server's half of the table: permission for the clients' keepalive, message limits, no silent sharing of a port.
void ApplyServerSettings(grpc::ServerBuilder* builder);

// The codes are the same numbers on both sides.
absl::Status FromGrpc(const grpc::Status& status);
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace descent

#endif  // DESCENT_COMMON_NET_GRPC_CHANNEL_H_
