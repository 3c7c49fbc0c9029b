#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/node/node_impl.h"

namespace descent {

std::optional<uint32_t> NodeImpl::HandlePull(Connection* c, const Request& request, absl::Time now) {
  const PullFrame& frame = *request.pull;
  ++stats_.pulls;
  if (c->pulls >= options_.max_held_pulls) {
    ++stats_.refused;
    Reply reply = NewReply(request.id);
    reply.refusal = absl::ResourceExhaustedError(
        absl::StrCat("pull of rank ", frame.rank.value, " for clock ", frame.clock.value, ": ", c->pulls,
                     " pulls of this connection are open, the most there may be"));
    Control(c, std::move(reply));
    return std::nullopt;
  }
  if (free_tickets_.empty()) {
    free_tickets_.push_back(static_cast<uint32_t>(pulls_.size()));
    pulls_.push_back(std::make_unique<Pull>());
  }
  const uint32_t ticket = free_tickets_.back();
  free_tickets_.pop_back();
  ++c->pulls;
  ++stats_.held_pulls;

  const CheckedRequest& parts = check_.checked();
  Pull& pull = *pulls_[ticket];
  pull.open = true;
  pull.connection = c->id;
  pull.id = request.id;
  pull.rank = frame.rank;
  pull.clock = frame.clock;
  pull.ungated = frame.ungated;
  pull.averaged = frame.averaged;
  const Engine::ReadVersion version = engine_.VersionFor(frame.clock);
  pull.version = version.exact && !frame.ungated ? std::optional<uint64_t>(version.version) : std::nullopt;
  pull.all_dense = frame.all_dense;
  pull.dense = parts.pull_dense;
  pull.sorted = parts.pull_dense;
  std::sort(pull.sorted.begin(), pull.sorted.end());
  pull.sparse = frame.sparse;
  if (!frame.sparse.empty()) {
    pull.keys = request.payload.Sub(parts.push_size, request.payload.size() - parts.push_size);
    stats_.payload_bytes_in += pull.keys.size();
  }
  // With backup ranks a rank that computes asks whether its round has closed.
  const bool idle = options_.backup_ranks > 0 && !frame.all_dense && frame.dense.empty() && frame.sparse.empty();
  Run(PullArrived{ticket, frame.rank, frame.clock, frame.ungated, now, idle}, now);
  if (!pull.released) ++stats_.held;
  return ticket;
}

void NodeImpl::OnReleaseBlock(const ReleaseBlock& release) {
  Pull& pull = *pulls_[release.ticket];
  if (!pull.all_dense && !std::binary_search(pull.sorted.begin(), pull.sorted.end(), release.block)) return;
  pull.ready.push_back(release.block);
  Enqueue(release.ticket);
}

void NodeImpl::OnRelease(uint32_t ticket) {
  Pull& pull = *pulls_[ticket];
  pull.released = true;
  const size_t wanted = pull.all_dense ? index_.dense() : pull.dense.size();
  if (pull.ready.empty()) {
    if (pull.all_dense) {
      pull.ready.resize(wanted);
      for (uint32_t b = 0; b < wanted; ++b) pull.ready[b] = b;
    } else {
      pull.ready = pull.dense;
    }
  }
  DESCENT_CHECK(pull.ready.size() == wanted);  // block by block, or at once
  if (!pull.ungated && pull.clock.value > engine_.round()) {
    stats_.largest_lead = std::max(stats_.largest_lead, pull.clock.value - engine_.round());
  }
  Enqueue(ticket);
}

void NodeImpl::OnTellWaiting(const TellWaiting& waiting, absl::Time now) {
  const Pull& pull = *pulls_[waiting.ticket];
  Connection* c = Find(pull.connection);
  // A peer that does not read is not told again and again.
  if (c->control.size() >= options_.max_held_pulls) return;
  ++stats_.waiting_notices;
  Reply reply = NewReply(pull.id);
  reply.waiting = WaitingNotice{engine_.Behind(waiting.need), now - waiting.since, engine_.Why(waiting.need)};
  Control(c, std::move(reply));
}

void NodeImpl::Enqueue(uint32_t ticket) {
  Pull& pull = *pulls_[ticket];
  Connection* c = Find(pull.connection);
  if (!pull.queued) {
    pull.queued = true;
    c->line.push_back(ticket);
  }
  MarkDirty(c);
}

void NodeImpl::EndPull(uint32_t ticket) {
  Pull& pull = *pulls_[ticket];
  if (Connection* c = Find(pull.connection)) --c->pulls;
  --stats_.held_pulls;
  pull = Pull{};
  free_tickets_.push_back(ticket);
}

void NodeImpl::MarkDirty(Connection* c) {
  if (c->dirty) return;
  c->dirty = true;
  dirty_.push_back(c->id);
}

void NodeImpl::Control(Connection* c, Reply reply) {
  // A peer that sends and does not read loses its oldest answers, not our memory: it asks again.
  constexpr size_t kMostUnsent = 4096;
  if (c->control.size() >= kMostUnsent) c->control.pop_front();
  c->control.push_back(std::move(reply));
  MarkDirty(c);
}

void NodeImpl::Flush() {
  for (size_t i = 0; i < dirty_.size(); ++i) {
    Connection* c = Find(dirty_[i]);
    if (c == nullptr) continue;
    c->dirty = false;
    Pump(c);
  }
  dirty_.clear();
}

void NodeImpl::Pump(Connection* c) {
  while (c->in_flight < options_.send_window && (!c->control.empty() || (!c->line.empty() && !hold_reads_))) {
    Reply reply;
    bool fill = c->control.empty();
    if (!c->control.empty()) {
      reply = std::move(c->control.front());
      c->control.pop_front();
      // An answer to the push and the data of one request travel together.
      fill = !c->line.empty() && !hold_reads_ && reply.refusal.ok() && !reply.waiting &&
             pulls_[c->line.front()]->id == reply.id;
    } else {
      reply = NewReply(pulls_[c->line.front()]->id);
    }
    if (fill) {
      const uint32_t ticket = c->line.front();
      Pull& pull = *pulls_[ticket];
      if (Fill(&pull, &reply)) {
        c->line.pop_front();
        if (!pull.released) {
          actions_.clear();
          engine_.Step(PullGone{ticket}, &actions_);
        }
        EndPull(ticket);
      } else if (!pull.released && pull.next_ready == pull.ready.size()) {
        c->line.pop_front();
        pull.queued = false;
      }
    }
    stats_.payload_bytes_out += reply.payload.size();
    ++c->in_flight;
    output_->Send(c->id, std::move(reply));
  }
}

Payload NodeImpl::ToWire(const Payload& floats) const {
  if (options_.encoding == WireEncoding::kF32) return floats;
  // A block or the rows of a read, which lie in one piece.
  DESCENT_CHECK(floats.pieces().size() <= 1);
  const size_t n = floats.size() / sizeof(float);
  std::shared_ptr<std::byte[]> halves(new std::byte[n * sizeof(uint16_t)]);
  Payload out;
  if (floats.empty()) return out;
  EncodeHalves(options_.encoding, n, reinterpret_cast<const float*>(floats.pieces()[0].data), halves.get());
  out.Append(halves.get(), n * sizeof(uint16_t), halves);
  return out;
}

bool NodeImpl::Fill(Pull* pull, Reply* reply) {
  // The dense part may be all there is to come, and released block by block.
  const size_t wanted = pull->all_dense ? index_.dense() : pull->dense.size();
  const auto give_up = [&](const absl::Status& status) {
    ++stats_.refused;
    reply->refusal = absl::Status(status.code(), absl::StrCat("pull of rank ", pull->rank.value, " for clock ",
                                                              pull->clock.value, ": ", status.message()));
    reply->dense.clear();
    reply->sparse.clear();
    reply->payload = Payload();
    return true;
  };
  reply->done_below = Clock(pull->version ? *pull->version : engine_.round());
  bool full = false;
  while (!full && pull->next_ready < pull->ready.size()) {
    const uint32_t block = pull->ready[pull->next_ready];
    if (!reply->payload.empty() && reply->payload.size() + index_.bytes(block) > kMaxPayloadBytes) {
      full = true;
      break;
    }
    const BlockId id = index_.id(block);
    absl::StatusOr<Payload> payload =
        pull->averaged ? store_->ReadAverage(id, pull->version) : store_->Read(id, pull->version);
    if (!payload.ok()) return give_up(payload.status());
    reply->dense.push_back({id, pull->version ? *pull->version : store_->version(id)});
    reply->payload.Append(ToWire(*payload));
    ++pull->next_ready;
  }
  while (!full && pull->released && pull->next_sparse < pull->sparse.size()) {
    SparsePart& part = pull->sparse[pull->next_sparse];
    const size_t row_bytes = index_.bytes(*index_.Find(part.id, true));
    if (!reply->payload.empty() && reply->payload.size() + part.keys * row_bytes > kMaxPayloadBytes) {
      full = true;
      break;
    }
    const size_t key_bytes = size_t{part.keys} * 8;
    absl::StatusOr<Payload> rows =
        store_->ReadSparse(part.id, part.keys, pull->keys.Sub(pull->key_offset, key_bytes), pull->version);
    if (!rows.ok()) return give_up(rows.status());
    part.version = pull->version ? *pull->version : store_->version(part.id);
    part.steps = order_ != nullptr && options_.store.apply_push ? store_->steps(part.id) : 0;
    reply->sparse.push_back(part);
    reply->payload.Append(ToWire(*rows));
    pull->key_offset += key_bytes;
    ++pull->next_sparse;
  }
  const bool dense_done = pull->next_ready == wanted && (pull->released || wanted > 0);
  reply->pull_done = !full && dense_done && pull->next_sparse == pull->sparse.size();
  return reply->pull_done;
}

void NodeImpl::KeepKeys(uint32_t ticket) {
  Pull& pull = *pulls_[ticket];
  if (pull.own_keys || pull.keys.empty()) return;
  std::shared_ptr<std::byte[]> bytes(new std::byte[pull.keys.size()]);
  pull.keys.CopyTo(bytes.get());
  Payload keys;
  keys.Append(bytes.get(), pull.keys.size(), bytes);
  pull.keys = std::move(keys);
  pull.own_keys = true;
}

}  // namespace descent
