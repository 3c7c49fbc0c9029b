#include "server/replica/seat_state.h"

#include <utility>

namespace descent {

void SeatState::Hear(const v1::HeartbeatReply& news, const v1::Seat& want) {
  if (!ready_) return;
  // A backup is bound to its view; a promoted one goes on with what it holds.
  ready_ = news.generation() == generation_ && (want.primary() || want.view() == orders_.view());
}

bool SeatState::CutWanted(const v1::HeartbeatReply& news) const {
  return news.has_cut() && ready_ && primary_ && news.generation() == generation_;
}

SeatState::Duty SeatState::Tend(const v1::HeartbeatReply& news, const v1::Seat& want, bool placing) {
  Duty duty;
  if (!ready_) {
    if (!news.has_map() || placing) return duty;
    primary_ = want.primary();
    placing_generation_ = news.generation();
    placing_view_ = want.view();
    duty.place = true;
    return duty;
  }
  told_view_ = want.view();
  if (!replicated_ || !want.primary()) return duty;
  duty.promote = !std::exchange(primary_, true);
  const BackupOrders::Order order = orders_.Take(want);
  duty.backup = order.kind == BackupOrders::Kind::kBackup;
  if (order.kind == BackupOrders::Kind::kAlone) duty.alone = order.view;
  return duty;
}

void SeatState::Placed() {
  ready_ = true;
  generation_ = placing_generation_;
  orders_.Begin(primary_ ? 0 : placing_view_);
}

v1::SeatReport SeatState::Report(const std::string& address, const NodeView& node) const {
  const bool told = ready_ && primary_ && orders_.view() == told_view_ && node.view == orders_.view();
  v1::SeatReport report;
  report.set_server(server_.value);
  report.set_primary(primary_);
  report.set_view(ready_ && told_view_ > 0 ? told_view_ : placing_view_);
  report.set_address(address);
  report.set_ready(ready_);
  report.set_synced(told && node.synced);
  report.set_whole(ready_ && node.whole);
  if (told) report.set_unconfirmed(node.unconfirmed);
  return report;
}

}  // namespace descent
