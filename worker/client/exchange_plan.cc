#include "worker/client/exchange_plan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/wire/read_vector.h"

static_assert(std::endian::native == std::endian::little, "payloads are little-endian and sent as they lie in memory");

namespace descent {
namespace {

constexpr uint64_t kPartHeader = 16;        // of one DenseId or SparseId on the wire, about
constexpr uint64_t kGatherBytes = 4 << 10;  // a smaller sparse part costs less copied than as pieces of its own
constexpr uint64_t kKeyBytes = sizeof(uint64_t);

}  // namespace

ModelLayout::ModelLayout(std::vector<TensorSpec> s, Geometry g, PartitionMap m, size_t max_payload, WireEncoding e)
    : specs(std::move(s)),
      geometry(g),
      map(std::move(m)),
      max_payload_bytes(max_payload),
      encoding(e),
      float_bytes(BytesPerFloat(e)),
      dense(map.servers) {
  for (uint32_t t = 0; t < specs.size(); ++t) {
    if (specs[t].sparse) continue;
    const uint32_t blocks = geometry.blocks(specs[t]);
    for (uint32_t b = 0; b < blocks; ++b) {
      const BlockId id{TensorId(t), b};
      dense[map.server(id).value].push_back({id, geometry.block_begin(b), geometry.block_size(specs[t], b)});
    }
  }
}

size_t WriteParts(const Payload& payload, const std::vector<PartWrite>& writes, WireEncoding encoding) {
  PayloadReader reader(payload);
  size_t at = 0, copied = 0;
  for (const PartWrite& write : writes) {
    reader.Skip(write.offset - at);
    if (encoding == WireEncoding::kF32) {
      reader.CopyTo(write.to, write.bytes);
    } else {
      std::array<std::byte, 4096> halves;
      for (size_t done = 0; done < write.bytes; done += halves.size()) {
        const size_t bytes = std::min(halves.size(), write.bytes - done);
        reader.CopyTo(halves.data(), bytes);
        DecodeHalves(encoding, bytes / 2, halves.data(), write.to + done / 2);
      }
    }
    at = write.offset + write.bytes;
    copied += write.bytes;
  }
  return copied;
}

absl::StatusOr<std::shared_ptr<const ExchangePlan>> ExchangePlan::Make(std::shared_ptr<const ModelLayout> layout,
                                                                       const std::optional<PushSpec>& push,
                                                                       const std::optional<PullSpec>& pull) {
  auto plan = std::make_shared<ExchangePlan>();
  plan->layout_ = std::move(layout);
  plan->legs_.resize(plan->layout_->map.servers);
  for (uint32_t s = 0; s < plan->legs_.size(); ++s) plan->legs_[s].server = ServerId(s);
  // The pull first: its keys ride in the first push message, which leaves room for them.
  if (pull.has_value()) DESCENT_RETURN_IF_ERROR(plan->AddPull(*pull));
  if (push.has_value()) DESCENT_RETURN_IF_ERROR(plan->AddPush(*push));
  std::erase_if(plan->legs_, [](const Leg& leg) { return !leg.push && leg.chunks == 0; });
  return std::shared_ptr<const ExchangePlan>(std::move(plan));
}

absl::Status ExchangePlan::CheckTable(TensorId table, absl::Span<const uint64_t> keys, std::vector<bool>* seen) const {
  if (table.value >= layout_->specs.size() || !layout_->specs[table.value].sparse) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", table.value, " is no sparse table of this model"));
  }
  const std::string& name = layout_->specs[table.value].name;
  if ((*seen)[table.value]) return absl::InvalidArgumentError(absl::StrCat("table '", name, "' is named twice"));
  (*seen)[table.value] = true;
  uint32_t before = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    const uint32_t here = layout_->geometry.slot(keys[i]);
    const uint32_t last = std::exchange(before, here);
    if (i > 0 && (last > here || (last == here && keys[i - 1] >= keys[i]))) {
      return absl::InvalidArgumentError(absl::StrCat("table '", name, "': key ", keys[i], " of slot ", here,
                                                     " follows key ", keys[i - 1], " of slot ", last,
                                                     "; expected unique keys in the order (slot, key)"));
    }
  }
  return absl::OkStatus();
}

