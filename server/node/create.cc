#include <algorithm>

#include "common/base/status_macros.h"
#include "server/node/server_node.h"

namespace descent {

absl::StatusOr<std::unique_ptr<ServerNode>> ServerNode::Create(ServerNodeOptions options, Output* output) {
  options.store.history = std::max(options.store.history, HistoryFor(options));
  DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<BlockStore> store, BlockStore::Create(options.store));
  return Create(std::move(options), std::move(store), output);
}

}  // namespace descent
