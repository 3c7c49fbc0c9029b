// grpc.health.v1.Health (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). Our own, because gRPC's is
// written on its callback API, whose threads poll sockets and so take events away from the data path's one thread.
// Includes gRPC: for .cc files of this folder only. Thread-safe.
#ifndef DESCENT_SERVER_RPC_HEALTH_SERVICE_H_
#define DESCENT_SERVER_RPC_HEALTH_SERVICE_H_

#include <string>

#include "absl/container/flat_hash_map.h"
#include "common/base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace descent {

class HealthService final : public grpc::health::v1::Health::Service {
 public:
  // A service that was never set is unknown: NOT_FOUND from Check, SERVICE_UNKNOWN from Watch.
  void Set(const std::string& service, bool serving);
  // Ends every Watch, with UNAVAILABLE.
  void Close();

  grpc::Status Check(grpc::ServerContext* context, const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* reply) override;
  // Tells the status and every change of it. A watcher takes a thread, so there are at most kMaxWatchers:
  // RESOURCE_EXHAUSTED to more.
  grpc::Status Watch(grpc::ServerContext* context, const grpc::health::v1::HealthCheckRequest* request,
                     grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>* writer) override;

  static constexpr int kMaxWatchers = 16;

 private:
  using Status = grpc::health::v1::HealthCheckResponse;

  Status::ServingStatus Find(const std::string& service) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  CondVar changed_;
  absl::flat_hash_map<std::string, bool> serving_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  int watchers_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_RPC_HEALTH_SERVICE_H_
