// A primary's link to its backup over gRPC: one Exchange stream to the backup's parameter service. Confirmations and
// the link's coming up are said to the PrimaryNode that is installed in `service`, on its thread.
//
// Bounded: what is queued is shared with what the PrimaryNode keeps until it is confirmed; see there. A stream that is
// lost is opened again by itself, with backoff.
//
// Thread-safety: Send may be called from any thread; destroyed on any thread but the link's own. The end waits for the
// stream's: whoever makes a link keeps a reference until the PrimaryNode has let go of it, so that a node's thread does
// not wait.
#ifndef DESCENT_SERVER_REPLICA_REPLICA_LINK_H_
#define DESCENT_SERVER_REPLICA_REPLICA_LINK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "server/replica/primary_node.h"
#include "server/rpc/parameter_service.h"

namespace descent {

struct ReplicaLinkOptions {
  std::string address;  // host:port of the backup
  uint64_t view = 0;
  // What the backup refuses with, or why the stream ended or could not be opened; may be null. On the link's own
  // thread, each time anew; must not block. ABORTED: it has been promoted. UNAVAILABLE: it cannot be reached (now).
  std::function<void(const absl::Status&)> trouble;
};

// `service` outlives the link. Connects at once. For PrimaryNode::SetBackup on the service's thread
// (ParameterService::Post); what the link has to say before that is of no use and lost, so that call it soon: the
// PrimaryNode sends again after a while what nobody has confirmed.
std::shared_ptr<BackupLink> MakeReplicaLink(ReplicaLinkOptions options, ParameterService* service);

}  // namespace descent

#endif  // DESCENT_SERVER_REPLICA_REPLICA_LINK_H_
