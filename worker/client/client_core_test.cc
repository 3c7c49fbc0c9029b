#include "worker/client/client_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/string_view.h"

namespace descent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint32_t kNone = ClientCore::kNone;
const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);
const Envelope kEnvelope{kProtocolVersion, 7, RunId(8), Generation(2), 1};

BlockId Block(uint32_t tensor, uint32_t index) { return BlockId{TensorId(tensor), index}; }

class ClientCoreTest : public ::testing::Test {
 protected:
  explicit ClientCoreTest(bool backup_ranks = false)
      : core_(ClientCore::Options{kEnvelope, 2, absl::Seconds(5), {}, backup_ranks}) {}

  void OpenAll() {
    for (uint32_t s = 0; s < 2; ++s) core_.OnOpen(ServerId(s), now_, &actions_);
  }
  // Rank 3 pushes clock `clock` to server 0 in `messages` messages and pulls two blocks with it.
  ClientCore::Ticket Begin(uint64_t clock, size_t messages, bool pull = true, uint64_t bytes = 100) {
    ClientCore::TicketSpec spec;
    spec.push = ClientCore::PushIdentity{Rank(3), 1, Clock(clock)};
    spec.legs.resize(1);
    spec.legs[0].server = ServerId(0);
    spec.legs[0].push_bytes.assign(messages, bytes);
    if (pull) {
      spec.legs[0].chunks = 1;
      spec.legs[0].piggyback = true;
      spec.legs[0].items = {{Block(0, 0), 0}, {Block(0, 2), 0}};
    }
    return core_.Begin(spec, now_, &actions_);
  }
  std::vector<ClientCore::Send> Sent() { return std::exchange(actions_.send, {}); }
  std::vector<ClientCore::Ticket> Finished() { return std::exchange(actions_.finished, {}); }
  void Answer(const Reply& reply, uint32_t server = 0) { core_.OnReply(ServerId(server), reply, now_, &actions_); }
  static Reply To(uint64_t request) {
    Reply reply;
    reply.envelope = kEnvelope;
    reply.id = request;
    return reply;
  }
  static Reply Ack(uint64_t request, uint64_t clock, Outcome outcome, bool complete, uint64_t expected = 0) {
    Reply reply = To(request);
    reply.ack = PushAck{outcome, Rank(3), 1, Clock(clock), 1, complete, Clock(expected), "text of the server"};
    return reply;
  }
  static Reply Part(uint64_t request, BlockId block, bool last = false) {
    Reply reply = To(request);
    reply.dense.push_back({block, 1});
    reply.pull_done = last;
    return reply;
  }
  void Advance(absl::Duration by) {
    now_ += by;
    core_.OnTimer(now_, &actions_);
  }

  ClientCore core_;
  ClientCore::Actions actions_;
  absl::Time now_ = kStart;
};

TEST_F(ClientCoreTest, SendsOnceTheConnectionIsOpenPullFirst) {
  Begin(0, 3);
  EXPECT_THAT(Sent(), IsEmpty());
  OpenAll();
  const auto sent = Sent();
  ASSERT_THAT(sent, SizeIs(3));
  EXPECT_EQ(sent[0].push, 0u);
  EXPECT_EQ(sent[0].chunk, 0u);
  EXPECT_TRUE(sent[0].whole_chunk);
  EXPECT_EQ(sent[2].push, 2u);
  EXPECT_EQ(sent[2].chunk, kNone);
}

TEST_F(ClientCoreTest, DoneWhenAcknowledgedAndAllPartsAreInAndEachCountsOnce) {
  OpenAll();
  const auto ticket = Begin(0, 1);
  const uint64_t id = Sent()[0].request;
  Answer(Part(id, Block(0, 2)));
  EXPECT_THAT(actions_.accepted, ElementsAre(1));
  Answer(Part(id, Block(0, 2)));  // a copy
  EXPECT_THAT(actions_.accepted, ElementsAre(kNone));
  Answer(Ack(id, 0, Outcome::kApplied, true));
  EXPECT_FALSE(core_.finished(ticket));
  Answer(Part(id, Block(0, 0), true));
  EXPECT_THAT(Finished(), ElementsAre(ticket));
  EXPECT_TRUE(core_.status(ticket).ok());
  // What comes afterwards is for nobody: the buffers belong to the caller again.
  Answer(Part(id, Block(0, 0), true));
  EXPECT_THAT(actions_.accepted, ElementsAre(kNone));
  EXPECT_EQ(core_.stats().late_replies, 1u);
}

