#include "server/node/request_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace descent {

namespace {

template <typename T>
absl::Status Compare(absl::string_view what, T expected, T got) {
  if (expected == got) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(what, " mismatch: this server has ", expected, ", the request ", got));
}

}  // namespace

RequestCheck::RequestCheck(const BlockIndex* index, uint32_t ranks)
    : index_(index), ranks_(ranks), stamp_(index->size(), 0) {}

absl::Status RequestCheck::CheckEnvelope(const Envelope& expected, const Envelope& got, Outcome* outcome) {
  *outcome = Outcome::kRefused;
  DESCENT_RETURN_IF_ERROR(Compare("protocol", expected.protocol, got.protocol));
  DESCENT_RETURN_IF_ERROR(Compare("job fingerprint", expected.job, got.job));
  DESCENT_RETURN_IF_ERROR(Compare("run", expected.run.value, got.run.value));
  *outcome = Outcome::kStaleGeneration;
  if (absl::Status s = Compare("generation", expected.generation.value, got.generation.value); !s.ok()) {
    return absl::AbortedError(s.message());
  }
  *outcome = Outcome::kWrongMap;
  return Compare("map epoch", expected.map_epoch, got.map_epoch);
}

absl::Status RequestCheck::Once(uint32_t local) {
  if (stamp_[local] == lists_) {
    return absl::InvalidArgumentError(absl::StrCat(index_->Name(index_->id(local)), " is named twice in one message"));
  }
  stamp_[local] = lists_;
  return absl::OkStatus();
}

absl::Status RequestCheck::Check(const Request& request) {
  checked_.push_blocks.clear();
  checked_.push_bytes.clear();
  checked_.pull_dense.clear();
  checked_.push_size = 0;
  uint64_t key_bytes = 0;
  if (!request.push && !request.pull && request.expected_of.empty()) {
    return absl::InvalidArgumentError("the request asks for nothing");
  }
  if (request.replica) {
    return absl::FailedPreconditionError(
        absl::StrCat("a primary's request, of view ", request.replica->view, ", came to a server that is no backup"));
  }
  if (request.push) DESCENT_RETURN_IF_ERROR(CheckPush(*request.push));
  if (request.pull) DESCENT_RETURN_IF_ERROR(CheckPull(*request.pull, &key_bytes));
  if (checked_.push_size + key_bytes != request.payload.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the payload has ", request.payload.size(),
                                                   " bytes, its parts make ", checked_.push_size + key_bytes));
  }
  for (Rank rank : request.expected_of) {
    if (rank.value >= ranks_) {
      return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value, ": the job has ", ranks_, " ranks"));
    }
  }
  return absl::OkStatus();
}

absl::Status RequestCheck::CheckPush(const PushFrame& push) {
  if (push.rank.value >= ranks_) {
    return absl::InvalidArgumentError(
        absl::StrCat("push of rank ", push.rank.value, ": the job has ", ranks_, " ranks"));
  }
  if (push.span == 0 || (push.span & (push.span - 1)) != 0 || push.rank.value % push.span != 0) {
    return absl::InvalidArgumentError(absl::StrCat("push of rank ", push.rank.value, ", span ", push.span,
                                                   ": a span is a power of two and its first rank a multiple of it"));
  }
  const uint32_t present = std::min(push.span, ranks_ - push.rank.value);
  if (push.weight.size() != present) {
    return absl::InvalidArgumentError(absl::StrCat("push of rank ", push.rank.value, ", span ", push.span, ": ",
                                                   push.weight.size(), " weights for ", present, " ranks"));
  }
  for (double weight : push.weight) {
    if (!std::isfinite(weight) || weight < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("push of rank ", push.rank.value, ": weight ", weight, " is not finite and >= 0"));
    }
  }
  if (push.encoding != index_->encoding()) {
    return absl::InvalidArgumentError(absl::StrCat("push of rank ", push.rank.value, ": its numbers have encoding ",
                                                   static_cast<int>(push.encoding), ", expected the job's, ",
                                                   static_cast<int>(index_->encoding())));
  }
  ++lists_;
  // The sum of sparse parts is capped, so that no list of them can wrap it round.
  constexpr uint64_t kTooMuch = uint64_t{1} << 62;
  uint64_t size = 0;
  for (const DensePart& part : push.dense) {
    DESCENT_ASSIGN_OR_RETURN(const uint32_t local, index_->Find(part.id, false));
    DESCENT_RETURN_IF_ERROR(Once(local));
    checked_.push_blocks.push_back(local);
    checked_.push_bytes.push_back(index_->bytes(local));
    size += index_->bytes(local);
  }
  for (const SparsePart& part : push.sparse) {
    DESCENT_ASSIGN_OR_RETURN(const uint32_t local, index_->Find(part.id, true));
    DESCENT_RETURN_IF_ERROR(Once(local));
    const uint64_t bytes = uint64_t{part.keys} * (8 + index_->bytes(local));
    checked_.push_blocks.push_back(local);
    checked_.push_bytes.push_back(bytes);
    size = std::min(size + bytes, kTooMuch);
  }
  checked_.push_size = size;
  return absl::OkStatus();
}

