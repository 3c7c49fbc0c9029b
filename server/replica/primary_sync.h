// The inside of PrimaryNode: a backup that joins. For .cc files of this folder only.
#ifndef DESCENT_SERVER_REPLICA_PRIMARY_SYNC_H_
#define DESCENT_SERVER_REPLICA_PRIMARY_SYNC_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/node/cut_sink.h"
#include "server/replica/primary_node.h"

namespace descent {

struct PrimaryNode::Sync {
  enum class Stage : uint8_t {
    kGreeting,  // the backup has not answered yet
    kWanted,    // the cut is to be ordered
    kWaiting,   // ROUND: it is ordered, for a clock to come
    kImages,    // its moment has come
    kLive,      // all is sent, and so is what comes
  };
  // What the sink leaves for the node to pick up; a sink must not call the node.
  struct Mail {
    std::vector<std::pair<BlockExport, std::vector<uint64_t>>> images;
    bool done = false;
    bool lost = false;  // let go of without Done
    bool wanted = true;
  };

  Stage stage = Stage::kGreeting;
  absl::Time not_before = absl::InfinitePast();  // of the order
  uint64_t clock = 0;                            // of the cut; ROUND
  std::shared_ptr<Mail> mail;
  std::vector<Request> before;  // of clocks >= clock, until the engine's state below
  std::string state;
  std::vector<Request> after;  // since
  uint64_t live_from = 0;      // the last sequence number sent when kLive began
};

// Takes the images for a sync.
class PrimaryNode::SyncSink final : public CutSink {
 public:
  explicit SyncSink(std::shared_ptr<Sync::Mail> mail) : mail_(std::move(mail)) {}
  ~SyncSink() override { mail_->lost = !mail_->done; }
  void Add(BlockExport image, std::vector<uint64_t> marks) override {
    if (mail_->wanted) mail_->images.emplace_back(std::move(image), std::move(marks));
  }
  void Done() override { mail_->done = true; }
  bool of_all_servers() const override { return false; }

 private:
  const std::shared_ptr<Sync::Mail> mail_;
};

// A sink of the owner's, which can be let go of alone where a sync uses the same cut.
class PrimaryNode::OwnersSink final : public CutSink {
 public:
  explicit OwnersSink(std::shared_ptr<CutSink> sink) : sink_(std::move(sink)) {}
  void Add(BlockExport image, std::vector<uint64_t> marks) override {
    if (sink_ != nullptr) sink_->Add(std::move(image), std::move(marks));
  }
  void Done() override {
    if (sink_ != nullptr) sink_->Done();
  }
  bool of_all_servers() const override { return sink_ != nullptr && sink_->of_all_servers(); }
  void Drop() { sink_.reset(); }

 private:
  std::shared_ptr<CutSink> sink_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_REPLICA_PRIMARY_SYNC_H_