TEST_F(ClientCoreTest, AsksAgainForWhatIsMissingOnly) {
  OpenAll();
  Begin(0, 2);
  const auto first = Sent();
  Answer(Part(first[0].request, Block(0, 0)));
  Advance(absl::Seconds(5));
  const auto again = Sent();
  ASSERT_THAT(again, SizeIs(3));  // the rest of the pull, both push messages
  EXPECT_EQ(again[0].chunk, 0u);
  EXPECT_FALSE(again[0].whole_chunk);
  EXPECT_THAT(again[0].items, ElementsAre(1));
  EXPECT_GT(again[0].request, first[1].request);
  EXPECT_EQ(core_.stats().resends, 3u);
  // Answers to the older ids still count.
  Answer(Ack(first[1].request, 0, Outcome::kApplied, true));
  Answer(Part(first[0].request, Block(0, 2), true));
  EXPECT_THAT(Finished(), SizeIs(1));
}

TEST_F(ClientCoreTest, WaitingProlongsThePullAndNotThePush) {
  OpenAll();
  const auto ticket = Begin(0, 2);
  const uint64_t id = Sent()[0].request;
  now_ += absl::Seconds(4);
  Reply waiting = To(id);
  waiting.waiting = WaitingNotice{{Rank(1), Rank(3)}, absl::Seconds(2), "contributions of clock 0"};
  Answer(waiting);
  Advance(absl::Seconds(1));
  const auto again = Sent();
  ASSERT_THAT(again, SizeIs(2));  // or a lost push would be waited for by the server for ever
  EXPECT_EQ(again[0].push, 0u);
  EXPECT_EQ(again[0].chunk, kNone);
  EXPECT_EQ(again[1].push, 1u);
  EXPECT_THAT(core_.Describe(ticket, now_), HasSubstr("server 0 waits for ranks 1, 3 since 3 s (contributions of"));
  EXPECT_EQ(core_.last_waiting()->why, "contributions of clock 0");
}

TEST_F(ClientCoreTest, DuplicateOfTheWholeClockIsDoneAndOfAPartIsNot) {
  OpenAll();
  const auto ticket = Begin(4, 2, false);
  const auto sent = Sent();
  Answer(Ack(sent[0].request, 4, Outcome::kDuplicate, false, 4));
  EXPECT_FALSE(core_.finished(ticket));
  Answer(Ack(sent[1].request, 4, Outcome::kDuplicate, false, 5));  // the server expects the next clock
  EXPECT_TRUE(core_.finished(ticket));
}

TEST_F(ClientCoreTest, TooEarlySendsTheEarlierClockThenThisOne) {
  OpenAll();
  Begin(0, 1, false);
  const auto first = Sent();
  const auto second_ticket = Begin(1, 1, false);
  const auto second = Sent();
  Answer(Ack(second[0].request, 1, Outcome::kTooEarly, false, 0));
  const auto earlier = Sent();
  ASSERT_THAT(earlier, SizeIs(1));
  EXPECT_EQ(earlier[0].ticket, first[0].ticket);
  // Said again of the same copy: what is on its way is not sent again.
  Answer(Ack(second[0].request, 1, Outcome::kTooEarly, false, 0));
  EXPECT_THAT(Sent(), IsEmpty());
  Answer(Ack(earlier[0].request, 0, Outcome::kApplied, true, 1));
  const auto then = Sent();
  ASSERT_THAT(then, SizeIs(1));
  EXPECT_EQ(then[0].ticket, second_ticket);
  // An answer to the copy that was refused says nothing about this one.
  Answer(Ack(second[0].request, 1, Outcome::kTooEarly, false, 0));
  EXPECT_THAT(Sent(), IsEmpty());
}

TEST_F(ClientCoreTest, TooEarlyWithNothingEarlierGoesAgainAtOnceAndThenByItsTimer) {
  OpenAll();
  Begin(1, 1, false);
  auto sent = Sent();
  Answer(Ack(sent[0].request, 1, Outcome::kTooEarly, false, 0));
  sent = Sent();
  ASSERT_THAT(sent, SizeIs(1));
  Answer(Ack(sent[0].request, 1, Outcome::kTooEarly, false, 0));
  EXPECT_THAT(Sent(), IsEmpty());
  Advance(absl::Seconds(40));
  EXPECT_THAT(Sent(), SizeIs(1));
}

