// The codec against the generated classes: the same bytes out, the same fields in, at every split; broken bytes are an
// error and never more.
#include "common/wire/codec.h"

#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "descent/v1/parameter.pb.h"

namespace descent {
namespace {

// Exactly `bytes`, so that a read past the end is one past an allocation.
Payload::Piece Owned(absl::string_view bytes) {
  auto buffer = std::shared_ptr<std::byte[]>(new std::byte[bytes.size()]);
  std::memcpy(buffer.get(), bytes.data(), bytes.size());
  return {buffer.get(), bytes.size(), buffer};
}
Payload Whole(absl::string_view bytes) {
  Payload out;
  out.Append(Owned(bytes));
  return out;
}
Payload Split(absl::string_view bytes, size_t at) {
  Payload out;
  out.Append(Owned(bytes.substr(0, at)));
  out.Append(Owned(bytes.substr(at)));
  return out;
}
std::string Text(const Payload& payload) {
  std::string out(payload.size(), '\0');
  payload.CopyTo(out.data());
  return out;
}
std::string Text(const EncodedMessage& message) { return message.header + Text(message.payload); }

class Draws {
 public:
  explicit Draws(uint64_t trial) : stream_(7, Purpose::kTest, trial, 0) {}
  uint32_t Next32() { return static_cast<uint32_t>(stream_.Bits64(next_++)); }

