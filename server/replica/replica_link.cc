#include "server/replica/replica_link.h"

#include <utility>

#include "common/net/grpc_client_transport.h"

namespace descent {
namespace {

class ReplicaLink final : public BackupLink, private ClientTransport::Handler {
 public:
  ReplicaLink(ReplicaLinkOptions options, ParameterService* service) : options_(std::move(options)), service_(service) {
    GrpcClientOptions transport;
    transport.servers = {options_.address};
    transport_ = MakeGrpcClientTransport(std::move(transport));
    transport_->Start(this);
  }
  ~ReplicaLink() override { transport_->Stop(); }

  void Send(Request request) override { transport_->Send(ServerId(0), std::move(request)); }

 private:
  void OnOpen(ServerId) override {
    Tell([view = options_.view](PrimaryNode* node) { node->OnLinkUp(view); });
  }
  void OnReply(ServerId, Reply reply) override {
    if (!reply.refusal.ok() && options_.trouble) options_.trouble(reply.refusal);
    if (reply.replicated == 0) return;
    Tell([view = options_.view, held = reply.replicated](PrimaryNode* node) { node->OnConfirmed(view, held); });
  }
  void OnClosed(ServerId, absl::Status why) override {
    if (options_.trouble) options_.trouble(why);
  }
  void OnWake(absl::Time) override {}

  void Tell(std::function<void(PrimaryNode*)> word) {
    service_->Post([word = std::move(word)](ServerNode* node) {
      if (auto* primary = dynamic_cast<PrimaryNode*>(node); primary != nullptr) word(primary);
    });
  }

  const ReplicaLinkOptions options_;
  ParameterService* const service_;
  std::unique_ptr<ClientTransport> transport_;
};

}  // namespace

std::shared_ptr<BackupLink> MakeReplicaLink(ReplicaLinkOptions options, ParameterService* service) {
  return std::make_shared<ReplicaLink>(std::move(options), service);
}

}  // namespace descent