namespace {

absl::Status TooLarge(const ModelLayout& layout, BlockId id, size_t keys, uint64_t bytes, size_t most) {
  return absl::ResourceExhaustedError(absl::StrCat("table '", layout.specs[id.tensor.value].name, "': slot ", id.index,
                                                   " has ", keys, " keys of one batch, ", bytes, " bytes, over the ",
                                                   kMaxPartBytes, " that a message carries: raise `slots` (now ",
                                                   layout.geometry.slots, ") or lower batch_size"));
}

// Calls f(slot, first, count) for each run of keys of one slot.
template <typename F>
absl::Status ForEachSlot(const Geometry& geometry, absl::Span<const uint64_t> keys, F&& f) {
  for (size_t i = 0; i < keys.size();) {
    const uint32_t slot = geometry.slot(keys[i]);
    size_t j = i + 1;
    while (j < keys.size() && geometry.slot(keys[j]) == slot) ++j;
    DESCENT_RETURN_IF_ERROR(f(slot, i, j - i));
    i = j;
  }
  return absl::OkStatus();
}

}  // namespace

ExchangePlan::Message& ExchangePlan::Room(Leg& leg, uint64_t bytes) const {
  const auto fits = [&](const Message& m) {
    return m.bytes + bytes <= layout_->max_payload_bytes && m.header + kPartHeader <= kMaxHeaderBytes;
  };
  if (leg.messages.empty()) {
    leg.messages.emplace_back();
    if (leg.chunks > 0) {
      leg.messages[0].bytes = leg.first_bytes;
      leg.messages[0].header = leg.first_header;
      leg.piggyback = bytes == 0 || fits(leg.messages[0]);
      if (!leg.piggyback) leg.messages[0] = Message();
    }
  } else if (!fits(leg.messages.back())) {
    leg.messages.emplace_back();
  }
  Message& message = leg.messages.back();
  message.bytes += bytes;
  message.header += kPartHeader;
  return message;
}

absl::Status ExchangePlan::AddPush(const PushSpec& push) {
  push_.emplace();
  push_->rank = push.rank;
  push_->span = push.span;
  push_->incarnation = push.incarnation;
  push_->clock = push.clock;
  push_->read_clock = push.read_clock;
  push_->weight = push.weight;
  if (push.read.size() > kMaxReadBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("rank ", push.rank.value, ", clock ", push.clock.value,
                                                     ": what its gradient was computed from takes ", push.read.size(),
                                                     " bytes to tell, over the ", kMaxReadBytes,
                                                     " that a message carries: lower `slots` or batch_size"));
  }
  push_->read = push.read;
  for (Leg& leg : legs_) leg.push = true;
  if (!push.dense.empty()) {
    if (push.dense.size() != layout_->specs.size()) {
      return absl::InvalidArgumentError(absl::StrCat("the push has ", push.dense.size(),
                                                     " dense gradients; the model has ", layout_->specs.size(),
                                                     " tensors (null for a table)"));
    }
    for (Leg& leg : legs_) {
      for (const ModelLayout::DenseBlock& block : layout_->dense[leg.server.value]) {
        const float* tensor = push.dense[block.id.tensor.value];
        if (tensor == nullptr) continue;
        Room(leg, uint64_t{block.size} * layout_->float_bytes)
            .dense.push_back({block.id, tensor + block.begin, block.size});
        ++leg.contributions;
      }
    }
  }
  std::vector<bool> seen(layout_->specs.size());
  for (const TableGradient& table : push.sparse) {
    DESCENT_RETURN_IF_ERROR(CheckTable(table.table, table.keys, &seen));
    const uint32_t dim = layout_->specs[table.table.value].dim();
    DESCENT_RETURN_IF_ERROR(
        ForEachSlot(layout_->geometry, table.keys, [&](uint32_t slot, size_t first, size_t count) -> absl::Status {
          const BlockId id{table.table, slot};
          const uint64_t bytes = count * (kKeyBytes + dim * layout_->float_bytes);
          if (bytes > kMaxPartBytes) return TooLarge(*layout_, id, count, bytes, kMaxPartBytes);
          Leg& leg = legs_[layout_->map.server(id).value];
          Room(leg, bytes)
              .sparse.push_back(
                  {id, table.keys.data() + first, table.rows + first * dim, static_cast<uint32_t>(count), dim});
          ++leg.contributions;
          return absl::OkStatus();
        }));
  }
  // Every clock of every rank is announced to every server.
  for (Leg& leg : legs_) {
    if (leg.messages.empty()) Room(leg, 0);
  }
  return absl::OkStatus();
}

