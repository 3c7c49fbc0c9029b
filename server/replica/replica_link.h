// A primary's link to its backup over gRPC: one Exchange stream to the backup's parameter service. Confirmations and
// the link's coming up are said to the PrimaryNode that is installed in `service`, on its thread.
//
// Bounded: what is queued is shared with what the PrimaryNode keeps until it is confirmed; see there. A stream that is
// lost is opened again by itself, with backoff.
//
// Thread-safety: Send may be called from any thread; destroyed on any thread but the transport's own.
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
  // What the backup refuses with, or why it cannot be reached; may be null. On the link's own thread, each time anew;
  // must not block. ABORTED: it has been promoted. OUT_OF_RANGE: something was lost on the way and is sent again.
  std::function<void(const absl::Status&)> trouble;
};

// `service` outlives the link. Connects at once. For PrimaryNode::SetBackup, which keeps it while it is of use.
std::shared_ptr<BackupLink> MakeReplicaLink(ReplicaLinkOptions options, ParameterService* service);

}  // namespace descent

#endif  // DESCENT_SERVER_REPLICA_REPLICA_LINK_H_
