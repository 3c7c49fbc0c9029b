// All of a parameter client but its lock and its transport: core and plans together, from specs and replies to requests
// and places to write to. ParameterClient adds threads to it, the simulator drives it as it is.
//
// Thread-safety: none.
#ifndef DESCENT_WORKER_CLIENT_CLIENT_SESSION_H_
#define DESCENT_WORKER_CLIENT_CLIENT_SESSION_H_

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/client/client_core.h"
#include "worker/client/exchange_plan.h"
#include "worker/client/parameter_client.h"

namespace descent {

class ClientSession {
 public:
  struct Output {
    std::vector<std::pair<ServerId, Request>> send;
    std::vector<PartWrite> writes;  // of the reply just given; to be done before `finished` is acted on
    std::vector<Ticket> finished;
  };

  explicit ClientSession(ClientOptions options, ClientFaults faults = {});

  // `owner` is held by every piece that points into the caller's buffers.
  Ticket Exchange(const std::optional<PushSpec>& push, const std::optional<PullSpec>& pull,
                  std::shared_ptr<const void> owner, absl::Time now, Output* out);
  Ticket AskExpected(Rank rank, absl::Time now, Output* out);
  void OnOpen(ServerId server, absl::Time now, Output* out);
  void OnClosed(ServerId server) { core_.OnClosed(server); }
  void OnReply(ServerId server, const Reply& reply, absl::Time now, Output* out);
  void OnTimer(absl::Time now, Output* out);
  void Cancel(Output* out);
  // Drops what the ticket holds, its owner included, which the caller may want to let go of elsewhere.
  std::shared_ptr<const void> Forget(Ticket ticket);
  // Lets go of the ticket's hold on its buffers; it won't be sent again.
  std::shared_ptr<const void> ReleaseOwner(Ticket ticket);

  const ClientCore& core() const { return core_; }
  ClientStats stats() const;

 private:
  struct Plan {
    std::shared_ptr<const ExchangePlan> plan;  // null: a question for expected clocks
    std::vector<Rank> expected_of;
    std::shared_ptr<const void> owner;
  };
  void Build(ClientCore::Actions& actions, Output* out);

  const ClientOptions options_;
  const std::shared_ptr<const ModelLayout> layout_;
  ClientCore core_;
  absl::flat_hash_map<Ticket, Plan> plans_;
  ClientStats stats_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_CLIENT_CLIENT_SESSION_H_
