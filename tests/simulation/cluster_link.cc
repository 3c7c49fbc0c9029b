#include "tests/simulation/cluster_link.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "tests/simulation/cluster_line.h"
#include "tests/simulation/cluster_seat.h"

namespace descent::simulation {
namespace {

constexpr absl::Duration kTryAgain = absl::Milliseconds(40);
constexpr absl::Duration kUnnoticed = absl::Seconds(1);  // an end that can't be told finds out by itself

}  // namespace

std::shared_ptr<ClusterLink> ClusterLink::Make(Cluster* cluster, ProcessId home, std::weak_ptr<ClusterSeat> primary,
                                               std::string address, uint64_t view) {
  std::shared_ptr<ClusterLink> link(new ClusterLink(cluster, home, std::move(primary), std::move(address), view));
  link->Connect(cluster->net.Delay() * 2);
  return link;
}

ClusterLink::~ClusterLink() {
  if (connection_ == 0) return;
  cluster_->net.On(there_, Split() ? kUnnoticed : cluster_->net.Delay(), [backup = backup_, connection = connection_] {
    if (const auto seat = backup.lock()) seat->CloseLink(connection);
  });
}

void ClusterLink::Connect(absl::Duration after) {
  cluster_->net.On(home_, after, [self = weak_from_this()] {
    if (const auto link = self.lock()) link->TryToConnect();
  });
}

void ClusterLink::TryToConnect() {
  if (connection_ != 0) return;
  const std::shared_ptr<ClusterSeat> seat = cluster_->SeatAt(address_);
  if (seat != nullptr) there_ = seat->process();
  const bool reached = seat != nullptr && cluster_->net.alive(there_) && !cluster_->net.paused(there_) && !Split();
  const uint64_t connection = cluster_->next_line++;
  if (!reached || !seat->AcceptLink(connection, weak_from_this())) return Connect(kTryAgain);
  connection_ = connection;
  backup_ = seat;
  sent_ = answered_ = cluster_->net.now();
  if (std::exchange(broken_, false)) cluster_->truth.coverage.Add("links to backups mended");
  if (const auto primary = primary_.lock()) primary->OnLinkUp(weak_from_this(), view_);
}

bool ClusterLink::Transmit(ProcessId from, ProcessId to, absl::Time* last, std::function<void()> arrive) {
  if (cluster_->net.cut(from, to) || cluster_->dice->Chance(cluster_->schedule.weather.drop)) {
    Break();
    return false;
  }
  *last = std::max(*last, cluster_->net.now() + cluster_->net.Delay());
  cluster_->net.On(to, *last - cluster_->net.now(), std::move(arrive));
  return true;
}

void ClusterLink::Send(Request request) {
  if (connection_ == 0) return;
  request.payload = Copied(request.payload);
  Transmit(home_, there_, &sent_,
           [backup = backup_, connection = connection_, sent = std::make_shared<Request>(std::move(request))] {
             if (const auto seat = backup.lock()) seat->OnReplica(connection, *sent);
           });
}

void ClusterLink::Answer(uint64_t connection, Reply reply) {
  if (connection != connection_) return;
  Transmit(there_, home_, &answered_,
           [self = weak_from_this(), connection, view = view_, sent = std::make_shared<Reply>(std::move(reply))] {
             const auto link = self.lock();
             if (link == nullptr || link->connection_ != connection) return;
             if (const auto primary = link->primary_.lock()) primary->OnConfirmed(self, view, *sent);
           });
}

void ClusterLink::Break() {
  broken_ = true;
  const uint64_t connection = std::exchange(connection_, 0);
  const absl::Duration noticed = Split() ? kUnnoticed : cluster_->net.Delay();
  cluster_->net.On(there_, noticed, [backup = backup_, connection] {
    if (const auto seat = backup.lock()) seat->CloseLink(connection);
  });
  cluster_->net.On(home_, noticed, [self = weak_from_this()] {
    if (const auto link = self.lock()) link->Down();
  });
}

void ClusterLink::Ended(uint64_t connection) {
  cluster_->net.On(home_, Split() ? kUnnoticed : cluster_->net.Delay(), [self = weak_from_this(), connection] {
    const auto link = self.lock();
    if (link == nullptr || link->connection_ != connection) return;
    link->connection_ = 0;
    link->Down();
  });
}

void ClusterLink::Down() {
  if (cluster_->fault == ClusterFault::kGoesAloneUnasked) {
    if (const auto primary = primary_.lock()) primary->GoAlone(weak_from_this(), view_);
  }
  Connect(cluster_->net.Delay() * 2);
}

}  // namespace descent::simulation
