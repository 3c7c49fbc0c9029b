#include "common/wire/codec.h"

#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "descent/v1/parameter.pb.h"

namespace descent {
namespace {

constexpr uint32_t kPayloadField = 15;
constexpr size_t kMaxGroupDepth = 100;  // as protobuf's own parser

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kGroup = 3, kEndGroup = 4, kFixed32 = 5 };

absl::Status Malformed(size_t at, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed message at byte ", at, ": ", what));
}

// Walks a message's top-level fields over pieces of any size.
class FieldWalker {
 public:
  explicit FieldWalker(const Payload& bytes) : bytes_(bytes), size_(bytes.size()) {}

  size_t position() const { return position_; }
  bool done() const { return position_ == size_; }

  absl::Status Varint(uint64_t* out) {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (position_ == size_) return Malformed(position_, "ends within a number");
      const Payload::Piece& piece = bytes_.pieces()[piece_];
      const auto byte = static_cast<uint8_t>(piece.data[offset_]);
      ++position_;
      if (++offset_ == piece.size) {
        ++piece_;
        offset_ = 0;
      }
      if (shift < 63 || byte <= 1) value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) {
        *out = value;
        return absl::OkStatus();
      }
    }
    return Malformed(position_, "a number of more than 10 bytes");
  }

  absl::Status Skip(uint64_t n) {
    if (n > size_ - position_) {
      return Malformed(position_, absl::StrCat("a field of ", n, " bytes where ", size_ - position_, " are left"));
    }
    position_ += n;
    while (n > 0) {
      const size_t here = bytes_.pieces()[piece_].size - offset_;
      if (n < here) {
        offset_ += n;
        return absl::OkStatus();
      }
      n -= here;
      ++piece_;
      offset_ = 0;
    }
    return absl::OkStatus();
  }

  absl::Status Tag(uint32_t* field, uint32_t* type) {
    const size_t at = position_;
    uint64_t tag = 0;
    DESCENT_RETURN_IF_ERROR(Varint(&tag));
    if (tag > UINT32_MAX || tag >> 3 == 0) return Malformed(at, "no field has this tag");
    *field = static_cast<uint32_t>(tag >> 3);
    *type = static_cast<uint32_t>(tag & 7);
    return absl::OkStatus();
  }

  // The value behind a tag; a length-delimited one is skipped and its place told.
  absl::Status Value(uint32_t field, uint32_t type, size_t* begin, size_t* length) {
    absl::InlinedVector<uint32_t, 4> groups;
    while (true) {
      uint64_t number = 0;
      switch (type) {
        case kVarint:
          DESCENT_RETURN_IF_ERROR(Varint(&number));
          break;
        case kFixed64:
          DESCENT_RETURN_IF_ERROR(Skip(8));
          break;
        case kFixed32:
          DESCENT_RETURN_IF_ERROR(Skip(4));
          break;
        case kBytes:
          DESCENT_RETURN_IF_ERROR(Varint(&number));
          *begin = position_;
          *length = number;
          DESCENT_RETURN_IF_ERROR(Skip(number));
          break;
        case kGroup:
          if (groups.size() == kMaxGroupDepth) return Malformed(position_, "groups nested too deeply");
          groups.push_back(field);
          break;
        case kEndGroup:
          if (groups.empty() || groups.back() != field) return Malformed(position_, "a group's end without its start");
          groups.pop_back();
          break;
        default:
          return Malformed(position_, absl::StrCat("no such wire type: ", type));
      }
      if (groups.empty()) return absl::OkStatus();
      DESCENT_RETURN_IF_ERROR(Tag(&field, &type));
    }
  }

 private:
  const Payload& bytes_;
  const size_t size_;
  size_t position_ = 0;
  size_t piece_ = 0;
  size_t offset_ = 0;  // in that piece
};

void AppendVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void Put(const Envelope& from, v1::Envelope* to) {
  to->set_protocol(from.protocol);
  to->set_job(from.job);
  to->set_run(from.run.value);
  to->set_generation(from.generation.value);
  to->set_map_epoch(from.map_epoch);
}
Envelope Get(const v1::Envelope& from) {
  Envelope to;
  to.protocol = from.protocol();
  to.job = from.job();
  to.run = RunId(from.run());
  to.generation = Generation(from.generation());
  to.map_epoch = from.map_epoch();
  return to;
}

template <typename Repeated>
void Put(const std::vector<DensePart>& from, Repeated* to) {
  to->Reserve(static_cast<int>(from.size()));
  for (const DensePart& part : from) {
    v1::DenseId* id = to->Add();
    id->set_tensor(part.id.tensor.value);
    id->set_block(part.id.index);
    id->set_version(part.version);
  }
}
template <typename Repeated>
void Put(const std::vector<SparsePart>& from, Repeated* to) {
  to->Reserve(static_cast<int>(from.size()));
  for (const SparsePart& part : from) {
    v1::SparseId* id = to->Add();
    id->set_table(part.id.tensor.value);
    id->set_slot(part.id.index);
    id->set_keys(part.keys);
    id->set_version(part.version);
    id->set_steps(part.steps);
  }
}
std::vector<DensePart> Get(const google::protobuf::RepeatedPtrField<v1::DenseId>& from) {
  std::vector<DensePart> to;
  to.reserve(from.size());
  for (const v1::DenseId& id : from) to.push_back({BlockId{TensorId(id.tensor()), id.block()}, id.version()});
  return to;
}
std::vector<SparsePart> Get(const google::protobuf::RepeatedPtrField<v1::SparseId>& from) {
  std::vector<SparsePart> to;
  to.reserve(from.size());
  for (const v1::SparseId& id : from) {
    to.push_back({BlockId{TensorId(id.table()), id.slot()}, id.keys(), id.version(), id.steps()});
  }
  return to;
}

void Put(const ReplicaFrame& from, v1::ReplicaPart* to) {
  to->set_view(from.view);
  to->set_sequence(from.sequence);
  if (from.image.has_value()) {
    v1::BlockImage* image = to->mutable_image();
    image->set_tensor(from.image->id.tensor.value);
    image->set_index(from.image->id.index);
    image->set_version(from.image->version);
    image->set_steps(from.image->steps);
    image->mutable_mark()->Add(from.image->marks.begin(), from.image->marks.end());
    image->set_keys(from.image->keys);
    image->set_state_slots(from.image->state_slots);
    image->set_more(from.image->more);
    image->mutable_skipped()->Add(from.image->skipped.begin(), from.image->skipped.end());
    image->set_order(from.image->order);
    image->set_method(from.image->method);
    image->mutable_ahead()->Add(from.image->ahead.begin(), from.image->ahead.end());
  } else if (from.engine.has_value()) {
    to->mutable_engine()->set_state(*from.engine);
  } else if (from.fence.has_value()) {
    v1::ReplicaFence* fence = to->mutable_fence();
    fence->set_rank(from.fence->rank.value);
    fence->mutable_incarnation()->set_generation(from.fence->incarnation.generation.value);
    fence->mutable_incarnation()->set_number(from.fence->incarnation.number);
  } else if (from.scalars.has_value()) {
    *to->mutable_scalars() = ToMessage(*from.scalars);
  }
}
ReplicaFrame Get(const v1::ReplicaPart& from) {
  ReplicaFrame to;
  to.view = from.view();
  to.sequence = from.sequence();
  if (from.has_image()) {
    const v1::BlockImage& image = from.image();
    to.image.emplace();
    to.image->id = BlockId{TensorId(image.tensor()), image.index()};
    to.image->version = image.version();
    to.image->steps = image.steps();
    to.image->marks.assign(image.mark().begin(), image.mark().end());
    to.image->keys = image.keys();
    to.image->state_slots = image.state_slots();
    to.image->more = image.more();
    to.image->skipped.assign(image.skipped().begin(), image.skipped().end());
    to.image->order = image.order();
    to.image->method = image.method();
    to.image->ahead.assign(image.ahead().begin(), image.ahead().end());
  } else if (from.has_engine()) {
    to.engine = from.engine().state();
  } else if (from.has_fence()) {
    const v1::Incarnation& incarnation = from.fence().incarnation();
    to.fence = ReplicaFence{Rank(from.fence().rank()), {Generation(incarnation.generation()), incarnation.number()}};
  } else if (from.has_scalars()) {
    to.scalars = FromMessage(from.scalars());
  }
  return to;
}

