#include "server/rpc/rpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_posix.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/net/grpc_channel.h"
#include "common/net/grpc_time.h"
#include "common/net/local_socket.h"
#include "server/rpc/health_service.h"
#include "server/rpc/parameter_service.h"

namespace descent {
namespace {

constexpr char kServiceName[] = "descent.v1.ParameterService";
// Control calls are short; more of them at once than this are refused, and come again.
constexpr int kMaxThreads = 64;

// Why the system does not let us listen there, or "". gRPC tells only that it could not.
std::string WhyNotBound(const Endpoint& endpoint) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  if (error != 0) return gai_strerror(error);
  std::string why;
  for (const addrinfo* at = found; at != nullptr && why.empty(); at = at->ai_next) {
    const int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0) continue;
    const int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, 1) != 0) why = std::strerror(errno);
    close(fd);
  }
  freeaddrinfo(found);
  return why;
}

class RpcServerImpl final : public RpcServer {
 public:
  RpcServerImpl(std::unique_ptr<HealthService> health, std::unique_ptr<grpc::Server> server,
                ParameterService* parameters, int port)
      : health_(std::move(health)),
        server_(std::move(server)),
        parameters_(parameters),
        port_(static_cast<uint16_t>(port)) {}
  ~RpcServerImpl() override { Stop(absl::ZeroDuration()); }

  uint16_t port() const override { return port_; }
  absl::Status ServeLocally(const std::string& address) override {
    DESCENT_CHECK(local_ == nullptr && !stopped_);
    const auto serve = [this](FileDescriptor fd) { grpc::AddInsecureChannelFromFd(server_.get(), fd.Release()); };
    DESCENT_ASSIGN_OR_RETURN(local_, LocalListener::Listen(address, serve));
    return absl::OkStatus();
  }
  void SetHealthy(bool healthy) override {
    health_->Set("", healthy);
    health_->Set(kServiceName, healthy);
  }
  void Stop(absl::Duration grace) override {
    if (stopped_) return;
    stopped_ = true;
    local_.reset();
    health_->Close();
    server_->Shutdown(ToGprTime(absl::Now() + grace));
    parameters_->Stop();
    server_->Wait();
  }

 private:
  const std::unique_ptr<HealthService> health_;
  const std::unique_ptr<grpc::Server> server_;
  ParameterService* const parameters_;
  const uint16_t port_;
  std::unique_ptr<LocalListener> local_;  // null: TCP alone
  bool stopped_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                            ParameterService* parameters,
                                                            const std::vector<grpc::Service*>& others) {
  const std::string address = options.bind.ToString();
  const auto refused = [&](absl::string_view why) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", why));
  };
  if (const std::string why = WhyNotBound(options.bind); !why.empty()) return refused(why);
  if (options.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  ApplyServerSettings(&builder);
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  parameters->Register(&builder);
  auto health = std::make_unique<HealthService>();
  builder.RegisterService(health.get());
  for (grpc::Service* service : others) builder.RegisterService(service);
  grpc::ResourceQuota quota("control");
  quota.SetMaxThreads(kMaxThreads);
  builder.SetResourceQuota(quota);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    if (server != nullptr) server->Shutdown();
    parameters->Stop();
    return refused("it was taken a moment ago");
  }
  parameters->Start();
  auto out = std::make_unique<RpcServerImpl>(std::move(health), std::move(server), parameters, port);
  out->SetHealthy(true);
  return out;
}

}  // namespace descent