TEST_F(ClientCoreTest, StatusesOfWhatServersSay) {
  struct Case {
    Outcome outcome;
    absl::StatusCode code;
    absl::string_view text;
  };
  for (const Case& c : {Case{Outcome::kFenced, absl::StatusCode::kAborted, "rank 3's push of clock 0 is fenced"},
                        Case{Outcome::kStaleGeneration, absl::StatusCode::kAborted, "another generation than ours, 2"},
                        Case{Outcome::kWrongMap, absl::StatusCode::kAborted, "partition map than ours, epoch 1"},
                        Case{Outcome::kRefused, absl::StatusCode::kInvalidArgument, "was refused"}}) {
    OpenAll();
    const auto ticket = Begin(0, 1);
    Answer(Ack(Sent()[0].request, 0, c.outcome, false));
    ASSERT_TRUE(core_.finished(ticket));
    EXPECT_EQ(core_.status(ticket).code(), c.code);
    EXPECT_THAT(std::string(core_.status(ticket).message()), HasSubstr(std::string(c.text)));
    EXPECT_THAT(std::string(core_.status(ticket).message()), HasSubstr("text of the server"));
    core_.Forget(ticket);
  }
  const auto ticket = Begin(0, 1);
  Reply refusal = To(Sent()[0].request);
  refusal.refusal = absl::InvalidArgumentError("no such tensor");
  Answer(refusal);
  EXPECT_EQ(core_.status(ticket), absl::InvalidArgumentError("server 0 refused: no such tensor"));
  // Of these it is the coordinator that has to say how it goes on.
  for (const absl::Status& over : {absl::AbortedError("generation mismatch"), absl::FailedPreconditionError("run"),
                                   absl::UnavailableError("not placed yet")}) {
    const auto other = Begin(0, 1);
    Reply reply = To(Sent()[0].request);
    reply.refusal = over;
    Answer(reply);
    EXPECT_EQ(core_.status(other).code(), absl::StatusCode::kAborted) << over;
  }
}

TEST_F(ClientCoreTest, ReopenedConnectionSendsWhatIsNotAcknowledgedOldestFirst) {
  OpenAll();
  const auto a = Begin(0, 2, false);
  const auto b = Begin(1, 1);
  const auto sent = Sent();
  Answer(Ack(sent[0].request, 0, Outcome::kApplied, true));
  core_.OnClosed(ServerId(0));
  Advance(absl::Minutes(1));
  EXPECT_THAT(Sent(), IsEmpty());  // it would be dropped
  core_.OnOpen(ServerId(0), now_, &actions_);
  const auto again = Sent();
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_EQ(again[0].ticket, b);
  EXPECT_TRUE(core_.finished(a));
}

TEST_F(ClientCoreTest, LargePushesAreGivenLonger) {
  OpenAll();
  Begin(0, 4, false, uint64_t{16} << 20);
  EXPECT_THAT(Sent(), SizeIs(4));
  Advance(absl::Seconds(24));
  EXPECT_THAT(Sent(), IsEmpty());
  Advance(absl::Seconds(1));
  EXPECT_THAT(Sent(), SizeIs(4));
}

TEST_F(ClientCoreTest, ExpectedClockIsTheLeastOverServers) {
  OpenAll();
  ClientCore::TicketSpec spec;
  spec.expected_of = {Rank(3)};
  spec.legs.resize(2);
  spec.legs[0].server = ServerId(0);
  spec.legs[1].server = ServerId(1);
  const auto ticket = core_.Begin(spec, now_, &actions_);
  const auto sent = Sent();
  ASSERT_THAT(sent, SizeIs(2));
  EXPECT_TRUE(sent[0].expected);
  for (uint32_t s = 0; s < 2; ++s) {
    Reply reply = To(sent[s].request);
    reply.expected = {Clock(9 - s)};
    Answer(reply, s);
  }
  ASSERT_TRUE(core_.finished(ticket));
  EXPECT_THAT(core_.expected(ticket), ElementsAre(Clock(8)));
}

