// Under which address others reach this process.
#ifndef DESCENT_SERVER_PROCESS_LOCAL_ADDRESS_H_
#define DESCENT_SERVER_PROCESS_LOCAL_ADDRESS_H_

#include <string>

#include "absl/status/statusor.h"

namespace descent {

// The address of this host on its way to `peer` ("host:port"): what the peer's side can answer to. Sends nothing.
// UNAVAILABLE: the name is not known, or there is no way there.
absl::StatusOr<std::string> LocalAddressTowards(const std::string& peer);

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_LOCAL_ADDRESS_H_
