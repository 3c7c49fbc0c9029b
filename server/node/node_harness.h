// For tests: a node on the real store, with everything it says recorded. Every reply is reported as sent at once,
// unless told otherwise.
#ifndef DESCENT_SERVER_NODE_NODE_HARNESS_H_
#define DESCENT_SERVER_NODE_NODE_HARNESS_H_

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "descent/v1/job.pb.h"
#include "server/node/server_node.h"

namespace descent {

inline Payload Bytes(const void* data, size_t size) {
  std::shared_ptr<std::byte[]> copy(new std::byte[size]);
  if (size > 0) std::memcpy(copy.get(), data, size);
  Payload out;
  out.Append(copy.get(), size, copy);
  return out;
}
inline Payload Floats(const std::vector<float>& values) { return Bytes(values.data(), values.size() * 4); }
inline std::vector<float> ToFloats(const Payload& payload) {
  std::vector<float> out(payload.size() / 4);
  payload.CopyTo(out.data());
  return out;
}

class NodeHarness final : public ServerNode::Output {
 public:
  // Plain SGD at rate -1, summed: a gradient is added to the parameters, so that these prove what they hold.
  static ServerNodeOptions AddingJob(std::vector<TensorSpec> tensors, Geometry geometry, uint32_t ranks) {
    ServerNodeOptions o;
    o.envelope.job = 11;
    o.envelope.run = RunId(22);
    o.envelope.generation = Generation(3);
    o.envelope.map_epoch = 1;
    o.store.tensors = std::move(tensors);
    o.store.geometry = geometry;
    o.store.map = MakePartitionMap(o.store.tensors, geometry, 1);
    o.store.ranks = ranks;
    o.store.rule = std::move(UpdateRule::Make(v1::Optimizer()).value());
    o.store.rate = [](Clock) { return -1.0f; };
    o.store.reduce_sum = true;
    return o;
  }
  static TensorSpec Dense(std::string name, uint64_t elements) {
    TensorSpec spec;
    spec.name = std::move(name);
    spec.shape = {elements};
    return spec;
  }
  static TensorSpec Table(std::string name, uint64_t dim) {
    TensorSpec spec = Dense(std::move(name), dim);
    spec.sparse = true;
    return spec;
  }

  explicit NodeHarness(ServerNodeOptions options, int connections = 1) : options(options) {
    node = std::move(ServerNode::Create(std::move(options), this).value());
    for (int c = 0; c < connections; ++c) node->OnOpen(ConnectionId(c), now);
  }

  void Send(ConnectionId to, Reply reply) override {
    ++in_flight;
    largest_in_flight = std::max(largest_in_flight, in_flight);
    replies.emplace_back(to, std::move(reply));
  }
  void Fail(absl::Status cause) override { failure = cause; }
  void Scalars(Clock clock, std::vector<BlockSquare> s) override { scalars.emplace_back(clock, std::move(s)); }
  void Norms(Clock clock, std::vector<BlockSquare> s) override { norms.emplace_back(clock, std::move(s)); }

  Request NewRequest() {
    Request request;
    request.envelope = options.envelope;
    request.id = ++last_id;
    return request;
  }
  Request PushOf(uint32_t rank, uint64_t clock, std::vector<uint32_t> blocks, uint32_t announced, Payload payload,
                 uint32_t span = 1) {
    Request request = NewRequest();
    PushFrame push;
    push.rank = Rank(rank);
    push.span = span;
    push.incarnation = {Generation(3), 1};
    push.clock = Clock(clock);
    push.weight.assign(std::min(span, options.store.ranks - rank), 1.0);
    for (uint32_t b : blocks) push.dense.push_back({BlockId{TensorId(0), b}});
    push.contributions = announced;
    request.push = std::move(push);
    request.payload = std::move(payload);
    return request;
  }
  Request PullOf(uint32_t rank, uint64_t clock) {
    Request request = NewRequest();
    request.pull = PullFrame{Rank(rank), Clock(clock), true, {}, {}, false};
    return request;
  }
  // What the node answers to this one request and event, all taken as sent.
  std::vector<Reply> Do(Request request, uint32_t connection = 0) {
    node->OnRequest(ConnectionId(connection), std::move(request), now);
    return Take();
  }
  std::vector<Reply> Take() {
    std::vector<Reply> out;
    while (!replies.empty()) {
      auto [to, reply] = std::move(replies.front());
      replies.pop_front();
      --in_flight;
      out.push_back(std::move(reply));
      node->OnSent(to, now);
    }
    return out;
  }

  ServerNodeOptions options;
  std::unique_ptr<ServerNode> node;
  absl::Time now = absl::UnixEpoch();
  std::deque<std::pair<ConnectionId, Reply>> replies;
  int in_flight = 0, largest_in_flight = 0;
  absl::Status failure;
  std::vector<std::pair<Clock, std::vector<BlockSquare>>> scalars, norms;
  uint64_t last_id = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_NODE_NODE_HARNESS_H_
