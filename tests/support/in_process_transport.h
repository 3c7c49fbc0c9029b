// Servers and clients in one process: each ServerNode on a thread of its own, each client's transport on another, with
// queues between them that can lose, repeat and delay messages by a seeded choice. Within a connection the order is
// kept, as a stream does; between connections it is anything.
//
// Payloads are copied on the way, and cut into pieces at odd places, as a network would: nobody sees the other's
// memory.
//
// Thread-safety: InProcessCluster is thread-safe. Transports must be stopped before the cluster is destroyed.
#ifndef DESCENT_TESTS_SUPPORT_IN_PROCESS_TRANSPORT_H_
#define DESCENT_TESTS_SUPPORT_IN_PROCESS_TRANSPORT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/net/transport.h"
#include "server/node/server_node.h"

namespace descent::testing {

struct NetworkFaults {
  uint64_t seed = 1;
  double drop = 0;       // of requests and of replies
  double duplicate = 0;  // likewise
  absl::Duration max_delay = absl::ZeroDuration();
};

class InProcessCluster {
 public:
  // One node per entry, in the order of their ids.
  static absl::StatusOr<std::unique_ptr<InProcessCluster>> Create(std::vector<ServerNodeOptions> nodes,
                                                                  NetworkFaults faults = {});
  virtual ~InProcessCluster() = default;

  // A transport for one client, with a connection to every server.
  virtual std::unique_ptr<ClientTransport> NewTransport() = 0;
  // Breaks every connection to the server; what is under way is lost. Clients connect again.
  virtual void BreakConnections(ServerId server) = 0;
  // From now on the server does not read requests (true), or reads again.
  virtual void Pause(ServerId server, bool paused) = 0;
  // Runs `f` on the node's thread and waits for it.
  virtual void OnNode(ServerId server, const std::function<void(ServerNode&)>& f) = 0;
  // What a node reported by Fail, first.
  virtual absl::Status failure() const = 0;
  virtual uint64_t dropped() const = 0;
  virtual uint64_t duplicated() const = 0;
};

}  // namespace descent::testing

#endif  // DESCENT_TESTS_SUPPORT_IN_PROCESS_TRANSPORT_H_
