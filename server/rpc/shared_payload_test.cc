// Payloads in memory that client and server share, over a stream on a local socket; and that nobody else gets them.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/net/grpc_bytes.h"
#include "common/net/grpc_channel.h"
#include "common/net/shared_slots.h"
#include "descent/v1/job.pb.h"
#include "descent/v1/parameter.grpc.pb.h"
#include "server/node/server_node.h"
#include "server/rpc/parameter_service.h"
#include "server/rpc/rpc_server.h"

namespace descent {
namespace {

constexpr uint64_t kElements = 4096;

class SharedPayloadTest : public testing::Test {
 protected:
  SharedPayloadTest() {
    TensorSpec dense;
    dense.name = "w";
    dense.shape = {kElements};
    dense.initializer = {Initializer::Kind::kConstant, 2.0};
    ServerNodeOptions options;
    options.envelope = {kProtocolVersion, 7, RunId(8), Generation(1), 1};
    options.store.tensors = {dense};
    options.store.geometry = {.block_elements = kElements, .slots = 1};
    options.store.map = MakePartitionMap(options.store.tensors, options.store.geometry, 1);
    v1::Optimizer sgd;
    sgd.mutable_sgd();
    options.store.rule = *UpdateRule::Make(sgd);
    options.store.rate = [](Clock) { return 0.5f; };
    service_ = ParameterService::Create({}, {});
    auto node = ServerNode::Create(options, service_->output());
    EXPECT_TRUE(node.ok()) << node.status();
    service_->Install(options, *std::move(node));
    auto server = RpcServer::Start({.bind = {"127.0.0.1", 0}}, service_.get(), {});
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    address_ = absl::StrCat("127.0.0.1:", server_->port());
    EXPECT_TRUE(server_->ServeLocally(address_).ok());
    auto slots = SharedSlots::Make();
    EXPECT_TRUE(slots.ok()) << slots.status();
    slots_ = *std::move(slots);
    for (uint64_t i = 0; i < kElements; ++i) gradient_.push_back(static_cast<float>(i));
  }

  // Pushes the gradient, in slot `slot` or else in the message, and pulls what it makes.
  v1::ExchangeRequest PushAndPull(std::optional<uint32_t> slot) const {
    v1::ExchangeRequest request;
    v1::Envelope* envelope = request.mutable_envelope();
    envelope->set_protocol(kProtocolVersion);
    envelope->set_job(7);
    envelope->set_run(8);
    envelope->set_generation(1);
    envelope->set_map_epoch(1);
    request.set_request(1);
    v1::PushPart* push = request.mutable_push();
    push->mutable_incarnation()->set_generation(1);
    push->mutable_incarnation()->set_number(1);
    push->add_weight(2);
    push->add_dense()->set_block(0);
    push->set_contributions(1);
    request.mutable_pull()->set_all_dense(true);
    request.mutable_pull()->set_clock(1);
    const size_t bytes = gradient_.size() * sizeof(float);
    if (slot.has_value()) {
      request.mutable_shared()->set_slot(*slot);
      request.mutable_shared()->set_size(bytes);
    } else {
      request.set_payload(gradient_.data(), bytes);
    }
    return request;
  }
  Payload Gradient() const {
    Payload payload;
    payload.Append(gradient_.data(), gradient_.size() * sizeof(float), nullptr);
    return payload;
  }
  void ExpectUpdated(const void* bytes) const {
    std::vector<float> found(kElements);
    std::memcpy(found.data(), bytes, kElements * sizeof(float));
    for (uint64_t i = 0; i < kElements; ++i) ASSERT_EQ(found[i], 2 - 0.5f * gradient_[i] / 2) << i;
  }

