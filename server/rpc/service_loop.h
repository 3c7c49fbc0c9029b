// The inside of ParameterService: the owning thread's view, shared by the kinds of calls. Includes gRPC: for .cc files
// of this folder only. Everything here runs on the owning thread.
#ifndef DESCENT_SERVER_RPC_SERVICE_LOOP_H_
#define DESCENT_SERVER_RPC_SERVICE_LOOP_H_

#include <grpcpp/completion_queue.h>

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/wire/frame.h"
#include "descent/v1/parameter.grpc.pb.h"
#include "server/node/server_node.h"
#include "server/rpc/parameter_service.h"

namespace descent {

// All three methods take and give raw bytes.
using RawParameterService = v1::ParameterService::WithRawMethod_Exchange<v1::ParameterService::WithRawMethod_PushPull<
    v1::ParameterService::WithRawMethod_Export<v1::ParameterService::Service>>>;

// Something with events on the completion queue. Deletes itself when nothing of it is under way any more.
class Call {
 public:
  // What the queue hands back.
  struct Tag {
    Call* call;
    int kind;
  };
  virtual ~Call() = default;
  virtual void OnEvent(int kind, bool ok) = 0;
  virtual void OnTimer(absl::Time now) {}
  // Another node has been installed, or a first one. Calls of the one before end with UNAVAILABLE.
  virtual void OnNode() {}
};

// What the node knows as a connection.
class Connection {
 public:
  virtual ~Connection() = default;
  // From within a call of the node: must not call it.
  virtual void Send(Reply reply) = 0;
};

class ServiceLoop {
 public:
  virtual ~ServiceLoop() = default;

  virtual const ParameterServiceOptions& options() const = 0;
  virtual RawParameterService* service() = 0;
  virtual grpc::ServerCompletionQueue* queue() = 0;

  virtual ServerNode* node() = 0;                             // null: none yet
  virtual const ServerNodeOptions& node_options() const = 0;  // of that node

  // From a call's making to its end; told about nodes meanwhile.
  virtual void Enter(Call* call) = 0;
  virtual void Leave(Call* call) = 0;
  // OnTimer at `when`; a later call replaces an earlier one; InfiniteFuture: never.
  virtual void SetTimer(Call* call, absl::Time when) = 0;
  // Runs once the node's call in progress has returned.
  virtual void Defer(std::function<void()> task) = 0;

  // The node's upcalls for a connection. Need a node; Close, Request and Sent of a former node's connection do nothing.
  virtual ConnectionId Open(Connection* connection, bool unary) = 0;
  virtual void Close(ConnectionId id) = 0;
  virtual void Handle(ConnectionId id, Request request) = 0;
  virtual void Sent(ConnectionId id) = 0;
};

// Each waits for one call, and makes the next of its kind when that has come.
void AcceptExchange(ServiceLoop* loop);
void AcceptPushPull(ServiceLoop* loop);
void AcceptExport(ServiceLoop* loop);

inline absl::Status NotPlaced() {
  return absl::UnavailableError("not placed yet: this server does not hold its blocks of the model; try again");
}
inline absl::Status NewGeneration() {
  return absl::UnavailableError("a new generation has begun on this server; connect again");
}

}  // namespace descent

#endif  // DESCENT_SERVER_RPC_SERVICE_LOOP_H_
