// For tests: a cut kept in memory, which a node can be made of again.
#ifndef DESCENT_SERVER_NODE_KEPT_CUT_H_
#define DESCENT_SERVER_NODE_KEPT_CUT_H_

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/node/cut_sink.h"
#include "server/node/server_node.h"

namespace descent {

class KeptCut final : public CutSink {
 public:
  struct Record {
    BlockExport image;
    std::vector<uint64_t> marks;
  };
  void Add(BlockExport image, std::vector<uint64_t> marks) override {
    EXPECT_FALSE(done_);
    const BlockId id = image.id;
    EXPECT_TRUE(records_.emplace(id, Record{std::move(image), std::move(marks)}).second) << "imaged twice";
  }
  void Done() override {
    EXPECT_FALSE(done_);
    done_ = true;
  }

  bool done() const { return done_; }
  const std::map<BlockId, Record>& records() const { return records_; }

 private:
  std::map<BlockId, Record> records_;
  bool done_ = false;
};

// The images of all servers of a cut.
using WholeCut = std::map<BlockId, KeptCut::Record>;

// Installs what belongs to the node's server, out of a cut of any number of servers.
inline absl::Status RestoreFrom(const WholeCut& cut, const ServerNodeOptions& options, ServerNode* node) {
  for (const auto& [id, record] : cut) {
    if (options.store.map.server(id) != options.store.self) continue;
    if (absl::Status status = node->Install(record.image, record.marks); !status.ok()) return status;
  }
  return node->FinishRestore();
}

}  // namespace descent

#endif  // DESCENT_SERVER_NODE_KEPT_CUT_H_