  // One request; its replies until the pull is done, or why there are none.
  struct Answer {
    std::vector<v1::ExchangeReply> replies;
    grpc::Status status;
    bool shares = false;
  };
  Answer Exchange(std::shared_ptr<grpc::Channel> channel, const std::string& offer,
                  const v1::ExchangeRequest& request) {
    const auto stub = v1::ParameterService::NewStub(std::move(channel));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    if (!offer.empty()) context.AddMetadata(kSlotsKey, offer);
    const auto stream = stub->Exchange(&context);
    Answer answer;
    stream->Write(request);
    v1::ExchangeReply reply;
    bool done = false;
    while (!done && stream->Read(&reply)) {
      answer.replies.push_back(reply);
      done = reply.pull_done();
    }
    answer.shares = context.GetServerInitialMetadata().count(kSlotsKey) > 0;
    if (done) context.TryCancel();
    answer.status = stream->Finish();
    return answer;
  }

  std::vector<float> gradient_;
  std::unique_ptr<ParameterService> service_;
  std::unique_ptr<RpcServer> server_;
  std::string address_;
  std::shared_ptr<SharedSlots> slots_;
};

TEST_F(SharedPayloadTest, GradientsAndParametersLieInSlots) {
  const std::optional<uint32_t> slot = slots_->Put(Gradient());
  ASSERT_TRUE(slot.has_value());
  const Answer answer = Exchange(MakeLocalChannel(address_, Lane::kBulk), slots_->offer(), PushAndPull(slot));
  EXPECT_TRUE(answer.shares);
  ASSERT_FALSE(answer.replies.empty()) << answer.status.error_message();
  const v1::ExchangeReply& last = answer.replies.back();
  ASSERT_TRUE(last.has_shared());
  EXPECT_TRUE(last.payload().empty());
  Payload payload;
  ASSERT_EQ(slots_->Take(last.shared().slot(), last.shared().size(), &payload), absl::OkStatus());
  ASSERT_EQ(payload.size(), kElements * sizeof(float));
  std::vector<std::byte> bytes(payload.size());
  payload.CopyTo(bytes.data());
  ExpectUpdated(bytes.data());
  // When the server has come to another request, it has let go of what it has applied.
  Exchange(MakeLocalChannel(address_, Lane::kBulk), "", PushAndPull(std::nullopt));
  EXPECT_EQ(slots_->Put(Gradient()), slot);
}

TEST_F(SharedPayloadTest, WhoOffersNoneGetsPayloadsInMessages) {
  const Answer answer = Exchange(MakeLocalChannel(address_, Lane::kBulk), "", PushAndPull(std::nullopt));
  EXPECT_FALSE(answer.shares);
  ASSERT_FALSE(answer.replies.empty()) << answer.status.error_message();
  ASSERT_EQ(answer.replies.back().payload().size(), kElements * sizeof(float));
  ExpectUpdated(answer.replies.back().payload().data());
}

// Over TCP a peer may be anybody, and name what it likes.
TEST_F(SharedPayloadTest, OverTcpNothingIsShared) {
  const std::optional<uint32_t> slot = slots_->Put(Gradient());
  const Answer refused = Exchange(MakeChannel(address_, Lane::kBulk), slots_->offer(), PushAndPull(slot));
  EXPECT_FALSE(refused.shares);
  EXPECT_TRUE(refused.replies.empty());
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(refused.status.error_message(), "the payload lies in shared memory, of which this stream has none");
}

TEST_F(SharedPayloadTest, AWrongOfferOrSlotHurtsTheStreamAlone) {
  const auto local = [this] { return MakeLocalChannel(address_, Lane::kBulk); };
  const Answer unknown = Exchange(local(), absl::StrCat(getpid(), "/0/5"), PushAndPull(3));
  EXPECT_FALSE(unknown.shares);
  EXPECT_EQ(unknown.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const Answer empty = Exchange(local(), slots_->offer(), PushAndPull(3));
  EXPECT_TRUE(empty.replies.empty());
  EXPECT_EQ(empty.status.error_message(), "slot 3 of shared memory has no payload");
  const Answer good = Exchange(local(), slots_->offer(), PushAndPull(slots_->Put(Gradient())));
  EXPECT_FALSE(good.replies.empty()) << good.status.error_message();
}

}  // namespace
}  // namespace descent
