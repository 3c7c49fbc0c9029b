// The client's transport over gRPC: one channel and one bidirectional stream (ParameterService.Exchange) per server,
// and one thread for all of them. Messages go out without a copy: gRPC's slices hold the payload's owners.
//
// A server that offers it is reached over a local socket (local_socket.h), others over TCP; which it is to be is found
// anew for each connection. Over a local socket large payloads go through memory that both ends share
// (shared_slots.h), where the server can see it. A lost or refused connection is tried again after 50 ms, doubling to 1
// s until the server answers something. OnClosed is called for every attempt that failed, also where no OnOpen came
// before it: its status is what there is to tell about a server that cannot be reached.
#ifndef DESCENT_COMMON_NET_GRPC_CLIENT_TRANSPORT_H_
#define DESCENT_COMMON_NET_GRPC_CLIENT_TRANSPORT_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "common/net/transport.h"

namespace descent {

struct GrpcClientOptions {
  std::vector<std::string> servers;  // "host:port" of server i
  // Requests queued for one server; those beyond are dropped, as on a lost connection. Payloads are shared, not copied,
  // so a queued request is small.
  size_t max_queued = 65536;
};

std::unique_ptr<ClientTransport> MakeGrpcClientTransport(GrpcClientOptions options);

}  // namespace descent

#endif  // DESCENT_COMMON_NET_GRPC_CLIENT_TRANSPORT_H_
