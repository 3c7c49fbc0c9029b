// The client's end of the parameter service: one connection per server. Implementations: gRPC
// (grpc_client_transport.h), in one process (tests), simulated.
#ifndef DESCENT_COMMON_NET_TRANSPORT_H_
#define DESCENT_COMMON_NET_TRANSPORT_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/wire/frame.h"

namespace descent {

class ClientTransport {
 public:
  // Called on the transport's own thread, one call at a time. May call Send.
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void OnOpen(ServerId server) = 0;
    virtual void OnReply(ServerId server, Reply reply) = 0;
    // The connection is gone; the transport connects again by itself, with backoff, and calls OnOpen.
    virtual void OnClosed(ServerId server, absl::Status why) = 0;
    // At the time asked for by WakeAt.
    virtual void OnWake(absl::Time now) = 0;
  };

  virtual ~ClientTransport() = default;
  // Connects to every server. `handler` outlives the transport's Stop.
  virtual void Start(Handler* handler) = 0;
  // Thread-safe. Queues the request; while the connection is down it is dropped (the client core sends again). Payload
  // pieces must stay valid until their owners are released.
  virtual void Send(ServerId server, Request request) = 0;
  // Thread-safe. OnWake is called at or soon after `when`; a later call replaces an earlier one.
  virtual void WakeAt(absl::Time when) = 0;
  // Ends all connections and joins the thread: no upcall comes after it returns, every payload is released.
  virtual void Stop() = 0;
};

}  // namespace descent

#endif  // DESCENT_COMMON_NET_TRANSPORT_H_
