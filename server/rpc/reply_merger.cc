#include "server/rpc/reply_merger.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace descent {
namespace {

// A generous size of what is beside the payload.
constexpr uint64_t kBytesPerPart = 40;
constexpr uint64_t kBytesBeside = 4096;

}  // namespace

ReplyMerger::ReplyMerger(const Request& request, std::function<uint64_t(BlockId)> dense_bytes)
    : id_(request.id),
      wants_ack_(request.push.has_value()),
      wants_pull_(request.pull.has_value()),
      wants_expected_(!request.expected_of.empty()),
      dense_bytes_(std::move(dense_bytes)) {}

void ReplyMerger::Add(Reply reply) {
  answered_ = true;
  uint64_t dense = 0;
  for (const DensePart& part : reply.dense) dense += dense_bytes_(part.id);
  dense = std::min<uint64_t>(dense, reply.payload.size());
  merged_.payload.Append(reply.payload.Sub(0, dense));
  sparse_.Append(reply.payload.Sub(dense, reply.payload.size() - dense));
  merged_.dense.insert(merged_.dense.end(), reply.dense.begin(), reply.dense.end());
  merged_.sparse.insert(merged_.sparse.end(), reply.sparse.begin(), reply.sparse.end());
  if (reply.ack.has_value()) merged_.ack = std::move(reply.ack);
  if (reply.pull_done) merged_.pull_done = true;
  // Each part is at least as new as the least of them.
  if (!reply.dense.empty() || !reply.sparse.empty() || reply.pull_done) {
    merged_.done_below =
        merged_.done_below.value == 0 ? reply.done_below : std::min(merged_.done_below, reply.done_below);
  }
  if (reply.waiting.has_value()) merged_.waiting = std::move(reply.waiting);
  if (merged_.refusal.ok()) merged_.refusal = std::move(reply.refusal);
  if (!reply.expected.empty()) merged_.expected = std::move(reply.expected);
}

bool ReplyMerger::complete() const {
  if (!answered_) return false;
  if (!merged_.refusal.ok() || merged_.waiting.has_value()) return true;
  return (!wants_ack_ || merged_.ack.has_value()) && (!wants_pull_ || merged_.pull_done) &&
         (!wants_expected_ || !merged_.expected.empty());
}

Reply ReplyMerger::Take(const Envelope& envelope) {
  Reply out = std::move(merged_);
  merged_ = Reply();
  out.envelope = envelope;
  out.id = id_;
  out.payload.Append(sparse_);
  sparse_ = Payload();
  const uint64_t size = out.payload.size() + kBytesPerPart * (out.dense.size() + out.sparse.size()) + kBytesBeside;
  if (size > kMaxMessageBytes) {
    Reply refusal;
    refusal.envelope = envelope;
    refusal.id = id_;
    refusal.ack = std::move(out.ack);  // the push is done nevertheless
    refusal.refusal = absl::ResourceExhaustedError(
        absl::StrCat("the pull's answer has ", out.payload.size(), " bytes and a message at most ", kMaxMessageBytes,
                     "; list fewer blocks or keys in one call, or use the stream"));
    return refusal;
  }
  return out;
}

}  // namespace descent
