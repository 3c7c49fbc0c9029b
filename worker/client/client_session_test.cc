#include "worker/client/client_session.h"

#include <gtest/gtest.h>

#include "absl/time/time.h"

namespace descent {
namespace {

TEST(ClientSessionTest, AnAnswerOfAnotherGenerationIsNoDamage) {
  // The other generation's server has other blocks than we have asked for. So what comes does not fit; but nothing is
  // lost or damaged.
  TensorSpec w;
  w.name = "w";
  w.shape = {4};
  ClientOptions options;
  options.envelope.generation = Generation(1);
  options.tensors = {w};
  options.geometry = Geometry{4, 1};
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  const absl::Time now = absl::UnixEpoch();

  for (const uint64_t generation : {1, 2}) {
    ClientSession session(options);
    std::vector<float> buffer(4);
    PullSpec pull;
    pull.dense = {buffer.data()};
    ClientSession::Output out;
    session.OnOpen(ServerId(0), now, &out);
    const Ticket ticket = session.Exchange(std::nullopt, pull, nullptr, now, &out);
    ASSERT_EQ(out.send.size(), 1u);
    Reply reply;
    reply.envelope = options.envelope;
    reply.envelope.generation = Generation(generation);
    reply.id = out.send[0].second.id;
    reply.dense.push_back({BlockId{TensorId(0), 7}, 1});
    session.OnReply(ServerId(0), reply, now, &out);
    ASSERT_EQ(out.finished, std::vector<Ticket>{ticket});
    EXPECT_TRUE(out.writes.empty());
    const absl::Status status = session.core().status(ticket);
    EXPECT_EQ(status.code(), generation == 1 ? absl::StatusCode::kDataLoss : absl::StatusCode::kAborted) << status;
  }
}

}  // namespace
}  // namespace descent