template <typename Message>
EncodedMessage WithPayload(Message* message, const Payload& payload, std::optional<uint32_t> slot) {
  if (!slot.has_value()) return EncodeWithPayload(*message, payload);
  message->mutable_shared()->set_slot(*slot);
  message->mutable_shared()->set_size(payload.size());
  return EncodeWithPayload(*message, Payload());
}

template <typename Message>
absl::Status TakeShared(const Message& message, const SharedPayloads* shared, Payload* payload) {
  if (!message.has_shared()) return absl::OkStatus();
  if (shared == nullptr) {
    return absl::InvalidArgumentError("the payload lies in shared memory, of which this stream has none");
  }
  if (!payload->empty()) return absl::InvalidArgumentError("a payload both in the message and in shared memory");
  return (*shared)(message.shared().slot(), message.shared().size(), payload);
}

}  // namespace

EncodedMessage EncodeWithPayload(const google::protobuf::MessageLite& message, Payload payload) {
  EncodedMessage out;
  const size_t size = message.ByteSizeLong();
  out.header.reserve(size + 11);
  message.AppendToString(&out.header);
  if (!payload.empty()) {
    AppendVarint(kPayloadField << 3 | kBytes, &out.header);
    AppendVarint(payload.size(), &out.header);
    out.payload = std::move(payload);
  }
  return out;
}

absl::Status DecodeWithPayload(const Payload& bytes, google::protobuf::MessageLite* message, Payload* payload) {
  if (bytes.size() > INT32_MAX) return Malformed(0, absl::StrCat("it has ", bytes.size(), " bytes"));
  FieldWalker walker(bytes);
  // What is not payload, as runs of bytes; usually one, at the front.
  struct Run {
    size_t begin, size;
  };
  absl::InlinedVector<Run, 2> rest;
  size_t payload_begin = 0, payload_size = 0;
  while (!walker.done()) {
    const size_t start = walker.position();
    uint32_t field = 0, type = 0;
    DESCENT_RETURN_IF_ERROR(walker.Tag(&field, &type));
    size_t begin = 0, length = 0;
    DESCENT_RETURN_IF_ERROR(walker.Value(field, type, &begin, &length));
    if (field == kPayloadField && type == kBytes) {
      payload_begin = begin;
      payload_size = length;
    } else if (!rest.empty() && rest.back().begin + rest.back().size == start) {
      rest.back().size += walker.position() - start;
    } else {
      rest.push_back({start, walker.position() - start});
    }
  }
  *payload = bytes.Sub(payload_begin, payload_size);

  bool parsed;
  if (rest.empty()) {
    message->Clear();
    parsed = true;
  } else if (rest.size() == 1 && rest[0].begin + rest[0].size <= bytes.pieces()[0].size) {
    parsed = message->ParseFromArray(bytes.pieces()[0].data + rest[0].begin, static_cast<int>(rest[0].size));
  } else {
    size_t total = 0;
    for (const Run& run : rest) total += run.size;
    std::string joined(total, '\0');
    size_t at = 0;
    for (const Run& run : rest) {
      bytes.Sub(run.begin, run.size).CopyTo(joined.data() + at);
      at += run.size;
    }
    parsed = message->ParseFromString(joined);
  }
  if (!parsed) return absl::InvalidArgumentError(absl::StrCat("malformed ", message->GetTypeName()));
  return absl::OkStatus();
}

