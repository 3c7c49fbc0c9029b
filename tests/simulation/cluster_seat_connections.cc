// What comes to a seat and goes out from it: requests of workers and of its primary, replies, its node's timers.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "tests/simulation/cluster_seat.h"
#include "tests/simulation/cluster_worker.h"

namespace descent::simulation {

// --- Workers ---------------------------------------------------------------------------------------------------------

bool ClusterSeat::Accept(const std::shared_ptr<ClusterLine>& line) {
  if (node_ == nullptr || !ready()) return false;
  lines_[line->id] = line;
  node_->OnOpen(ConnectionId(line->id), cluster_->net.now());
  AfterNode();
  return true;
}

void ClusterSeat::Close(uint64_t id) {
  const auto line = lines_.find(id);
  if (line == lines_.end()) return;
  line->second->at_server = false;
  lines_.erase(line);
  node_->OnClose(ConnectionId(id), cluster_->net.now());
  AfterNode();
}

void ClusterSeat::OnRequest(const std::shared_ptr<ClusterLine>& line, Request request) {
  if (!line->at_server || node_ == nullptr || !lines_.contains(line->id)) return;
  // Once a rank's newer holder has pushed here, an older one must be told that it is fenced, whatever it says it is.
  if (request.push.has_value() && request.envelope.generation == generation()) {
    const Rank rank = request.push->rank;
    const Incarnation true_one = cluster_->truth.granted(line->worker, line->worker_life, rank);
    Incarnation& newest = newest_[rank.value];
    const bool first = line->pushes.emplace(request.id, true_one).second;
    if (first && true_one < newest) line->to_be_fenced.insert(request.id);
    if (primary()) newest = std::max(newest, true_one);
  }
  node_->OnRequest(ConnectionId(line->id), std::move(request), cluster_->net.now());
  AfterNode();
}

void ClusterSeat::SendToWorker(const std::shared_ptr<ClusterLine>& line, Reply reply) {
  if (reply.ack.has_value() && reply.ack->outcome != Outcome::kFenced && line->to_be_fenced.contains(reply.id)) {
    cluster_->truth.Wrong("a push of an older holder was not answered as fenced");
  }
  if (cluster_->schedule.replicas || cluster_->job.backup_ranks > 0) {
    const auto push = line->pushes.find(reply.id);
    cluster_->truth.told(generation(), server_).Add(reply, push == line->pushes.end() ? Incarnation() : push->second);
    const bool acknowledged = reply.ack.has_value() && reply.ack->complete;
    replicated_acks_ += state_.linked() && acknowledged;
    if (acknowledged && std::exchange(promoted_, false)) cluster_->truth.coverage.Add("promotions");
    // One that does not know yet that another has taken its place says nothing that the other can't stand for.
    const auto other = cluster_->successors.find({generation(), server_});
    const auto seat = other == cluster_->successors.end() ? nullptr : other->second.lock();
    const bool serves = seat != nullptr && seat->ready() && seat->primary() && seat->generation() == generation();
    if (serves && seat.get() != this) seat->CheckTold("has taken over, and");
  }
  reply.payload = Copied(reply.payload);
  cluster_->net.Message(process_, line->worker,
                        [cluster = cluster_, line, reply = std::make_shared<Reply>(std::move(reply))] {
                          cluster->workers[line->worker - cluster->worker_process(0)]->OnReply(line, *reply);
                        });
}

void ClusterSeat::AfterNode() {
  if (node_ == nullptr) return;
  for (auto& [to, reply] : std::exchange(out_, {})) {
    const auto line = lines_.find(to.value);
    const auto link = links_.find(to.value);
    if (line == lines_.end() && link == links_.end()) continue;
    cluster_->net.On(process_, cluster_->dice->Between(absl::ZeroDuration(), absl::Microseconds(200)),
                     [self = weak_from_this(), id = to.value] {
                       const auto seat = self.lock();
                       if (seat == nullptr || (!seat->lines_.contains(id) && !seat->links_.contains(id))) return;
                       seat->node_->OnSent(ConnectionId(id), seat->cluster_->net.now());
                       seat->AfterNode();
                     });
    if (line != lines_.end()) {
      SendToWorker(line->second, std::move(reply));
    } else if (const auto from = link->second.lock()) {
      from->Answer(to.value, std::move(reply));
    }
  }
  if (state_.linked() && !pumping_ && !primary_node_->synced()) {
    pumping_ = true;
    After(cluster_->dice->Between(absl::ZeroDuration(), absl::Milliseconds(4)), &ClusterSeat::Pump);
  }
  const absl::Time next = node_->next_timer();
  if (next >= timer_) return;
  timer_ = next;
  cluster_->net.On(process_, std::max(next - cluster_->net.now(), absl::ZeroDuration()), [self = weak_from_this()] {
    const auto seat = self.lock();
    if (seat == nullptr) return;
    seat->timer_ = absl::InfiniteFuture();
    if (seat->node_ == nullptr) return;
    seat->node_->OnTimer(seat->cluster_->net.now());
    seat->AfterNode();
  });
}

// --- Links -----------------------------------------------------------------------------------------------------------

bool ClusterSeat::AcceptLink(uint64_t connection, std::weak_ptr<ClusterLink> link) {
  if (node_ == nullptr || !ready()) return false;
  links_[connection] = std::move(link);
  node_->OnOpen(ConnectionId(connection), cluster_->net.now());
  AfterNode();
  return true;
}

void ClusterSeat::CloseLink(uint64_t connection) {
  if (links_.erase(connection) == 0) return;
  node_->OnClose(ConnectionId(connection), cluster_->net.now());
  AfterNode();
}

void ClusterSeat::OnReplica(uint64_t connection, Request request) {
  if (!links_.contains(connection)) return;
  node_->OnRequest(ConnectionId(connection), std::move(request), cluster_->net.now());
  AfterNode();
}

void ClusterSeat::OnLinkUp(const std::weak_ptr<const ClusterLink>& link, uint64_t view) {
  if (primary_node_ == nullptr || !primary_node_->Uses(link)) return;
  primary_node_->OnLinkUp(view);
  AfterNode();
}

void ClusterSeat::OnConfirmed(const std::weak_ptr<const ClusterLink>& link, uint64_t view, const Reply& reply) {
  if (primary_node_ == nullptr || !primary_node_->Uses(link)) return;
  if (!reply.refusal.ok()) {
    if (absl::StrContains(reply.refusal.message(), "could not take in")) {
      cluster_->truth.Wrong(absl::StrCat(name(), ": ", reply.refusal.message()));
    }
    if (reply.refusal.code() != absl::StatusCode::kOutOfRange) cluster_->Note(name(), reply.refusal.ToString());
    return;
  }
  if (reply.replicated == 0) return;
  primary_node_->OnConfirmed(view, reply.replicated);
  AfterNode();
}

void ClusterSeat::GoAlone(const std::weak_ptr<const ClusterLink>& link, uint64_t view) {
  if (primary_node_ == nullptr || !primary_node_->Uses(link)) return;
  primary_node_->GoAlone(view);
  AfterNode();
}

}  // namespace descent::simulation
