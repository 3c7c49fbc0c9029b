#include "server/rpc/health_service.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace descent {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr std::chrono::seconds kDeadline(30);

class HealthServiceTest : public testing::Test {
 protected:
  HealthServiceTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ =
        Health::NewStub(grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  }
  ~HealthServiceTest() override {
    service_.Close();
    server_->Shutdown(std::chrono::system_clock::now() + kDeadline);
  }

  struct Watcher {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader;
    // UNKNOWN: there is nothing more.
    HealthCheckResponse::ServingStatus Next() {
      HealthCheckResponse reply;
      return reader->Read(&reply) ? reply.status() : HealthCheckResponse::UNKNOWN;
    }
  };
  std::unique_ptr<Watcher> Watch(const std::string& name) {
    auto watcher = std::make_unique<Watcher>();
    watcher->context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    HealthCheckRequest request;
    request.set_service(name);
    watcher->reader = stub_->Watch(&watcher->context, request);
    return watcher;
  }
  grpc::Status Check(const std::string& name, HealthCheckResponse* reply) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    HealthCheckRequest request;
    request.set_service(name);
    return stub_->Check(&context, request, reply);
  }

  HealthService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Health::Stub> stub_;
};

TEST_F(HealthServiceTest, ChecksWhatWasSet) {
  service_.Set("", true);
  service_.Set("some", false);
  HealthCheckResponse reply;
  ASSERT_TRUE(Check("", &reply).ok());
  EXPECT_EQ(reply.status(), HealthCheckResponse::SERVING);
  ASSERT_TRUE(Check("some", &reply).ok());
  EXPECT_EQ(reply.status(), HealthCheckResponse::NOT_SERVING);
  const grpc::Status unknown = Check("other", &reply);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(unknown.error_message(), "no service 'other' here");
}

TEST_F(HealthServiceTest, AWatcherHearsEachChangeAndTheEnd) {
  service_.Set("", true);
  auto watcher = Watch("");
  EXPECT_EQ(watcher->Next(), HealthCheckResponse::SERVING);
  service_.Set("", false);
  EXPECT_EQ(watcher->Next(), HealthCheckResponse::NOT_SERVING);
  service_.Set("other", true);  // not its concern
  service_.Set("", true);
  EXPECT_EQ(watcher->Next(), HealthCheckResponse::SERVING);
  service_.Close();
  EXPECT_EQ(watcher->Next(), HealthCheckResponse::UNKNOWN);
  EXPECT_EQ(watcher->reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(HealthServiceTest, AServiceMayComeWhileItIsWatched) {
  auto watcher = Watch("later");
  EXPECT_EQ(watcher->Next(), HealthCheckResponse::SERVICE_UNKNOWN);
  service_.Set("later", true);
  EXPECT_EQ(watcher->Next(), HealthCheckResponse::SERVING);
}

TEST_F(HealthServiceTest, WatchersAreLimitedAndThoseThatGoMakeRoom) {
  service_.Set("", true);
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (int i = 0; i < HealthService::kMaxWatchers; ++i) {
    watchers.push_back(Watch(""));
    ASSERT_EQ(watchers.back()->Next(), HealthCheckResponse::SERVING);
  }
  auto refused = Watch("");
  EXPECT_EQ(refused->Next(), HealthCheckResponse::UNKNOWN);
  EXPECT_EQ(refused->reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  watchers.front()->context.TryCancel();
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  while (Watch("")->Next() != HealthCheckResponse::SERVING) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
}

}  // namespace
}  // namespace descent
