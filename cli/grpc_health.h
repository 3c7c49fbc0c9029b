// Client of grpc.health.v1.Health (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
#ifndef DESCENT_CLI_GRPC_HEALTH_H_
#define DESCENT_CLI_GRPC_HEALTH_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace descent {

// OK: SERVING. UNAVAILABLE: it answers that it does not serve, or does not answer; the text names the address.
absl::Status CheckHealth(const std::string& address, const std::string& service, absl::Duration timeout);

}  // namespace descent

#endif  // DESCENT_CLI_GRPC_HEALTH_H_