TEST_F(ClientCoreTest, PartsOfAnotherGenerationEndTheTicket) {
  OpenAll();
  const auto ticket = Begin(0, 1);
  Reply reply = Part(Sent()[0].request, Block(0, 0));
  reply.envelope.generation = Generation(3);
  Answer(reply);
  EXPECT_THAT(actions_.accepted, ElementsAre(kNone));
  EXPECT_EQ(core_.status(ticket).code(), absl::StatusCode::kAborted);
}

TEST_F(ClientCoreTest, CancelEndsAllPresentAndFuture) {
  OpenAll();
  const auto a = Begin(0, 1);
  Sent();
  core_.Cancel(&actions_);
  const auto b = Begin(1, 1);
  EXPECT_THAT(Finished(), ElementsAre(a, b));
  EXPECT_THAT(Sent(), IsEmpty());
  EXPECT_EQ(core_.status(b).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(core_.unfinished(), 0u);
}

class BackupRanksTest : public ClientCoreTest {
 protected:
  BackupRanksTest() : ClientCoreTest(true) {}

  // Rank 3 pushes clock 4 to both servers and pulls a block of each.
  ClientCore::Ticket BeginBoth() {
    ClientCore::TicketSpec spec;
    spec.push = ClientCore::PushIdentity{Rank(3), 1, Clock(4)};
    spec.legs.resize(2);
    for (uint32_t s = 0; s < 2; ++s) {
      spec.legs[s].server = ServerId(s);
      spec.legs[s].push_bytes = {100};
      spec.legs[s].chunks = 1;
      spec.legs[s].piggyback = true;
      spec.legs[s].items = {{Block(0, s), 0}};
    }
    return core_.Begin(spec, now_, &actions_);
  }
  static Reply Passed(uint64_t request) {
    Reply reply = To(request);
    reply.refusal = absl::OutOfRangeError("version 5 is gone");
    return reply;
  }
};

TEST_F(BackupRanksTest, TooLateEverywhereEndsThePush) {
  OpenAll();
  const auto ticket = BeginBoth();
  const auto sent = Sent();
  Answer(Ack(sent[0].request, 4, Outcome::kTooLate, true, 6));
  EXPECT_FALSE(core_.finished(ticket));
  Answer(Ack(sent[1].request, 4, Outcome::kTooLate, true, 5), 1);
  EXPECT_THAT(Finished(), ElementsAre(ticket));
  EXPECT_TRUE(absl::IsOutOfRange(core_.status(ticket))) << core_.status(ticket);
}

TEST_F(BackupRanksTest, APushThatCountsSomewhereIsPulledFor) {
  OpenAll();
  const auto ticket = BeginBoth();
  const auto sent = Sent();
  Answer(Ack(sent[0].request, 4, Outcome::kTooLate, true, 5));
  Answer(Ack(sent[1].request, 4, Outcome::kApplied, true, 5), 1);
  EXPECT_FALSE(core_.finished(ticket));
  Answer(Part(sent[0].request, Block(0, 0), true));
  Answer(Part(sent[1].request, Block(0, 1), true), 1);
  EXPECT_THAT(Finished(), ElementsAre(ticket));
  EXPECT_TRUE(core_.status(ticket).ok());
}

TEST_F(BackupRanksTest, AServerThatIsPastTheClockEndsThePullOnceThePushHasArrivedEverywhere) {
  OpenAll();
  const auto ticket = BeginBoth();
  const auto sent = Sent();
  Answer(Ack(sent[0].request, 4, Outcome::kTooLate, true, 9));
  Answer(Passed(sent[0].request));
  EXPECT_FALSE(core_.finished(ticket)) << "server 1 may wait for the push";
  Advance(absl::Seconds(5));
  const auto again = Sent();
  EXPECT_FALSE(again.empty());
  for (const auto& send : again) EXPECT_EQ(send.server, ServerId(1));
  Answer(Ack(sent[1].request, 4, Outcome::kApplied, true, 5), 1);
  EXPECT_THAT(Finished(), ElementsAre(ticket));
  EXPECT_TRUE(absl::IsNotFound(core_.status(ticket))) << core_.status(ticket);
  EXPECT_THAT(core_.status(ticket).message(), HasSubstr("version 5 is gone"));
}

}  // namespace
}  // namespace descent
