// The gRPC server of a process: binds, hosts services, stops. Beside what is added it offers grpc.health.v1.Health and,
// unless switched off, server reflection.
//
// Thread-safety: none; owned by the main thread. Services outlive it.
#ifndef DESCENT_SERVER_RPC_RPC_SERVER_H_
#define DESCENT_SERVER_RPC_RPC_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/endpoint.h"

namespace grpc {
class Service;
}

namespace descent {

class ParameterService;

struct RpcServerOptions {
  Endpoint bind;  // port 0: any free one
  bool reflection = true;
};

class RpcServer {
 public:
  // Starts serving. UNAVAILABLE: the address cannot be bound (taken, not of this host, not permitted), named with the
  // system's reason.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options, ParameterService* parameters,
                                                          const std::vector<grpc::Service*>& others);
  virtual ~RpcServer() = default;

  virtual uint16_t port() const = 0;  // the one bound
  // Also serves clients of this machine over local sockets (common/net/local_socket.h), under `address`, by which
  // others know this server. Once. Errors are LocalListener::Listen's, and leave it with TCP, which does all the same.
  virtual absl::Status ServeLocally(const std::string& address) = 0;
  // Answers the health service: SERVING or NOT_SERVING, for "" and for the parameter service.
  virtual void SetHealthy(bool healthy) = 0;
  // Takes no new call, gives those under way `grace` to end, cancels the rest, and stops the parameter service's
  // thread.
  virtual void Stop(absl::Duration grace) = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_RPC_RPC_SERVER_H_
