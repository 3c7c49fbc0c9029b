// Many replies to one request as one, for unary calls. Not thread-safe.
#ifndef DESCENT_SERVER_RPC_REPLY_MERGER_H_
#define DESCENT_SERVER_RPC_REPLY_MERGER_H_

#include <cstdint>
#include <functional>

#include "common/wire/frame.h"

namespace descent {

class ReplyMerger {
 public:
  // `dense_bytes` tells a dense block's size.
  ReplyMerger(const Request& request, std::function<uint64_t(BlockId)> dense_bytes);

  // A reply of the node to the request.
  void Add(Reply reply);
  // Everything asked for has been answered, or refused, or the node has told for whom it waits.
  bool complete() const;
  // What has come so far: a RESOURCE_EXHAUSTED refusal where it does not fit into a message.
  Reply Take(const Envelope& envelope);

 private:
  const uint64_t id_;
  const bool wants_ack_, wants_pull_, wants_expected_;
  const std::function<uint64_t(BlockId)> dense_bytes_;
  Reply merged_;
  Payload sparse_;  // rows; merged_.payload holds the dense blocks until Take
  bool answered_ = false;
};

}  // namespace descent

#endif  // DESCENT_SERVER_RPC_REPLY_MERGER_H_