absl::Status ExchangePlan::AddPull(const PullSpec& pull) {
  pull_.emplace();
  pull_->rank = pull.rank;
  pull_->clock = pull.clock;
  pull_->averaged = pull.averaged;
  versions_ = pull.versions;
  bool any = false;
  if (!pull.dense.empty()) {
    if (pull.dense.size() != layout_->specs.size()) {
      return absl::InvalidArgumentError(absl::StrCat("the pull has ", pull.dense.size(),
                                                     " dense buffers; the model has ", layout_->specs.size(),
                                                     " tensors (null for a table)"));
    }
    for (Leg& leg : legs_) {
      const auto& blocks = layout_->dense[leg.server.value];
      for (const ModelLayout::DenseBlock& block : blocks) {
        float* tensor = pull.dense[block.id.tensor.value];
        if (tensor == nullptr) continue;
        leg.parts.push_back({block.id, 0, false, block.size, nullptr, tensor + block.begin,
                             uint64_t{block.size} * layout_->float_bytes});
      }
      leg.all_dense = !leg.parts.empty() && leg.parts.size() == blocks.size();
      if (!leg.parts.empty()) leg.chunks = 1;
      any |= !leg.parts.empty();
    }
  }
  std::vector<bool> seen(layout_->specs.size());
  for (const TableRows& table : pull.sparse) {
    DESCENT_RETURN_IF_ERROR(CheckTable(table.table, table.keys, &seen));
    const uint32_t dim = layout_->specs[table.table.value].dim();
    DESCENT_RETURN_IF_ERROR(
        ForEachSlot(layout_->geometry, table.keys, [&](uint32_t slot, size_t first, size_t count) -> absl::Status {
          const BlockId id{table.table, slot};
          const uint64_t keys = count * kKeyBytes, rows = count * dim * layout_->float_bytes;
          if (std::max(keys, rows) > kMaxPulledPartBytes) {
            return TooLarge(*layout_, id, count, std::max(keys, rows), kMaxPulledPartBytes);
          }
          Leg& leg = legs_[layout_->map.server(id).value];
          if (leg.chunks == 0 || leg.chunk_bytes + keys > layout_->max_payload_bytes ||
              leg.chunk_header + kPartHeader > kMaxHeaderBytes) {
            ++leg.chunks;
            leg.chunk_bytes = leg.chunk_header = 0;
          }
          leg.chunk_bytes += keys;
          leg.chunk_header += kPartHeader;
          if (leg.chunks == 1) {
            leg.first_bytes = leg.chunk_bytes;
            leg.first_header = leg.chunk_header;
          }
          leg.parts.push_back({id, leg.chunks - 1, true, static_cast<uint32_t>(count), table.keys.data() + first,
                               table.rows + first * dim, rows});
          any = true;
          return absl::OkStatus();
        }));
  }
  for (Leg& leg : legs_) {
    // A pull of nothing still asks every server whether the clock may begin.
    if (!any) leg.chunks = 1;
    std::sort(leg.parts.begin(), leg.parts.end(),
              [](const PullPartPlan& a, const PullPartPlan& b) { return a.id < b.id; });
  }
  return absl::OkStatus();
}

