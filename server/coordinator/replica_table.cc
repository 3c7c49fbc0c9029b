#include "server/coordinator/replica_table.h"

#include <algorithm>

#include "common/base/check.h"

namespace descent {

void ReplicaTable::Begin(const std::vector<MemberId>& members, const std::vector<std::string>& addresses) {
  const size_t n = members.size();
  DESCENT_CHECK(n >= 2 && addresses.size() == n);
  views_.assign(n, View());
  moves_ = 0;
  for (size_t k = 0; k < n; ++k) {
    views_[k].number = ++last_view_;
    views_[k].primary = members[k];
    views_[k].primary_address = addresses[k];
    views_[k].backup = members[(k + 1) % n];
  }
}

bool ReplicaTable::IsOf(const std::vector<MemberId>& members) const {
  if (members.size() != views_.size()) return false;
  for (size_t k = 0; k < views_.size(); ++k) {
    if (views_[k].primary != members[k]) return false;
  }
  return true;
}

void ReplicaTable::Report(MemberId from, const v1::SeatReport& report) {
  if (report.server() >= views_.size()) return;
  View& view = views_[report.server()];
  if (report.view() != view.number) return;
  if (report.primary() && view.primary == from) {
    view.primary_ready |= report.ready();
    if (!report.address().empty()) view.primary_address = report.address();
    view.synced |= report.synced() && view.backup.has_value();
  } else if (!report.primary() && view.backup == from) {
    view.backup_ready |= report.ready();
    if (report.ready()) view.backup_address = report.address();
  }
}

bool ReplicaTable::AllSynced() const {
  return running() && std::all_of(views_.begin(), views_.end(), [](const View& v) {
           return v.primary_ready && v.backup.has_value() && v.backup_ready && v.synced;
         });
}

ReplicaTable::Loss ReplicaTable::Lost(MemberId member) {
  Loss loss;
  for (uint32_t k = 0; k < views_.size(); ++k) {
    View& view = views_[k];
    if (view.primary == member) {
      if (!view.backup.has_value() || *view.backup == member || !view.synced) {
        loss.lost.push_back(ServerId(k));
        continue;
      }
      view.primary = *view.backup;
      view.primary_address = view.backup_address;
      view.primary_ready = true;
      ++moves_;
      loss.promoted.push_back(ServerId(k));
    } else if (view.backup == member) {
      loss.alone.push_back(ServerId(k));
    } else {
      continue;
    }
    view.number = ++last_view_;
    view.backup.reset();
    view.backup_address.clear();
    view.backup_ready = view.synced = view.fresh = false;
  }
  return loss;
}

bool ReplicaTable::Covers(MemberId member) const {
  return running() && std::all_of(views_.begin(), views_.end(), [&](const View& v) {
           return v.primary != member || (v.backup.has_value() && *v.backup != member && v.synced);
         });
}

std::vector<ServerId> ReplicaTable::Joined(MemberId member) {
  std::vector<ServerId> taken;
  for (uint32_t k = 0; k < views_.size(); ++k) {
    View& view = views_[k];
    if (view.backup.has_value() || view.primary == member) continue;
    view.number = ++last_view_;
    view.backup = member;
    view.fresh = view.synced = view.backup_ready = false;
    view.backup_address.clear();
    taken.push_back(ServerId(k));
  }
  return taken;
}

std::vector<v1::Seat> ReplicaTable::SeatsOf(MemberId member) const {
  std::vector<v1::Seat> seats;
  for (uint32_t k = 0; k < views_.size(); ++k) {
    const View& view = views_[k];
    const bool primary = view.primary == member;
    if (!primary && view.backup != member) continue;
    v1::Seat seat;
    seat.set_server(k);
    seat.set_primary(primary);
    seat.set_view(view.number);
    if (primary && view.backup.has_value()) seat.set_backup_address(view.backup_address);
    seat.set_await_backup(primary && view.backup.has_value());
    seat.set_fresh(view.fresh);
    seats.push_back(std::move(seat));
  }
  return seats;
}

bool ReplicaTable::Ready(MemberId member) const {
  return std::all_of(views_.begin(), views_.end(), [&](const View& v) {
    return (v.primary != member || v.primary_ready) && (v.backup != member || v.backup_ready);
  });
}

bool ReplicaTable::IsPrimary(MemberId member, ServerId server) const {
  return server.value < views_.size() && views_[server.value].primary == member;
}

}  // namespace descent