EncodedMessage Encode(const Request& request, std::optional<uint32_t> slot) {
  v1::ExchangeRequest message;
  Put(request.envelope, message.mutable_envelope());
  message.set_request(request.id);
  if (request.push.has_value()) {
    const PushFrame& from = *request.push;
    v1::PushPart* to = message.mutable_push();
    to->set_rank(from.rank.value);
    to->set_span(from.span);
    to->mutable_incarnation()->set_generation(from.incarnation.generation.value);
    to->mutable_incarnation()->set_number(from.incarnation.number);
    to->set_clock(from.clock.value);
    to->set_read_clock(from.read_clock.value);
    to->mutable_weight()->Add(from.weight.begin(), from.weight.end());
    Put(from.dense, to->mutable_dense());
    Put(from.sparse, to->mutable_sparse());
    to->set_contributions(from.contributions);
    to->set_encoding(static_cast<v1::Encoding>(from.encoding));
    to->set_read(from.read);
  }
  if (request.pull.has_value()) {
    const PullFrame& from = *request.pull;
    v1::PullPart* to = message.mutable_pull();
    to->set_rank(from.rank.value);
    to->set_clock(from.clock.value);
    to->set_all_dense(from.all_dense);
    Put(from.dense, to->mutable_dense());
    Put(from.sparse, to->mutable_sparse());
    to->set_ungated(from.ungated);
    to->set_averaged(from.averaged);
  }
  for (Rank rank : request.expected_of) message.add_expected_of(rank.value);
  if (request.replica.has_value()) Put(*request.replica, message.mutable_replica());
  return WithPayload(&message, request.payload, slot);
}

EncodedMessage Encode(const Reply& reply, std::optional<uint32_t> slot) {
  v1::ExchangeReply message;
  Put(reply.envelope, message.mutable_envelope());
  message.set_request(reply.id);
  if (reply.ack.has_value()) {
    const PushAck& from = *reply.ack;
    v1::PushAck* to = message.mutable_ack();
    to->set_outcome(static_cast<v1::Outcome>(from.outcome));
    to->set_rank(from.rank.value);
    to->set_span(from.span);
    to->set_clock(from.clock.value);
    to->set_admitted(from.admitted);
    to->set_complete(from.complete);
    to->set_expected_clock(from.expected.value);
    to->set_message(from.message);
  }
  Put(reply.dense, message.mutable_dense());
  Put(reply.sparse, message.mutable_sparse());
  message.set_pull_done(reply.pull_done);
  message.set_done_below(reply.done_below.value);
  if (reply.waiting.has_value()) {
    v1::Waiting* to = message.mutable_waiting();
    for (Rank rank : reply.waiting->ranks) to->add_rank(rank.value);
    to->set_seconds(absl::ToDoubleSeconds(reply.waiting->since));
    to->set_why(reply.waiting->why);
  }
  if (!reply.refusal.ok()) {
    v1::Refusal* to = message.mutable_refusal();
    to->set_code(static_cast<int>(reply.refusal.code()));
    to->set_message(std::string(reply.refusal.message()));
  }
  for (Clock clock : reply.expected) message.add_expected_clock(clock.value);
  message.set_replicated(reply.replicated);
  return WithPayload(&message, reply.payload, slot);
}