ClientCore::TicketSpec ExchangePlan::Spec() const {
  ClientCore::TicketSpec spec;
  if (push_.has_value()) spec.push = ClientCore::PushIdentity{push_->rank, push_->span, push_->clock};
  spec.legs.resize(legs_.size());
  for (size_t i = 0; i < legs_.size(); ++i) {
    const Leg& leg = legs_[i];
    ClientCore::LegSpec& out = spec.legs[i];
    out.server = leg.server;
    out.chunks = leg.chunks;
    out.piggyback = leg.piggyback;
    out.push_bytes.reserve(leg.messages.size());
    for (const Message& message : leg.messages) out.push_bytes.push_back(message.bytes);
    out.items.reserve(leg.parts.size());
    for (const PullPartPlan& part : leg.parts) out.items.push_back({part.id, part.chunk});
  }
  return spec;
}

Request ExchangePlan::Build(const Envelope& envelope, const ClientCore::Send& send,
                            const std::vector<Rank>& expected_of, const std::shared_ptr<const void>& owner,
                            uint64_t* copied) const {
  Request request;
  request.envelope = envelope;
  request.id = send.request;
  if (send.expected) request.expected_of = expected_of;
  const Leg& leg = legs_[send.leg];
  const Message* message = send.push == ClientCore::kNone ? nullptr : &leg.messages[send.push];

  // Small pieces are gathered in order into one buffer; `flush` appends what has been gathered since the last time.
  uint64_t small = 0;
  if (message != nullptr) {
    for (const SparsePush& part : message->sparse) {
      const uint64_t bytes = part.count * (kKeyBytes + part.dim * layout_->float_bytes);
      if (bytes < kGatherBytes) small += bytes;
    }
  }
  for (uint32_t i : send.items) {
    const PullPartPlan& part = leg.parts[i];
    if (part.sparse && part.count * kKeyBytes < kGatherBytes) small += part.count * kKeyBytes;
  }
  std::shared_ptr<std::byte[]> gathered;
  if (small > 0) gathered = std::shared_ptr<std::byte[]>(new std::byte[small]);
  uint64_t begin = 0, end = 0;
  const auto gather = [&](const void* from, uint64_t bytes) {
    std::memcpy(gathered.get() + end, from, bytes);
    end += bytes;
    *copied += bytes;
  };
  const auto flush = [&] {
    if (end > begin) request.payload.Append(gathered.get() + begin, end - begin, gathered);
    begin = end;
  };
  const auto lend = [&](const void* from, uint64_t bytes) {
    flush();
    request.payload.Append(from, bytes, owner);
  };
  const bool halves = layout_->encoding != WireEncoding::kF32;
  const auto gather_floats = [&](const float* from, uint64_t n) {
    if (!halves) return gather(from, n * sizeof(float));
    EncodeHalves(layout_->encoding, n, from, gathered.get() + end);
    end += n * layout_->float_bytes;
    *copied += n * layout_->float_bytes;
  };
  const auto lend_floats = [&](const float* from, uint64_t n) {
    if (!halves) return lend(from, n * sizeof(float));
    flush();
    const uint64_t bytes = n * layout_->float_bytes;
    std::shared_ptr<std::byte[]> own(new std::byte[bytes]);
    EncodeHalves(layout_->encoding, n, from, own.get());
    request.payload.Append(own.get(), bytes, own);
    *copied += bytes;
  };

  if (message != nullptr) {
    PushFrame& push = request.push.emplace(*push_);
    push.contributions = leg.contributions;
    push.encoding = layout_->encoding;
    push.dense.reserve(message->dense.size());
    for (const DensePush& part : message->dense) {
      push.dense.push_back({part.id, 0});
      lend_floats(part.from, part.size);
    }
    push.sparse.reserve(message->sparse.size());
    for (const SparsePush& part : message->sparse) {
      push.sparse.push_back({part.id, part.count, 0});
      const uint64_t keys = part.count * kKeyBytes, floats = uint64_t{part.count} * part.dim;
      if (keys + floats * layout_->float_bytes < kGatherBytes) {
        gather(part.keys, keys);
        gather_floats(part.rows, floats);
      } else {
        lend(part.keys, keys);
        lend_floats(part.rows, floats);
      }
    }
  }
  if (send.chunk != ClientCore::kNone) {
    PullFrame& pull = request.pull.emplace(*pull_);
    pull.all_dense = leg.all_dense && send.chunk == 0 && send.whole_chunk;
    for (uint32_t i : send.items) {
      const PullPartPlan& part = leg.parts[i];
      if (!part.sparse) {
        if (!pull.all_dense) pull.dense.push_back({part.id, 0});
        continue;
      }
      pull.sparse.push_back({part.id, part.count, 0});
      const uint64_t keys = part.count * kKeyBytes;
      if (keys < kGatherBytes) {
        gather(part.keys, keys);
      } else {
        lend(part.keys, keys);
      }
    }
  }
  flush();
  return request;
}

