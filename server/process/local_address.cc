#include "server/process/local_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/net/endpoint.h"

namespace descent {

absl::StatusOr<std::string> LocalAddressTowards(const std::string& peer) {
  DESCENT_ASSIGN_OR_RETURN(const Endpoint endpoint, ParseEndpoint(peer));
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;  // connecting one only asks the routing table
  addrinfo* found = nullptr;
  const std::string port = absl::StrCat(endpoint.port);
  if (int error = getaddrinfo(endpoint.host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return absl::UnavailableError(absl::StrCat("no address for ", peer, ": ", gai_strerror(error)));
  }
  std::string result;
  int last_error = 0;
  for (addrinfo* a = found; a != nullptr && result.empty(); a = a->ai_next) {
    const int fd = socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    sockaddr_storage local{};
    socklen_t size = sizeof local;
    char name[NI_MAXHOST];
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0 &&
        getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) == 0 &&
        getnameinfo(reinterpret_cast<sockaddr*>(&local), size, name, sizeof name, nullptr, 0, NI_NUMERICHOST) == 0) {
      result = name;
    } else {
      last_error = errno;
    }
    close(fd);
  }
  freeaddrinfo(found);
  if (result.empty()) return absl::UnavailableError(absl::StrCat("no way to ", peer, ": ", std::strerror(last_error)));
  return result;
}

}  // namespace descent