 private:
  RandomStream stream_;
  uint64_t next_ = 0;
};

Request FullRequest() {
  Request request;
  request.envelope = {1, 0x1122334455667788, RunId(77), Generation(3), 9};
  request.id = 300;
  PushFrame& push = request.push.emplace();
  push.rank = Rank(4);
  push.span = 2;
  push.incarnation = {Generation(3), 12};
  push.clock = Clock(1000);
  push.read_clock = Clock(999);
  push.weight = {32, 31.5};
  push.dense = {{BlockId{TensorId(0), 0}, 0}, {BlockId{TensorId(1), 700}, 0}};
  push.sparse = {{BlockId{TensorId(2), 1023}, 3, 0}};
  push.contributions = 3;
  PullFrame& pull = request.pull.emplace();
  pull.rank = Rank(5);
  pull.clock = Clock(1001);
  pull.dense = {{BlockId{TensorId(1), 2}, 0}};
  pull.sparse = {{BlockId{TensorId(2), 8}, 1, 0}};
  pull.ungated = true;
  request.expected_of = {Rank(4), Rank(500)};
  request.payload.Append(Owned("thirteen byte"));
  request.payload.Append(Owned(std::string(300, 'x')));
  return request;
}

Reply FullReply() {
  Reply reply;
  reply.envelope = {1, 5, RunId(77), Generation(3), 9};
  reply.id = 1ull << 40;
  reply.ack = PushAck{Outcome::kTooEarly, Rank(3), 1, Clock(8), 2, true, Clock(7), "clock 7 of rank 3 is missing"};
  reply.dense = {{BlockId{TensorId(0), 1}, 12}};
  reply.sparse = {{BlockId{TensorId(1), 4}, 2, 13}};
  reply.pull_done = true;
  reply.done_below = Clock(11);
  reply.waiting = WaitingNotice{{Rank(1), Rank(2)}, absl::Milliseconds(2500), "clock 8 of rank 1"};
  reply.refusal = absl::InvalidArgumentError("no tensor 9");
  reply.expected = {Clock(8), Clock(1)};
  reply.payload.Append(Owned("payload"));
  return reply;
}

void ExpectEqual(const Request& a, const Request& b) {
  EXPECT_EQ(a.envelope, b.envelope);
  EXPECT_EQ(a.id, b.id);
  ASSERT_EQ(a.push.has_value(), b.push.has_value());
  if (a.push.has_value()) {
    EXPECT_EQ(a.push->rank, b.push->rank);
    EXPECT_EQ(a.push->span, b.push->span);
    EXPECT_EQ(a.push->incarnation, b.push->incarnation);
    EXPECT_EQ(a.push->clock, b.push->clock);
    EXPECT_EQ(a.push->read_clock, b.push->read_clock);
    EXPECT_EQ(a.push->weight, b.push->weight);
    EXPECT_EQ(a.push->dense, b.push->dense);
    EXPECT_EQ(a.push->sparse, b.push->sparse);
    EXPECT_EQ(a.push->contributions, b.push->contributions);
  }
  ASSERT_EQ(a.pull.has_value(), b.pull.has_value());
  if (a.pull.has_value()) {
    EXPECT_EQ(a.pull->rank, b.pull->rank);
    EXPECT_EQ(a.pull->clock, b.pull->clock);
    EXPECT_EQ(a.pull->all_dense, b.pull->all_dense);
    EXPECT_EQ(a.pull->dense, b.pull->dense);
    EXPECT_EQ(a.pull->sparse, b.pull->sparse);
    EXPECT_EQ(a.pull->ungated, b.pull->ungated);
  }
  EXPECT_EQ(a.expected_of, b.expected_of);
  EXPECT_EQ(Text(a.payload), Text(b.payload));
}

void ExpectEqual(const Reply& a, const Reply& b) {
  EXPECT_EQ(a.envelope, b.envelope);
  EXPECT_EQ(a.id, b.id);
  ASSERT_EQ(a.ack.has_value(), b.ack.has_value());
  if (a.ack.has_value()) {
    EXPECT_EQ(a.ack->outcome, b.ack->outcome);
    EXPECT_EQ(a.ack->rank, b.ack->rank);
    EXPECT_EQ(a.ack->span, b.ack->span);
    EXPECT_EQ(a.ack->clock, b.ack->clock);
    EXPECT_EQ(a.ack->admitted, b.ack->admitted);
    EXPECT_EQ(a.ack->complete, b.ack->complete);
    EXPECT_EQ(a.ack->expected, b.ack->expected);
    EXPECT_EQ(a.ack->message, b.ack->message);
  }
  EXPECT_EQ(a.dense, b.dense);
  EXPECT_EQ(a.sparse, b.sparse);
  EXPECT_EQ(a.pull_done, b.pull_done);
  EXPECT_EQ(a.done_below, b.done_below);
  ASSERT_EQ(a.waiting.has_value(), b.waiting.has_value());
  if (a.waiting.has_value()) {
    EXPECT_EQ(a.waiting->ranks, b.waiting->ranks);
    EXPECT_EQ(a.waiting->since, b.waiting->since);
    EXPECT_EQ(a.waiting->why, b.waiting->why);
  }
  EXPECT_EQ(a.refusal, b.refusal);
  EXPECT_EQ(a.expected, b.expected);
  EXPECT_EQ(Text(a.payload), Text(b.payload));
}

TEST(CodecTest, RequestIsWhatTheGeneratedClassWrites) {
  const std::string bytes = Text(Encode(FullRequest()));
  v1::ExchangeRequest message;
  ASSERT_TRUE(message.ParseFromString(bytes));
  EXPECT_EQ(message.SerializeAsString(), bytes);
  EXPECT_EQ(message.payload().size(), 313u);
  EXPECT_EQ(message.push().weight(1), 31.5);
  EXPECT_EQ(message.push().sparse(0).slot(), 1023u);
  EXPECT_EQ(message.pull().clock(), 1001u);
  EXPECT_EQ(message.expected_of(1), 500u);
  EXPECT_EQ(message.envelope().job(), 0x1122334455667788u);
}

TEST(CodecTest, ReplyIsWhatTheGeneratedClassWrites) {
  const std::string bytes = Text(Encode(FullReply()));
  v1::ExchangeReply message;
  ASSERT_TRUE(message.ParseFromString(bytes));
  EXPECT_EQ(message.SerializeAsString(), bytes);
  EXPECT_EQ(message.ack().outcome(), v1::TOO_EARLY);
  EXPECT_EQ(message.refusal().code(), 3);
  EXPECT_EQ(message.payload(), "payload");
}

TEST(CodecTest, SmallestMessages) {
  Request request;
  request.envelope.protocol = 0;
  EXPECT_EQ(Text(Encode(request)), std::string("\x0a\x00", 2));  // an empty envelope
  Request back = FullRequest();
  ASSERT_TRUE(Decode(Payload(), &back).ok());
  ExpectEqual(back, request);
  Reply reply = FullReply();
  ASSERT_TRUE(Decode(Payload(), &reply).ok());
  EXPECT_FALSE(reply.ack.has_value());
  EXPECT_TRUE(reply.payload.empty());
}

// Every kind of what a primary passes on, and the confirmation.
TEST(CodecTest, WhatReplicasSay) {
  ReplicaFrame frame;
  frame.view = 7;
  frame.sequence = uint64_t{1} << 40;
  std::vector<ReplicaFrame> frames = {frame, frame, frame, frame, frame};
  ReplicaImage& image = frames[1].image.emplace();
  image.id = BlockId{TensorId(2), 1023};
  image.version = 9;
  image.steps = 8;
  image.marks = {9, 10};
  image.keys = 3;
  image.state_slots = 2;
  image.more = true;
  image.skipped = {4};
  image.order = std::string("\0order", 6);
  image.ahead = {0, 2, 1};
  frames[2].engine = std::string("\xff\0state", 7);
  frames[3].engine = "";
  frames[4].fence = ReplicaFence{Rank(3), {Generation(5), 6}};
  for (const ReplicaFrame& sent : frames) {
    Request request;
    request.id = 1;
    request.replica = sent;
    request.payload = Whole("rows");
    const std::string bytes = Text(Encode(request));
    Request got;
    ASSERT_TRUE(Decode(Whole(bytes), &got).ok());
    EXPECT_EQ(got.replica, sent);
    EXPECT_EQ(Text(got.payload), "rows");
    v1::ExchangeRequest message;
    ASSERT_TRUE(message.ParseFromString(bytes));
    EXPECT_EQ(message.replica().view(), 7u);
    EXPECT_EQ(message.replica().has_image(), sent.image.has_value());
    EXPECT_EQ(message.replica().has_engine(), sent.engine.has_value());
    EXPECT_EQ(message.replica().has_fence(), sent.fence.has_value());
  }
  Request none, got;
  got.replica = frame;
  ASSERT_TRUE(Decode(Whole(Text(Encode(none))), &got).ok());
  EXPECT_FALSE(got.replica.has_value());

  Reply reply, came;
  reply.replicated = frame.sequence;
  ASSERT_TRUE(Decode(Whole(Text(Encode(reply))), &came).ok());
  EXPECT_EQ(came.replicated, frame.sequence);
}

TEST(CodecTest, EverySplitDecodesTheSame) {
  const Request request = FullRequest();
  const std::string bytes = Text(Encode(request));
  for (size_t at = 0; at <= bytes.size(); ++at) {
    Request back;
    ASSERT_TRUE(Decode(Split(bytes, at), &back).ok()) << at;
    ExpectEqual(back, request);
  }
  const Reply reply = FullReply();
  const std::string reply_bytes = Text(Encode(reply));
  for (size_t at = 0; at <= reply_bytes.size(); ++at) {
    Reply back;
    ASSERT_TRUE(Decode(Split(reply_bytes, at), &back).ok()) << at;
    ExpectEqual(back, reply);
  }
  Payload bytewise;
  for (char c : bytes) bytewise.Append(Owned(absl::string_view(&c, 1)));
  Request back;
  ASSERT_TRUE(Decode(bytewise, &back).ok());
  ExpectEqual(back, request);
}

TEST(CodecTest, PayloadIsSharedNotCopied) {
  Request request;
  auto owner = std::make_shared<std::vector<float>>(1000, 1.5f);
  request.payload.Append(owner->data(), 4000, owner);
  const EncodedMessage encoded = Encode(request);
  ASSERT_EQ(encoded.payload.pieces().size(), 1u);
  EXPECT_EQ(static_cast<const void*>(encoded.payload.pieces()[0].data), owner->data());
  EXPECT_EQ(owner.use_count(), 3);

  Payload received = Whole(Text(encoded));
  std::weak_ptr<const void> slice = received.pieces()[0].owner;
  const std::byte* base = received.pieces()[0].data;
  Request back;
  ASSERT_TRUE(Decode(received, &back).ok());
  received = Payload();
  EXPECT_FALSE(slice.expired());
  EXPECT_EQ(back.payload.pieces()[0].data, base + encoded.header.size());
  back = Request();
  EXPECT_TRUE(slice.expired());
}

// A field nobody knows, as group, varint, fixed32, fixed64 and bytes.
std::string UnknownFields() {
  const std::string bytes(
      "\xa3\x06\xa8\x06\x05\xa4\x06"  // group 100 { 101: 5 }
      "\xb0\x06\x7f"                  // 102: 127
      "\xbd\x06"
      "abcd"  // 103, fixed32
      "\xc1\x06"
      "abcdefgh"          // 104, fixed64
      "\xca\x06\x03xyz",  // 105, bytes
      7 + 3 + 6 + 10 + 6);
  v1::ExchangeRequest message;
  EXPECT_TRUE(message.ParseFromString(bytes));
  return bytes;
}

TEST(CodecTest, AnyOrderTwicePayloadAndUnknownFieldsAsProtobufDoes) {
  const Request request = FullRequest();
  const EncodedMessage encoded = Encode(request);
  const size_t tag = encoded.header.size() - 3;  // tag, two bytes of length
  const std::string rest = encoded.header.substr(0, tag);
  const std::string payload = encoded.header.substr(tag) + Text(encoded.payload);
  const std::string other_payload = "\x7a\x05wrong";
  const std::string payload_as_number("\x78\x05", 2);  // field 15 with another wire type: unknown
  v1::ExchangeRequest more;
  more.mutable_pull()->set_all_dense(true);
  for (const std::string& bytes :
       {payload + rest, other_payload + rest + payload, rest + other_payload + payload,
        UnknownFields() + rest + payload,
        rest + UnknownFields() + other_payload + UnknownFields() + payload + UnknownFields(),
        payload_as_number + rest + payload + payload_as_number, rest + payload + more.SerializeAsString()}) {
    v1::ExchangeRequest message;
    ASSERT_TRUE(message.ParseFromString(bytes));
    for (size_t at = 0; at < bytes.size(); ++at) {
      Request back;
      ASSERT_TRUE(Decode(Split(bytes, at), &back).ok());
      EXPECT_EQ(Text(back.payload), message.payload());
      EXPECT_EQ(back.push->weight, request.push->weight);
      EXPECT_EQ(back.pull->all_dense, message.pull().all_dense());
      EXPECT_EQ(back.pull->dense, request.pull->dense);
    }
  }
}

template <typename Struct, typename Message>
void Torture(const std::string& good) {
  // The payload may be cut off whole: protobuf has no end mark. Any other truncation must fail where the generated
  // class fails, and the two must agree on every flipped byte as far as the walk allows.
  size_t refused = 0, agreed = 0;
  for (size_t n = 0; n < good.size(); ++n) {
    const std::string cut = good.substr(0, n);
    Struct out;
    Message message;
    EXPECT_EQ(Decode(Whole(cut), &out).ok(), message.ParseFromString(cut)) << "cut to " << n;
  }
  for (uint64_t i = 0; i < 20000; ++i) {
    Draws random(i);
    std::string bytes = good;
    for (uint32_t flips = 1 + random.Next32() % 3; flips > 0; --flips) {
      bytes[random.Next32() % bytes.size()] ^= static_cast<char>(1 + random.Next32() % 255);
    }
    Struct out;
    Message message;
    const bool ours = Decode(Split(bytes, random.Next32() % bytes.size()), &out).ok();
    const bool theirs = message.ParseFromString(bytes);
    if (!ours) ++refused;
    if (ours == theirs) ++agreed;
    if (ours) {
      EXPECT_TRUE(theirs);
      EXPECT_EQ(Text(out.payload), message.payload());
      EXPECT_EQ(out.id, message.request());
    }
  }
  EXPECT_GT(refused, 1000u);
  EXPECT_GT(agreed, 15000u);
}

TEST(CodecTest, BrokenBytesNeverCrash) {
  google::protobuf::LogSilencer quiet;
  Torture<Request, v1::ExchangeRequest>(Text(Encode(FullRequest())));
  Torture<Reply, v1::ExchangeReply>(Text(Encode(FullReply())));
}

TEST(CodecTest, RandomBytesNeverCrash) {
  for (uint64_t i = 0; i < 20000; ++i) {
    Draws random(1000000 + i);
    std::string bytes(random.Next32() % 64, '\0');
    for (char& c : bytes) c = static_cast<char>(random.Next32());
    Request request;
    Reply reply;
    v1::ExchangeRequest message;
    if (Decode(Whole(bytes), &request).ok()) {
      EXPECT_TRUE(message.ParseFromString(bytes));
    }
    (void)Decode(Whole(bytes), &reply);
  }
}

TEST(CodecTest, LengthsAreNotTrusted) {
  Request out;
  const std::string huge(
      "\x7a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
      "abc",
      13);
  const absl::Status status = Decode(Whole(huge), &out);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "malformed message at byte 10: a field of 9223372036854775807 bytes where 3 are left");
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += "\xa3\x06";
  EXPECT_EQ(Decode(Whole(deep), &out).code(), absl::StatusCode::kInvalidArgument);
}

TEST(CodecTest, UnknownKindsAreRefusedByName) {
  v1::ExchangeRequest message;
  message.mutable_push()->set_rank(6);
  message.mutable_push()->set_kind(v1::DELTA);
  Request out;
  EXPECT_EQ(Decode(Whole(message.SerializeAsString()), &out).message(),
            "push of rank 6: expected kind 0 (GRADIENT), encoding 0 to 2, came 1, 0");
}

TEST(SharedPayloadCodecTest, ThePayloadsPlaceIsInTheMessageInItsStead) {
  const std::string bytes(5000, 'x');
  Request request;
  request.id = 3;
  request.payload.Append(bytes.data(), bytes.size(), nullptr);
  Reply reply;
  reply.payload = request.payload;
  uint32_t asked = 0;
  const SharedPayloads shared = [&](uint32_t slot, uint64_t size, Payload* out) {
    ++asked;
    if (slot != 7) return absl::InvalidArgumentError("another slot");
    out->Append(request.payload.Sub(0, size));
    return absl::OkStatus();
  };
  const std::string sent = Text(Encode(request, 7)), answered = Text(Encode(reply, 7));
  EXPECT_LT(sent.size(), 100u);
  Request came;
  ASSERT_TRUE(Decode(Whole(sent), &came, &shared).ok());
  EXPECT_EQ(came.id, 3u);
  EXPECT_EQ(came.payload.size(), bytes.size());
  Reply back;
  ASSERT_TRUE(Decode(Whole(answered), &back, &shared).ok());
  EXPECT_EQ(back.payload.pieces()[0].data, request.payload.pieces()[0].data) << "not copied";
  EXPECT_EQ(asked, 2u);

  EXPECT_EQ(Decode(Whole(sent), &came).message(), "the payload lies in shared memory, of which this stream has none");
  EXPECT_EQ(Decode(Whole(Text(Encode(request, 8))), &came, &shared).message(), "another slot");
  const std::string both = sent + std::string("\x7a\x01y", 3);  // field 15, one byte
  EXPECT_EQ(Decode(Whole(both), &came, &shared).message(), "a payload both in the message and in shared memory");
  ASSERT_TRUE(Decode(Whole(Text(Encode(request))), &came, &shared).ok());
  EXPECT_EQ(asked, 3u) << "payloads in messages are as ever";
}

}  // namespace
}  // namespace descent