absl::Status Decode(const Payload& bytes, Request* out, const SharedPayloads* shared) {
  v1::ExchangeRequest message;
  DESCENT_RETURN_IF_ERROR(DecodeWithPayload(bytes, &message, &out->payload));
  DESCENT_RETURN_IF_ERROR(TakeShared(message, shared, &out->payload));
  out->envelope = Get(message.envelope());
  out->id = message.request();
  out->push.reset();
  if (message.has_push()) {
    const v1::PushPart& from = message.push();
    if (from.kind() != v1::GRADIENT || !v1::Encoding_IsValid(from.encoding())) {
      return absl::InvalidArgumentError(
          absl::StrCat("push of rank ", from.rank(), ": expected kind 0 (GRADIENT), encoding 0 to 2, came ",
                       static_cast<int>(from.kind()), ", ", static_cast<int>(from.encoding())));
    }
    PushFrame& to = out->push.emplace();
    to.encoding = static_cast<WireEncoding>(from.encoding());
    to.rank = Rank(from.rank());
    to.span = from.span() == 0 ? 1 : from.span();
    to.incarnation = Incarnation{Generation(from.incarnation().generation()), from.incarnation().number()};
    to.clock = Clock(from.clock());
    to.read_clock = Clock(from.read_clock());
    to.weight.assign(from.weight().begin(), from.weight().end());
    to.dense = Get(from.dense());
    to.sparse = Get(from.sparse());
    to.contributions = from.contributions();
    to.read = from.read();
  }
  out->pull.reset();
  if (message.has_pull()) {
    const v1::PullPart& from = message.pull();
    PullFrame& to = out->pull.emplace();
    to.rank = Rank(from.rank());
    to.clock = Clock(from.clock());
    to.all_dense = from.all_dense();
    to.dense = Get(from.dense());
    to.sparse = Get(from.sparse());
    to.ungated = from.ungated();
    to.averaged = from.averaged();
  }
  out->expected_of.clear();
  out->expected_of.reserve(message.expected_of_size());
  for (uint32_t rank : message.expected_of()) out->expected_of.push_back(Rank(rank));
  out->replica.reset();
  if (message.has_replica()) out->replica = Get(message.replica());
  return absl::OkStatus();
}

absl::Status Decode(const Payload& bytes, Reply* out, const SharedPayloads* shared) {
  v1::ExchangeReply message;
  DESCENT_RETURN_IF_ERROR(DecodeWithPayload(bytes, &message, &out->payload));
  DESCENT_RETURN_IF_ERROR(TakeShared(message, shared, &out->payload));
  out->envelope = Get(message.envelope());
  out->id = message.request();
  out->ack.reset();
  if (message.has_ack()) {
    const v1::PushAck& from = message.ack();
    if (from.outcome() < v1::APPLIED || from.outcome() > v1::TOO_EARLY) {
      return absl::InvalidArgumentError(
          absl::StrCat("ack of rank ", from.rank(), ": no such outcome: ", static_cast<int>(from.outcome())));
    }
    PushAck& to = out->ack.emplace();
    to.outcome = static_cast<Outcome>(from.outcome());
    to.rank = Rank(from.rank());
    to.span = from.span() == 0 ? 1 : from.span();
    to.clock = Clock(from.clock());
    to.admitted = from.admitted();
    to.complete = from.complete();
    to.expected = Clock(from.expected_clock());
    to.message = from.message();
  }
  out->dense = Get(message.dense());
  out->sparse = Get(message.sparse());
  out->pull_done = message.pull_done();
  out->done_below = Clock(message.done_below());
  out->waiting.reset();
  if (message.has_waiting()) {
    WaitingNotice& to = out->waiting.emplace();
    for (uint32_t rank : message.waiting().rank()) to.ranks.push_back(Rank(rank));
    const double seconds = message.waiting().seconds();
    if (!std::isfinite(seconds)) return absl::InvalidArgumentError("waiting.seconds is not finite");
    to.since = absl::Seconds(seconds);
    to.why = message.waiting().why();
  }
  out->refusal = absl::OkStatus();
  if (message.has_refusal()) {
    const int code = message.refusal().code();
    const bool known = code >= 1 && code <= 16;  // google.rpc.Code and absl::StatusCode are the same numbers
    out->refusal = absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
                                message.refusal().message());
  }
  out->expected.clear();
  out->expected.reserve(message.expected_clock_size());
  for (uint64_t clock : message.expected_clock()) out->expected.push_back(Clock(clock));
  out->replicated = message.replicated();
  return absl::OkStatus();
}

}  // namespace descent
