#include "server/replica/replica_link.h"

#include <utility>

#include "common/net/grpc_client_transport.h"

namespace descent {
namespace {

class ReplicaLink final : public BackupLink,
                          private ClientTransport::Handler,
                          public std::enable_shared_from_this<ReplicaLink> {
 public:
  ReplicaLink(ReplicaLinkOptions options, ParameterService* service)
      : options_(std::move(options)),
        service_(service),
        transport_(MakeGrpcClientTransport({.servers = {options_.address}, .max_queued = kUnbounded})) {}
  ~ReplicaLink() override { transport_->Stop(); }

  void Start() { transport_->Start(this); }
  void Send(Request request) override { transport_->Send(ServerId(0), std::move(request)); }

 private:
  void OnOpen(ServerId) override {
    Tell([view = options_.view](PrimaryNode& node) { node.OnLinkUp(view); });
  }
  void OnReply(ServerId, Reply reply) override {
    if (!reply.refusal.ok()) {
      // After a gap all that is behind it is refused, until what is missing has come again.
      if (reply.refusal.code() != absl::StatusCode::kOutOfRange) Trouble(reply.refusal);
    } else if (reply.replicated > 0) {
      Tell(
          [view = options_.view, sequence = reply.replicated](PrimaryNode& node) { node.OnConfirmed(view, sequence); });
    }
  }
  void OnClosed(ServerId, absl::Status why) override { Trouble(why); }
  void OnWake(absl::Time) override {}

  void Trouble(const absl::Status& why) {
    if (options_.trouble) options_.trouble(why);
  }
  // The node that has this link, if it is still installed.
  template <typename F>
  void Tell(F what) {
    service_->Post([self = std::weak_ptr<const BackupLink>(weak_from_this()), what](ServerNode* node) {
      auto* const primary = dynamic_cast<PrimaryNode*>(node);
      if (primary != nullptr && primary->Uses(self)) what(*primary);
    });
  }

  const ReplicaLinkOptions options_;
  ParameterService* const service_;
  const std::unique_ptr<ClientTransport> transport_;  // bounded by what the PrimaryNode keeps
};

}  // namespace

std::shared_ptr<BackupLink> MakeReplicaLink(ReplicaLinkOptions options, ParameterService* service) {
  auto link = std::make_shared<ReplicaLink>(std::move(options), service);
  link->Start();
  return link;
}

}  // namespace descent
