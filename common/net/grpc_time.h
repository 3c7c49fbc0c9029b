// absl's times as gRPC's. Includes gRPC: for .cc files of the adapters only.
#ifndef DESCENT_COMMON_NET_GRPC_TIME_H_
#define DESCENT_COMMON_NET_GRPC_TIME_H_

#include <grpc/support/time.h>

#include "absl/time/time.h"

namespace descent {

inline gpr_timespec ToGprTime(absl::Time time) {
  if (time == absl::InfiniteFuture()) return gpr_inf_future(GPR_CLOCK_REALTIME);
  if (time == absl::InfinitePast()) return gpr_inf_past(GPR_CLOCK_REALTIME);
  const timespec parts = absl::ToTimespec(time);
  gpr_timespec out;
  out.clock_type = GPR_CLOCK_REALTIME;
  out.tv_sec = parts.tv_sec;
  out.tv_nsec = static_cast<int32_t>(parts.tv_nsec);
  return out;
}

}  // namespace descent

#endif  // DESCENT_COMMON_NET_GRPC_TIME_H_