absl::Status RequestCheck::CheckPull(const PullFrame& pull, uint64_t* key_bytes) {
  if (pull.rank.value >= ranks_) {
    return absl::InvalidArgumentError(
        absl::StrCat("pull of rank ", pull.rank.value, ": the job has ", ranks_, " ranks"));
  }
  if (pull.all_dense && !pull.dense.empty()) {
    return absl::InvalidArgumentError("a pull names either all dense blocks or single ones, not both");
  }
  ++lists_;
  for (const DensePart& part : pull.dense) {
    DESCENT_ASSIGN_OR_RETURN(const uint32_t local, index_->Find(part.id, false));
    DESCENT_RETURN_IF_ERROR(Once(local));
    checked_.pull_dense.push_back(local);
  }
  for (const SparsePart& part : pull.sparse) {
    DESCENT_ASSIGN_OR_RETURN(const uint32_t local, index_->Find(part.id, true));
    if (uint64_t rows = uint64_t{part.keys} * index_->bytes(local); rows > kMaxPulledPartBytes) {
      return absl::InvalidArgumentError(absl::StrCat("pull of ", index_->Name(part.id), ": ", part.keys, " rows make ",
                                                     rows, " bytes, one part holds ", kMaxPulledPartBytes));
    }
    *key_bytes += uint64_t{part.keys} * 8;  // below 2^22 each
  }
  return absl::OkStatus();
}

PartFault CheckPart(const BlockIndex& index, const Geometry& geometry, uint32_t local, uint32_t keys,
                    const std::byte* data, size_t size) {
  const BlockId id = index.id(local);
  uint64_t previous = 0;
  for (uint32_t k = 0; k < keys; ++k) {
    uint64_t key;
    std::memcpy(&key, data + size_t{k} * 8, 8);
    if (k > 0 && key <= previous) {
      return {absl::InvalidArgumentError(
          absl::StrCat(index.Name(id), ": key ", key, " after ", previous, ": keys are unique and ascending"))};
    }
    if (geometry.slot(key) != id.index) {
      return {
          absl::InvalidArgumentError(absl::StrCat(index.Name(id), ": key ", key, " is of slot ", geometry.slot(key)))};
    }
    previous = key;
  }
  const size_t head = size_t{keys} * 8;
  const size_t floats = (size - head) / 4;
  for (size_t i = 0; i < floats; ++i) {
    float value;
    std::memcpy(&value, data + head + i * 4, 4);
    if (!std::isfinite(value)) {
      return {absl::InvalidArgumentError(absl::StrCat(index.Name(id), ", element ", i, ": ",
                                                      std::isnan(value) ? "nan"
                                                      : value > 0       ? "inf"
                                                                        : "-inf")),
              true};
    }
  }
  return {};
}

}  // namespace descent
