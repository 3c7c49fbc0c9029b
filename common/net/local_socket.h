// Byte streams between processes of one machine, beside TCP: Unix sockets under abstract names, which are made of the
// address under which a server is known. They move bytes with half of TCP's work on the loopback. Whoever cannot be
// reached so (on another host, in another network namespace, of another user) is reached over TCP as ever.
//
// An abstract name belongs to its network namespace and goes with its socket: nothing is left behind by a process that
// dies. Any process of the namespace may take a name or connect to it, so both ends look who the other is and talk to
// their own user alone.
//
// Thread-safe. Descriptors are closed on exec.
#ifndef DESCENT_COMMON_NET_LOCAL_SOCKET_H_
#define DESCENT_COMMON_NET_LOCAL_SOCKET_H_

#include <sys/types.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/files/file.h"

namespace descent {

// What a connection can hold on its way, for each direction. The system may grant less (net.core.wmem_max), which costs
// speed alone: the more fits, the fewer times the ends wait for each other.
inline constexpr int kLocalBufferBytes = 1 << 20;

class LocalListener {
 public:
  // Each connection as it comes, non-blocking, on the listener's thread; must not block.
  using Taker = std::function<void(FileDescriptor)>;

  // Listens for those who look for `address` (host:port). Connections that wait to be taken are bounded by the system,
  // those that have been taken by the process's limit of open files, as with TCP.
  // ALREADY_EXISTS: somebody else has the name. INVALID_ARGUMENT: it is too long for one. UNAVAILABLE: no such sockets.
  static absl::StatusOr<std::unique_ptr<LocalListener>> Listen(const std::string& address, Taker taker,
                                                               uid_t user = geteuid());
  // Takes no more; those that wait are refused. Waits for a Taker in progress.
  virtual ~LocalListener() = default;
};

// A non-blocking stream to who listens for `address`. Does not wait. UNAVAILABLE: nobody does, or too many wait there.
// PERMISSION_DENIED: one who is not `user`. INVALID_ARGUMENT: as above.
absl::StatusOr<FileDescriptor> ConnectLocally(const std::string& address, uid_t user = geteuid());

}  // namespace descent

#endif  // DESCENT_COMMON_NET_LOCAL_SOCKET_H_
