#include "tests/bench/wire_bench_server.h"

#include <unistd.h>

#include <cstdio>
#include <future>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "descent/v1/job.pb.h"
#include "server/rpc/parameter_service.h"
#include "server/rpc/rpc_server.h"

namespace descent::bench {

std::vector<TensorSpec> Model::tensors() const {
  TensorSpec spec;
  spec.name = "w";
  spec.sparse = dense_elements == 0;
  spec.shape = {spec.sparse ? sparse_dim : dense_elements};
  return {spec};
}

Envelope Model::envelope() const { return {kProtocolVersion, 1, RunId(1), Generation(1), map().epoch}; }

void ServeModel(const Model& model, bool local) {
  v1::Optimizer rule;
  if (model.adam) {
    rule.mutable_adam();
  } else {
    rule.mutable_sgd();
  }
  ServerNodeOptions options;
  options.envelope = model.envelope();
  options.store.tensors = model.tensors();
  options.store.geometry = model.geometry();
  options.store.map = model.map();
  options.store.ranks = model.ranks;
  options.store.rule = *UpdateRule::Make(rule);
  options.store.rate = [](Clock) { return 1e-3f; };

  ParameterService::Callbacks callbacks;
  callbacks.fail = [](absl::Status cause) {
    std::fprintf(stderr, "failed: %s\n", cause.ToString().c_str());
    _exit(1);
  };
  auto service = ParameterService::Create({}, std::move(callbacks));
  auto node = ServerNode::Create(options, service->output());
  DESCENT_CHECK(node.ok());
  service->Install(options, *std::move(node));
  auto server = RpcServer::Start({.bind = {"127.0.0.1", 0}}, service.get(), {});
  DESCENT_CHECK(server.ok());
  if (local) DESCENT_CHECK((*server)->ServeLocally(absl::StrCat("127.0.0.1:", (*server)->port())).ok());
  std::printf("%d\n", (*server)->port());
  std::fflush(stdout);
  char question;
  while (read(STDIN_FILENO, &question, 1) > 0) {
    service->Post([](ServerNode* node) {
      const ServerNodeStats& stats = node->stats();
      std::printf("%lu %lu\n", stats.payload_bytes_in + stats.payload_bytes_out,
                  stats.payload_bytes_copied + node->store().copied_bytes());
      std::fflush(stdout);
    });
  }
  (*server)->Stop(absl::ZeroDuration());
}

}  // namespace descent::bench
