// A plain generated client against a real server: it pulls, pushes a gradient, reads back the exact update, and exports
// what the server holds.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "descent/v1/job.pb.h"
#include "descent/v1/parameter.grpc.pb.h"
#include "server/node/server_node.h"
#include "server/rpc/parameter_service.h"
#include "server/rpc/rpc_server.h"

namespace descent {
namespace {

constexpr uint32_t kDim = 3000;  // 87 rows fit into an image of 1 MiB with their keys

class RealNodeTest : public testing::Test {
 protected:
  RealNodeTest() {
    TensorSpec dense;
    dense.name = "w";
    dense.shape = {5};
    dense.initializer = {Initializer::Kind::kConstant, 2.0};
    TensorSpec table;
    table.name = "t";
    table.sparse = true;
    table.shape = {kDim};
    ServerNodeOptions options;
    options.envelope = {kProtocolVersion, 7, RunId(8), Generation(1), 1};
    options.store.tensors = {dense, table};
    options.store.geometry = {.block_elements = 4, .slots = 1};
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
    stub_ = v1::ParameterService::NewStub(
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials()));
    // A stream waits until the node is there, a unary call would be refused.
    grpc::ClientContext context;
    auto stream = stub_->Exchange(&context);
    v1::ExchangeReply reply;
    EXPECT_TRUE(stream->Write(Ask()) && stream->Read(&reply));
    context.TryCancel();
    stream->Finish();
  }

  static v1::ExchangeRequest Ask() {
    v1::ExchangeRequest request;
    Fill(request.mutable_envelope());
    request.set_request(1);
    request.add_expected_of(0);
    return request;
  }
  static void Fill(v1::Envelope* envelope) {
    envelope->set_protocol(kProtocolVersion);
    envelope->set_job(7);
    envelope->set_run(8);
    envelope->set_generation(1);
    envelope->set_map_epoch(1);
  }
  v1::ExchangeReply Call(const v1::ExchangeRequest& request) {
    grpc::ClientContext context;
    v1::ExchangeReply reply;
    const grpc::Status status = stub_->PushPull(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(reply.refusal().message(), "");
    return reply;
  }
  static std::vector<float> Floats(const std::string& bytes) {
    std::vector<float> out(bytes.size() / sizeof(float));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
    return out;
  }

  std::unique_ptr<ParameterService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::ParameterService::Stub> stub_;
};

TEST_F(RealNodeTest, PullPushAndReadBackTheExactUpdate) {
  v1::ExchangeRequest pull = Ask();
  pull.mutable_pull()->set_all_dense(true);
  v1::ExchangeReply reply = Call(pull);
  EXPECT_TRUE(reply.pull_done());
  EXPECT_EQ(Floats(reply.payload()), std::vector<float>({2, 2, 2, 2, 2}));
  EXPECT_EQ(reply.expected_clock(0), 0u);

  v1::ExchangeRequest both = pull;
  v1::PushPart* push = both.mutable_push();
  push->mutable_incarnation()->set_generation(1);
  push->mutable_incarnation()->set_number(1);
  push->add_weight(2);
  push->add_dense()->set_block(0);
  push->add_dense()->set_block(1);
  push->set_contributions(2);
  const std::vector<float> gradient = {4, 8, -4, 0, 1};
  both.set_payload(gradient.data(), gradient.size() * sizeof(float));
  both.mutable_pull()->set_clock(1);
  reply = Call(both);
  EXPECT_EQ(reply.ack().outcome(), v1::APPLIED);
  EXPECT_TRUE(reply.ack().complete());
  EXPECT_TRUE(reply.pull_done());
  EXPECT_EQ(Floats(reply.payload()), std::vector<float>({1, 0, 3, 2, 1.75}));  // 2 - 0.5 * gradient / 2
  EXPECT_EQ(Call(both).ack().outcome(), v1::DUPLICATE);
}

TEST_F(RealNodeTest, ExportsBlocksAndSlotsInImages) {
  // 250 rows of 12 kB: three images.
  std::string keys, rows;
  v1::ExchangeRequest request = Ask();
  v1::PushPart* push = request.mutable_push();
  push->mutable_incarnation()->set_generation(1);
  push->mutable_incarnation()->set_number(1);
  push->add_weight(1);
  push->set_contributions(1);
  v1::SparseId* part = push->add_sparse();
  part->set_table(1);
  constexpr uint32_t kKeys = 250;
  part->set_keys(kKeys);
  for (uint64_t key = 0; key < kKeys; ++key) {
    keys.append(reinterpret_cast<const char*>(&key), sizeof(key));
    const std::vector<float> row(kDim, static_cast<float>(key));
    rows.append(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
  }
  request.set_payload(keys + rows);
  ASSERT_EQ(Call(request).ack().outcome(), v1::APPLIED);

  v1::ExportRequest wanted;
  Fill(wanted.mutable_envelope());
  wanted.set_tensor(1);
  wanted.set_last(1);
  grpc::ClientContext context;
  auto images = stub_->Export(&context, wanted);
  v1::BlockImage image;
  uint64_t next = 0;
  int count = 0;
  bool more = true;
  while (images->Read(&image)) {
    ++count;
    EXPECT_TRUE(more);
    more = image.more();
    EXPECT_LE(image.payload().size(), kMaxPayloadBytes);
    ASSERT_EQ(image.payload().size(), image.keys() * (8 + kDim * 4));
    for (uint32_t i = 0; i < image.keys(); ++i, ++next) {
      uint64_t key;
      float value;
      std::memcpy(&key, image.payload().data() + 8 * i, 8);
      std::memcpy(&value, image.payload().data() + 8 * image.keys() + 4 * kDim * (i + 1) - 4, 4);
      EXPECT_EQ(key, next);
      EXPECT_EQ(value, -0.5f * static_cast<float>(key));
    }
    EXPECT_EQ(std::vector<uint64_t>(image.mark().begin(), image.mark().end()), std::vector<uint64_t>({1}));
  }
  EXPECT_TRUE(images->Finish().ok());
  EXPECT_FALSE(more);
  EXPECT_EQ(next, kKeys);
  EXPECT_EQ(count, 6);

  wanted.set_last(2);
  grpc::ClientContext other;
  auto none = stub_->Export(&other, wanted);
  EXPECT_FALSE(none->Read(&image));
  EXPECT_EQ(none->Finish().error_message(), "export: blocks [0, 2) of 1 of tensor t");
  wanted.mutable_envelope()->set_generation(2);
  grpc::ClientContext third;
  auto stale = stub_->Export(&third, wanted);
  EXPECT_FALSE(stale->Read(&image));
  EXPECT_EQ(stale->Finish().error_message(), "export: generation is 1 here and 2 in the request");
}

}  // namespace
}  // namespace descent
