// The parameter service over gRPC: thin adapters between streams and calls and one ServerNode. One thread polls the
// completion queue and owns the node, so nothing on the data path takes a lock.
//
// A service has no node at first: calls are then refused with UNAVAILABLE "not placed yet"; a stream waits up to 2 s
// for a node before it is. Installing another node (a new generation) ends all calls of the one before with
// UNAVAILABLE; clients connect again.
//
// Bounded: of each stream one message is read at a time, and none while `max_unsent` of its replies have not left.
// While the node holds more than max_held_bytes of contributions each message is answered by a pause of held_pause
// before the next of its stream is read (never for good: the missing contribution may be behind it).
#ifndef DESCENT_SERVER_RPC_PARAMETER_SERVICE_H_
#define DESCENT_SERVER_RPC_PARAMETER_SERVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "server/node/server_node.h"

namespace grpc {
class ServerBuilder;
}

namespace descent {

struct ParameterServiceOptions {
  uint64_t max_held_bytes = kUnbounded;
  absl::Duration held_pause = absl::Milliseconds(20);
  uint32_t max_unsent = 64;                            // replies of a stream
  absl::Duration unary_patience = absl::Seconds(2);    // then PushPull answers with what there is, and `waiting`
  absl::Duration placing_patience = absl::Seconds(2);  // how long a stream waits for a node
};

class ParameterService {
 public:
  // What the node has to say to the server's other half. Called on the owning thread; must not block.
  struct Callbacks {
    std::function<void(absl::Status cause)> fail;
    std::function<void(Clock clock, std::vector<BlockSquare> squares)> scalars;
    std::function<void(Clock clock, std::vector<BlockSquare> squares)> norms;
    std::function<void(Clock clock, std::vector<BlockScalars> parts)> measured;  // the node waits for Agreed
  };

  static std::unique_ptr<ParameterService> Create(ParameterServiceOptions options, Callbacks callbacks);
  virtual ~ParameterService() = default;

  // For ServerNode::Create of every node to be installed. Lives as long as the service.
  virtual ServerNode::Output* output() = 0;

  // Thread-safe. `options` are those the node was made with.
  virtual void Install(ServerNodeOptions options, std::unique_ptr<ServerNode> node) = 0;

  // Thread-safe. The node stays, and is of this generation from now on: all calls end as where another is installed.
  virtual void Carry(Generation generation) = 0;

  // Thread-safe. The node goes, and with it all it holds; calls wait for the next one. Returns when it is gone.
  virtual void Uninstall() = 0;

  // Thread-safe. Runs `task` on the owning thread, soon, with the node that is installed then (null: none). Keep it
  // short: no message is handled meanwhile. Dropped once the service has stopped.
  virtual void Post(std::function<void(ServerNode* node)> task) = 0;

  // RpcServer's part, in this order: before the server is built; once it runs; once it has been shut down. After Stop,
  // which joins the thread, the node is gone.
  virtual void Register(grpc::ServerBuilder* builder) = 0;
  virtual void Start() = 0;
  virtual void Stop() = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_RPC_PARAMETER_SERVICE_H_
