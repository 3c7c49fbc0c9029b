// The channel of the control lane, with its arguments in one place. For sources that include gRPC anyway.
#ifndef DESCENT_COMMON_CONTROL_CONTROL_CHANNEL_H_
#define DESCENT_COMMON_CONTROL_CONTROL_CHANNEL_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

namespace descent {

// A proxy in the environment is ignored: members talk to members. The subchannel pool is the channel's own, so that
// bulk data never queues before a heartbeat. Back-off and name look-ups are short: a restarted coordinator, or one
// whose container got a new address, is found in a second.
inline std::shared_ptr<grpc::Channel> MakeControlChannel(const std::string& address) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 500);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  args.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 500);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 5000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3000);
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
}

}  // namespace descent

#endif  // DESCENT_COMMON_CONTROL_CONTROL_CHANNEL_H_
