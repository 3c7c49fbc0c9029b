// The checkpoint folder behind gRPC (CheckpointStore in checkpoint.proto), for servers that don't reach it. Synchronous
// calls, on threads that poll no socket. Only part files of cuts are written, and nothing outside of the folder is
// read. Includes gRPC: for .cc files of this folder and server/process.
#ifndef DESCENT_SERVER_RPC_CHECKPOINT_STORE_SERVICE_H_
#define DESCENT_SERVER_RPC_CHECKPOINT_STORE_SERVICE_H_

#include <functional>
#include <memory>
#include <string>

#include "common/base/ids.h"
#include "common/storage/storage.h"

namespace grpc {
class Service;
}

namespace descent {

// Thread-safe. NOT_FOUND, ALREADY_EXISTS and the storage's other codes are passed on; INVALID_ARGUMENT: a path outside
// of the folder, or one that names no part file where one is written.
class CheckpointStoreService {
 public:
  // Whether this part, of the cut in that folder, is wanted now. Called on any thread.
  using Wanted = std::function<bool(const std::string& folder, ServerId server)>;
  // `storage` outlives the service. FAILED_PRECONDITION to parts that are not wanted, RESOURCE_EXHAUSTED to more than
  // kMaxUploads at once: each takes a thread.
  CheckpointStoreService(Storage* storage, Wanted wanted);
  static constexpr int kMaxUploads = 24;
  ~CheckpointStoreService();  // after the gRPC server has been shut down
  // For ServerBuilder::RegisterService.
  grpc::Service* service();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_RPC_CHECKPOINT_STORE_SERVICE_H_
