// Primary and backup message by message.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/node/kept_cut.h"
#include "server/node/node_harness.h"
#include "server/replica/backup_node.h"
#include "server/replica/primary_node.h"

namespace descent {
namespace {

using H = NodeHarness;

constexpr ConnectionId kWorker(1);
constexpr ConnectionId kLinkConnection(2);

ReplicaFrame FrameOf(uint64_t view, uint64_t sequence) {
  ReplicaFrame frame;
  frame.view = view;
  frame.sequence = sequence;
  return frame;
}

struct KeptOutput final : ServerNode::Output {
  void Send(ConnectionId to, Reply reply) override {
    connections.push_back(to);
    replies.push_back(std::move(reply));
  }
  void Fail(absl::Status cause) override { failure = cause; }
  void Scalars(Clock, std::vector<BlockSquare>) override { ++scalars; }
  void Measured(Clock clock, std::vector<BlockScalars> parts) override { measured.emplace_back(clock, parts); }
  std::vector<Reply> Take(ServerNode* node) {
    for (ConnectionId to : std::exchange(connections, {})) node->OnSent(to, absl::UnixEpoch());
    return std::exchange(replies, {});
  }
  std::vector<ConnectionId> connections;
  std::vector<Reply> replies;
  absl::Status failure;
  int scalars = 0;
  std::vector<std::pair<Clock, std::vector<BlockScalars>>> measured;
};

struct KeptLink final : BackupLink {
  void Send(Request request) override { sent.push_back(std::move(request)); }
  std::vector<Request> sent;
};

class ReplicaNodes : public testing::Test {
 protected:
  ReplicaNodes() : maker_(H::AddingJob({H::Dense("w", 4)}, {4, 4}, 1)) {
    options_ = maker_.options;
    options_.scalars_every = 1;
    primary_ = std::move(PrimaryNode::Create(options_, {}, &primary_out_).value());
    primary_->OnOpen(kWorker, now_, false);
    NewBackup(1, true);
  }
  void NewBackup(uint64_t view, bool fresh) {
    backup_ = std::move(BackupNode::Create(options_, view, fresh, &backup_out_).value());
    backup_->OnOpen(kLinkConnection, now_, false);
    link_ = std::make_shared<KeptLink>();
  }
  Request Push(uint64_t clock, float value) {
    return maker_.PushOf(0, clock, {0}, 1, Floats({value, value, value, value}));
  }
  void Do(Request request) { primary_->OnRequest(kWorker, std::move(request), now_); }
  // The backup's answer to one request of the primary.
  Reply Give(Request request) {
    backup_->OnRequest(kLinkConnection, std::move(request), now_);
    std::vector<Reply> replies = backup_out_.Take(backup_.get());
    EXPECT_EQ(replies.size(), 1u);
    return replies.empty() ? Reply() : replies[0];
  }
  void GiveAll() {
    for (Request& request : std::exchange(link_->sent, {})) {
      const Reply reply = Give(std::move(request));
      EXPECT_TRUE(reply.refusal.ok()) << reply.refusal;
      primary_->OnConfirmed(primary_->view(), reply.replicated);
    }
  }
  std::vector<float> Values(ServerNode& node) {
    return ToFloats(node.store().Read(BlockId{TensorId(0), 0}, std::nullopt).value());
  }

