// Network addresses as people write them. Pure.
#ifndef DESCENT_COMMON_NET_ENDPOINT_H_
#define DESCENT_COMMON_NET_ENDPOINT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace descent {

struct Endpoint {
  std::string host;   // a name, an IPv4 address, or an IPv6 address without brackets
  uint16_t port = 0;  // 0: any free one, for binding
  bool operator==(const Endpoint&) const = default;

  // "host:port", with brackets around an IPv6 address: what gRPC takes and ParseEndpoint reads.
  std::string ToString() const;
};

// "host:port", "[ipv6]:port", and, with `defaults` for what is missing: "host", ":port", "[ipv6]", a bare IPv6 address,
// "". INVALID_ARGUMENT repeats the text.
absl::StatusOr<Endpoint> ParseEndpoint(absl::string_view text, const Endpoint& defaults = {});

}  // namespace descent

#endif  // DESCENT_COMMON_NET_ENDPOINT_H_