uint64_t ExchangePlan::PartBytes(BlockId id, uint32_t keys) const {
  const TensorSpec& spec = layout_->specs[id.tensor.value];
  const uint64_t floats =
      spec.sparse ? uint64_t{keys} * spec.dim() : uint64_t{layout_->geometry.block_size(spec, id.index)};
  return floats * layout_->float_bytes;
}

absl::Status ExchangePlan::Check(uint32_t leg_index, const Reply& reply) const {
  const Leg& leg = legs_[leg_index];
  const auto wrong = [&](const std::string& what) {
    return absl::DataLossError(absl::StrCat("server ", leg.server.value, " sent a reply with ", what));
  };
  uint64_t bytes = 0;
  const auto check = [&](BlockId id, bool sparse, uint32_t keys) -> absl::Status {
    if (id.tensor.value >= layout_->specs.size() || layout_->specs[id.tensor.value].sparse != sparse ||
        id.index >= layout_->geometry.blocks(layout_->specs[id.tensor.value])) {
      return wrong(absl::StrCat(sparse ? "slot " : "block ", id.index, " of tensor ", id.tensor.value,
                                ", which this model does not have"));
    }
    if (sparse) {
      const auto it = std::lower_bound(leg.parts.begin(), leg.parts.end(), id,
                                       [](const PullPartPlan& part, BlockId b) { return part.id < b; });
      const uint32_t asked = it == leg.parts.end() || it->id != id ? 0 : it->count;
      if (asked != keys) {
        return wrong(
            absl::StrCat(keys, " rows of table ", id.tensor.value, ", slot ", id.index, "; asked for were ", asked));
      }
    }
    bytes += PartBytes(id, keys);
    return absl::OkStatus();
  };
  for (const DensePart& part : reply.dense) DESCENT_RETURN_IF_ERROR(check(part.id, false, 0));
  for (const SparsePart& part : reply.sparse) DESCENT_RETURN_IF_ERROR(check(part.id, true, part.keys));
  if (bytes != reply.payload.size()) {
    return wrong(absl::StrCat(reply.payload.size(), " payload bytes; its parts take ", bytes));
  }
  return absl::OkStatus();
}

void ExchangePlan::Versions(const Reply& reply, const std::vector<uint32_t>& accepted) const {
  if (versions_ == nullptr) return;
  size_t place = 0;
  for (const DensePart& part : reply.dense) {
    if (accepted[place++] != ClientCore::kNone) versions_->push_back({part.id, part.version, 0});
  }
  for (const SparsePart& part : reply.sparse) {
    if (accepted[place++] != ClientCore::kNone) versions_->push_back({part.id, part.version, part.steps});
  }
}

std::vector<PartWrite> ExchangePlan::Writes(uint32_t leg_index, const Reply& reply,
                                            const std::vector<uint32_t>& accepted) const {
  const Leg& leg = legs_[leg_index];
  std::vector<PartWrite> writes;
  size_t offset = 0, place = 0;
  const auto part = [&](BlockId id, uint32_t keys) {
    const uint64_t bytes = PartBytes(id, keys);
    const uint32_t item = accepted[place++];
    if (item != ClientCore::kNone) writes.push_back({offset, bytes, leg.parts[item].to});
    offset += bytes;
  };
  for (const DensePart& dense : reply.dense) part(dense.id, 0);
  for (const SparsePart& sparse : reply.sparse) part(sparse.id, sparse.keys);
  return writes;
}

}  // namespace descent