  const absl::Time now_ = absl::UnixEpoch();
  H maker_;
  ServerNodeOptions options_;
  KeptOutput primary_out_, backup_out_;
  std::unique_ptr<PrimaryNode> primary_;
  std::unique_ptr<BackupNode> backup_;
  std::shared_ptr<KeptLink> link_;
};

TEST_F(ReplicaNodes, AloneEverythingPassesThrough) {
  Do(Push(0, 1));
  ASSERT_EQ(primary_out_.replies.size(), 1u);
  EXPECT_TRUE(primary_out_.replies[0].ack->complete);
  EXPECT_FALSE(primary_->synced());
}

TEST_F(ReplicaNodes, TheBackupStepsWithTheAgreedScalarsAndTellsItsOwnOncePromoted) {
  options_.store.clip.global_norm = 1;
  primary_ = std::move(PrimaryNode::Create(options_, {}, &primary_out_).value());
  primary_->OnOpen(kWorker, now_, false);
  NewBackup(1, true);
  primary_->SetBackup(1, link_, true);
  const auto agree = [&](uint64_t clock) {
    return primary_->Agreed(AddInBlockOrder(Clock(clock), 1, primary_out_.measured.back().second), now_);
  };
  const std::vector<float> before = Values(*primary_);
  Do(Push(0, 3));
  GiveAll();
  ASSERT_EQ(primary_out_.measured.size(), 1u);
  EXPECT_EQ(primary_out_.measured[0].second[0].square, 36.0);
  EXPECT_EQ(Values(*backup_), before) << "nobody has agreed yet";
  Do(maker_.PullOf(0, 1));
  ASSERT_TRUE(agree(0).ok());
  EXPECT_TRUE(primary_out_.Take(primary_.get()).size() <= 1) << "the push's answer; what was read waits for the backup";
  GiveAll();
  EXPECT_NE(Values(*primary_), before);
  EXPECT_EQ(Values(*backup_), Values(*primary_));
  EXPECT_EQ(agree(0), absl::OkStatus()) << "again: nothing happens";
  GiveAll();
  EXPECT_TRUE(primary_->synced());
  EXPECT_EQ(primary_->Agreed({Clock(1), {-1}, {0}, 0, {}}, now_).code(), absl::StatusCode::kInvalidArgument);

  // The primary dies before it has told what it measured of clock 1.
  Do(Push(1, 1));
  for (Request& request : std::exchange(link_->sent, {})) {
    if (request.push) Give(std::move(request));
  }
  EXPECT_TRUE(backup_out_.measured.empty());
  ASSERT_TRUE(backup_->Promote().ok());
  ASSERT_EQ(backup_out_.measured.size(), 2u);
  EXPECT_EQ(backup_out_.measured[1], primary_out_.measured[1]);
  const std::vector<float> stale = Values(*backup_);
  ASSERT_TRUE(backup_->Agreed(AddInBlockOrder(Clock(1), 1, backup_out_.measured[1].second), now_).ok());
  EXPECT_NE(Values(*backup_), stale);
}

TEST_F(ReplicaNodes, AnAnswerWaitsForTheBackup) {
  primary_->SetBackup(1, link_, true);
  EXPECT_TRUE(primary_->synced());
  Request both = Push(0, 1);
  both.pull = maker_.PullOf(0, 1).pull;
  both.expected_of = {Rank(0)};
  Do(std::move(both));
  EXPECT_TRUE(primary_out_.replies.empty());
  EXPECT_EQ(primary_->held_replies(), 1u);
  ASSERT_EQ(link_->sent.size(), 1u);
  EXPECT_TRUE(link_->sent[0].push.has_value());
  EXPECT_FALSE(link_->sent[0].pull.has_value());
  EXPECT_TRUE(link_->sent[0].expected_of.empty());
  EXPECT_EQ(link_->sent[0].replica->view, 1u);
  EXPECT_EQ(link_->sent[0].replica->sequence, 1u);
  EXPECT_EQ(primary_->unconfirmed_bytes(), 16u);
  EXPECT_EQ(primary_->unconfirmed(), 1u);

  // Reads wait too; another view's word is none.
  Do(maker_.PullOf(0, 1));
  primary_->OnConfirmed(2, 1);
  primary_->OnConfirmed(1, 7);
  EXPECT_TRUE(primary_out_.replies.empty());
  GiveAll();
  EXPECT_EQ(primary_out_.Take(primary_.get()).size(), 2u);
  EXPECT_EQ(primary_->unconfirmed_bytes(), 0u);
  EXPECT_EQ(Values(*backup_), Values(*primary_));
  // Nothing unconfirmed: reads go out at once.
  Do(maker_.PullOf(0, 1));
  EXPECT_EQ(primary_out_.replies.size(), 1u);
  EXPECT_EQ(primary_out_.scalars, 1);
  EXPECT_EQ(backup_out_.scalars, 0);
}

TEST_F(ReplicaNodes, APushKeepsNoBytesOfTheReadBesideIt) {
  options_ = H(H::AddingJob({H::Dense("w", 4), H::Table("t", 1)}, {4, 1}, 1)).options;
  primary_ = std::move(PrimaryNode::Create(options_, {}, &primary_out_).value());
  primary_->OnOpen(kWorker, now_, false);
  primary_->SetBackup(1, link_, true);
  Request both = Push(0, 1);
  const uint64_t key = 3;
  both.pull = PullFrame{Rank(0), Clock(0), false, {}, {SparsePart{BlockId{TensorId(1), 0}, 1}}, true};
  both.payload.Append(Bytes(&key, sizeof(key)));
  Do(std::move(both));
  ASSERT_EQ(link_->sent.size(), 1u);
  EXPECT_EQ(link_->sent[0].payload.size(), 16u);
}

TEST_F(ReplicaNodes, WhatIsUnconfirmedComesAgainAndIsTakenOnce) {
  primary_->SetBackup(1, link_, true);
  Do(Push(0, 1));
  Do(Push(1, 2));
  link_->sent.erase(link_->sent.begin());  // lost
  Reply reply = Give(link_->sent[0]);
  EXPECT_EQ(reply.refusal.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(reply.refusal.message(), "request 2 of the primary came, 1 is missing");
  link_->sent.clear();
  primary_->OnLinkUp(1);
  ASSERT_EQ(link_->sent.size(), 2u);
  const std::vector<Request> again = link_->sent;
  GiveAll();
  EXPECT_EQ(Give(again[0]).replicated, 2u);
  EXPECT_EQ(Values(*backup_), (std::vector<float>{3, 3, 3, 3}));
  EXPECT_EQ(primary_->next_timer(), absl::InfiniteFuture());

  // Also where nobody says that the link was down.
  Do(Push(2, 4));
  link_->sent.clear();
  ASSERT_EQ(primary_->next_timer(), now_ + PrimaryNode::kResendAfter);
  primary_->OnTimer(now_ + PrimaryNode::kResendAfter);
  EXPECT_EQ(primary_->next_timer(), now_ + 3 * PrimaryNode::kResendAfter);
  GiveAll();
  EXPECT_EQ(Values(*backup_), (std::vector<float>{7, 7, 7, 7}));
}

TEST_F(ReplicaNodes, ABackupAnswersNobodyElse) {
  backup_->OnOpen(kWorker, now_, false);
  for (Request request : {Push(0, 1), maker_.PullOf(0, 0)}) {
    backup_->OnRequest(kWorker, std::move(request), now_);
    const std::vector<Reply> replies = backup_out_.Take(backup_.get());
    ASSERT_EQ(replies.size(), 1u);
    EXPECT_EQ(replies[0].refusal.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(replies[0].refusal.message(), "not the primary of server 0: this is its backup of view 1");
  }
  Request other = Push(0, 1);
  other.replica = FrameOf(2, 1);
  EXPECT_EQ(Give(other).refusal.message(), "view mismatch: this backup is of view 1, the primary's request of 2");
  other.replica->view = 1;
  other.envelope.generation = Generation(9);
  EXPECT_EQ(Give(other).refusal.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(backup_->sequence(), 0u);
  EXPECT_EQ(Values(*backup_), (std::vector<float>{0, 0, 0, 0}));
}

TEST_F(ReplicaNodes, ANodeThatIsNoBackupTakesNothingFromAPrimary) {
  Request request = Push(0, 1);
  request.replica = FrameOf(1, 1);
  Do(std::move(request));
  ASSERT_EQ(primary_out_.replies.size(), 1u);
  EXPECT_EQ(primary_out_.replies[0].refusal.message(),
            "a primary's request, of view 1, came to a server that is no backup");
  EXPECT_EQ(Values(*primary_), (std::vector<float>{0, 0, 0, 0}));
}

TEST_F(ReplicaNodes, APrimaryThatWasReplacedNeverAnswers) {
  primary_->SetBackup(1, link_, true);
  Do(Push(0, 1));
  ASSERT_TRUE(backup_->Promote().ok());
  const Reply reply = Give(link_->sent[0]);
  EXPECT_EQ(reply.refusal.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(reply.refusal.message(), "promoted: the backup of view 1 is primary now");
  primary_->OnTimer(now_ + absl::Hours(1));
  primary_->OnLinkUp(1);
  EXPECT_TRUE(primary_out_.replies.empty());
  // The worker goes on with the new one, also on a connection that was there before.
  backup_->OnRequest(kLinkConnection, Push(0, 5), now_);
  const std::vector<Reply> replies = backup_out_.Take(backup_.get());
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_TRUE(replies[0].ack->complete);
  EXPECT_EQ(Values(*backup_), (std::vector<float>{5, 5, 5, 5}));
  // Only the coordinator's word lets the old one's answers out; an older word does not.
  primary_->GoAlone(0);
  EXPECT_TRUE(primary_out_.replies.empty());
  primary_->GoAlone(2);
  EXPECT_EQ(primary_out_.replies.size(), 1u);
  primary_->SetBackup(1, link_, true);
  EXPECT_EQ(primary_->view(), 2u);
  EXPECT_FALSE(primary_->synced());
}

TEST_F(ReplicaNodes, AClosedConnectionsAnswersAreForgotten) {
  primary_->SetBackup(1, link_, true);
  Do(Push(0, 1));
  primary_->OnClose(kWorker, now_);
  EXPECT_EQ(primary_->held_replies(), 0u);
  GiveAll();
  EXPECT_TRUE(primary_out_.replies.empty());
}

TEST_F(ReplicaNodes, FencesKeepTheirPlaceAmongThePushes) {
  primary_->Fence(Rank(0), {Generation(3), 1});
  primary_->SetBackup(1, link_, true);
  Do(Push(0, 1));  // of incarnation 1
  primary_->Fence(Rank(0), {Generation(3), 2});
  Do(Push(1, 1));
  ASSERT_EQ(link_->sent.size(), 4u);
  EXPECT_TRUE(link_->sent[0].replica->fence.has_value());
  EXPECT_EQ(link_->sent[2].replica->fence, (ReplicaFence{Rank(0), {Generation(3), 2}}));
  // Its own process's word would come at another moment.
  backup_->Fence(Rank(0), {Generation(3), 9});
  GiveAll();
  EXPECT_EQ(backup_->Marks(BlockId{TensorId(0), 0}), (std::vector<uint64_t>{1}));
  EXPECT_EQ(backup_->stats().fenced, 1u);
  ASSERT_TRUE(backup_->Promote().ok());
  backup_->Fence(Rank(0), {Generation(3), 3});
  Request second = Push(1, 1);
  second.push->incarnation = {Generation(3), 2};
  backup_->OnRequest(kLinkConnection, std::move(second), now_);
  EXPECT_EQ(backup_->stats().fenced, 2u);
}

TEST_F(ReplicaNodes, AFreshBackupComesTooLateAndTakesImages) {
  Do(Push(0, 1));
  primary_->SetBackup(1, link_, true);
  EXPECT_FALSE(primary_->synced());
  for (uint64_t clock = 1; clock < 8; ++clock) {
    Do(Push(clock, 1));
    GiveAll();
  }
  EXPECT_TRUE(primary_->synced());
  EXPECT_EQ(Values(*backup_), Values(*primary_));
  EXPECT_TRUE(backup_->Promote().ok());
}

// A worker of the generation before may come to a server that keeps its address. The run does not begin until backups
// are synced, and under ROUND one that is sent images is not before the run has begun.
TEST_F(ReplicaNodes, AFreshBackupStaysFreshWhenAnotherGenerationPushes) {
  Request old = Push(0, 1);
  old.envelope.generation = Generation(old.envelope.generation.value - 1);
  Do(std::move(old));
  primary_->SetBackup(1, link_, true);
  EXPECT_TRUE(primary_->synced());
  Do(Push(0, 1));
  GiveAll();
  EXPECT_EQ(Values(*backup_), Values(*primary_));
}

TEST_F(ReplicaNodes, SyncedIsSaidWhenOldVersionsAreThereToo) {
  NewBackup(1, false);
  EXPECT_FALSE(backup_->Promote().ok());
  primary_->SetBackup(1, link_, false);
  GiveAll();
  for (uint64_t clock = 0; clock < 2; ++clock) Do(Push(clock, 1));
  EXPECT_TRUE(link_->sent.empty());  // the cut is of clock 3, which has not come
  EXPECT_EQ(primary_out_.Take(primary_.get()).size(), 2u);
  Do(Push(2, 1));
  GiveAll();
  EXPECT_FALSE(primary_->synced());
  EXPECT_FALSE(backup_->store().Read(BlockId{TensorId(0), 0}, 2).ok());
  Do(Push(3, 1));
  GiveAll();
  EXPECT_TRUE(primary_->synced());
  EXPECT_TRUE(backup_->store().Read(BlockId{TensorId(0), 0}, 3).ok());
  EXPECT_EQ(Values(*backup_), Values(*primary_));
}

TEST_F(ReplicaNodes, WhatComesWhileImagesAreMadeFollowsThem) {
  options_ = H(H::AddingJob({H::Table("t", 1)}, {4, 2}, 1)).options;
  options_.store.apply_push = true;
  primary_ = std::move(PrimaryNode::Create(options_, {.max_unconfirmed_bytes = 20}, &primary_out_).value());
  primary_->OnOpen(kWorker, now_, false);
  NewBackup(1, false);
  uint64_t key = 0;
  while (options_.store.geometry.slot(key) != 1) ++key;
  const auto push = [&](uint64_t clock, uint64_t incarnation) {
    Request request = maker_.PushOf(0, clock, {}, 1, Bytes(&key, sizeof(key)));
    request.payload.Append(Floats({1}));
    request.push->sparse = {SparsePart{BlockId{TensorId(0), 1}, 1}};
    request.push->incarnation.number = incarnation;
    return request;
  };
  Do(push(0, 1));
  primary_->SetBackup(1, link_, false);
  GiveAll();
  primary_->Fence(Rank(0), {Generation(3), 2});
  Do(push(1, 2));  // slot 1 is imaged before it
  EXPECT_EQ(link_->sent.size(), 2u);
  EXPECT_EQ(primary_out_.Take(primary_.get()).size(), 2u);
  // With more than a bound kept, answers wait.
  Do(push(2, 2));
  EXPECT_EQ(primary_->held_replies(), 1u);
  EXPECT_FALSE(primary_->PumpCut());
  GiveAll();
  EXPECT_EQ(primary_out_.Take(primary_.get()).size(), 1u);
  EXPECT_TRUE(primary_->synced());
  EXPECT_EQ(backup_->SaveState(), primary_->SaveState());
  EXPECT_EQ(backup_->stats().contributions, 2u);
  // Also a fence alone, which no push says again.
  NewBackup(2, false);
  primary_->SetBackup(2, link_, false);
  GiveAll();
  primary_->Fence(Rank(0), {Generation(3), 3});
  while (primary_->PumpCut()) {
  }
  GiveAll();
  EXPECT_EQ(backup_->SaveState(), primary_->SaveState());
}

TEST_F(ReplicaNodes, TheOwnersDropLeavesTheBackupsCut) {
  primary_->SetBackup(1, link_, false);
  GiveAll();
  // A checkpoint may be to come beside what the backup is made of.
  auto dropped = std::make_shared<KeptCut>();
  EXPECT_TRUE(primary_->BeginCut(Clock(1), dropped).ok());
  primary_->DropCut();
  NewBackup(1, false);
  for (uint64_t clock = 0; clock < 6; ++clock) Do(Push(clock, 1));
  EXPECT_TRUE(dropped->records().empty());
  // It went to the first link; a view has one backup.
  EXPECT_TRUE(link_->sent.empty());
  NewBackup(2, false);
  primary_->SetBackup(2, link_, false);
  GiveAll();
  primary_->GoAlone(3);
  // Given up, it is in nobody's way.
  auto cut = std::make_shared<KeptCut>();
  EXPECT_TRUE(primary_->BeginCut(Clock(7), cut).ok());
  Do(Push(6, 1));
  EXPECT_TRUE(cut->done());
}

TEST_F(ReplicaNodes, ABackupThatDoesNotAnswerHoldsNobodyUp) {
  NewBackup(1, false);
  primary_->SetBackup(1, link_, false);
  for (uint64_t clock = 0; clock < 9; ++clock) {
    Do(Push(clock, 1));
    EXPECT_EQ(primary_out_.Take(primary_.get()).size(), 1u);
  }
  EXPECT_EQ(link_->sent.size(), 1u);  // the greeting
  EXPECT_EQ(primary_->unconfirmed(), 1u);
  auto cut = std::make_shared<KeptCut>();
  ASSERT_TRUE(primary_->BeginCut(Clock(9), cut).ok());
  EXPECT_TRUE(cut->done());
  // It comes again while there is no answer; then all goes its way.
  primary_->OnTimer(now_ + absl::Hours(1));
  EXPECT_EQ(link_->sent.size(), 2u);
  for (uint64_t clock = 9; clock < 18; ++clock) {
    GiveAll();
    Do(Push(clock, 1));
  }
  GiveAll();
  EXPECT_EQ(primary_->unconfirmed(), 0u);
  EXPECT_TRUE(primary_->synced());
  EXPECT_EQ(Values(*backup_), Values(*primary_));
}

TEST_F(ReplicaNodes, ABackupIsMadeOnceTheOwnersCutIsOver) {
  auto cut = std::make_shared<KeptCut>();
  ASSERT_TRUE(primary_->BeginCut(Clock(2), cut).ok());
  NewBackup(1, false);
  primary_->SetBackup(1, link_, false);
  for (uint64_t clock = 0; clock < 9; ++clock) {
    Do(Push(clock, 1));
    GiveAll();
  }
  EXPECT_TRUE(cut->done());
  EXPECT_TRUE(primary_->synced());
  EXPECT_EQ(Values(*backup_), Values(*primary_));
}

TEST_F(ReplicaNodes, AFailureIsThePrimarysToReportUntilPromotion) {
  primary_->SetBackup(1, link_, true);
  Do(Push(0, std::numeric_limits<float>::infinity()));
  EXPECT_FALSE(primary_out_.failure.ok());
  GiveAll();
  EXPECT_TRUE(backup_out_.failure.ok());
  ASSERT_TRUE(backup_->Promote().ok());
  EXPECT_EQ(backup_out_.failure, primary_out_.failure);
}

TEST_F(ReplicaNodes, WhatABackupCannotTakeInIsRefusedForGood) {
  NewBackup(1, false);
  const auto replica = [&](uint64_t sequence) {
    Request request;
    request.envelope = options_.envelope;
    request.id = sequence;
    request.replica = FrameOf(1, sequence);
    return request;
  };
  Request image = replica(1);
  image.replica->image.emplace().marks = {0};
  image.payload = Floats({1, 2, 3});
  const Reply reply = Give(image);
  EXPECT_EQ(reply.refusal.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(reply.refusal.message().find("could not take in what its primary sent: image of tensor 'w'"),
            std::string::npos)
      << reply.refusal;
  Request begin = replica(1);
  begin.replica->engine = "";
  EXPECT_EQ(Give(begin).refusal, reply.refusal);
  EXPECT_FALSE(backup_->Promote().ok());
  NewBackup(1, false);
  Request state = replica(1);
  state.replica->engine = "no state";
  EXPECT_NE(Give(state).refusal.message().find("the cut has no image of tensor 'w', block 0"), std::string::npos);
  NewBackup(1, true);
  EXPECT_EQ(Give(replica(1)).refusal.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ReplicaNodes, APromotedNodeGetsABackupOfItsOwn) {
  KeptOutput out;
  BackupNode* inner = nullptr;
  auto wrapped = std::move(PrimaryNode::Create(options_, {}, &out, [&](ServerNodeOptions o, ServerNode::Output* to) {
                             auto made = BackupNode::Create(std::move(o), 1, true, to);
                             inner = made->get();
                             return absl::StatusOr<std::unique_ptr<ServerNode>>(*std::move(made));
                           }).value());
  wrapped->OnOpen(kLinkConnection, now_, false);
  primary_->SetBackup(1, link_, true);
  Do(Push(0, 1));
  for (const Request& request : link_->sent) wrapped->OnRequest(kLinkConnection, request, now_);
  ASSERT_EQ(out.replies.size(), 1u);
  EXPECT_EQ(out.Take(wrapped.get())[0].replicated, 1u);
  ASSERT_TRUE(inner->Promote().ok());
  wrapped->GoAlone(2);

  NewBackup(3, false);
  primary_ = std::move(wrapped);
  primary_->OnOpen(kWorker, now_, false);
  primary_->SetBackup(3, link_, false);
  for (uint64_t clock = 1; clock < 8; ++clock) {
    Do(Push(clock, 1));
    GiveAll();
  }
  EXPECT_TRUE(primary_->synced());
  EXPECT_EQ(Values(*backup_), (std::vector<float>{8, 8, 8, 8}));
  primary_.reset();  // it speaks to `out`
}

TEST_F(ReplicaNodes, AStateIsReadByItsLikeAlone) {
  Do(Push(0, 1));
  const std::string state = primary_->SaveState();
  auto other = std::move(ServerNode::Create(options_, &backup_out_).value());
  for (size_t n = 0; n < state.size(); ++n) {
    EXPECT_EQ(other->LoadState(state.substr(0, n)).code(), absl::StatusCode::kInvalidArgument) << n;
  }
  EXPECT_EQ(other->LoadState(state + "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(other->SaveState(), std::move(ServerNode::Create(options_, &backup_out_).value())->SaveState());
  EXPECT_TRUE(other->LoadState(state).ok());
  EXPECT_EQ(other->SaveState(), state);
  EXPECT_EQ(other->stats().round, 1u);
  ServerNodeOptions more = options_;
  more.store.ranks = 2;
  const absl::Status status = std::move(ServerNode::Create(more, &backup_out_).value())->LoadState(state);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace descent
