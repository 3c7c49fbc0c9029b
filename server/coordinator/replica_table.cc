#include "server/coordinator/replica_table.h"

#include <algorithm>

#include "common/base/check.h"

namespace descent {

void ReplicaTable::Begin(const std::vector<MemberId>& members, const std::vector<std::string>& addresses) {
  const size_t n = members.size();
  DESCENT_CHECK(n >= 2 && addresses.size() == n);
  views_.assign(n, View());
  moves_ = 0;
  ++changes_;
  for (size_t k = 0; k < n; ++k) {
    views_[k].number = ++last_view_;
    views_[k].primary = members[k];
    views_[k].primary_address = addresses[k];
    views_[k].backup = members[(k + 1) % n];
  }
}

bool ReplicaTable::Adopt(const v1::ReplicaViews& lasting, const std::vector<Held>& held,
                         const std::vector<MemberId>& members) {
  const size_t n = static_cast<size_t>(lasting.view_size());
  if (n < 2 || lasting.synced_size() != lasting.view_size()) return false;
  std::vector<const Held*> chosen(n, nullptr);
  uint64_t newest = last_view_;
  for (size_t k = 0; k < n; ++k) newest = std::max(newest, lasting.view(static_cast<int>(k)));
  for (const Held& h : held) {
    if (h.seat.server() >= n || !h.seat.ready()) continue;
    newest = std::max(newest, h.seat.view());
    const int k = static_cast<int>(h.seat.server());
    const Held*& best = chosen[k];
    // A primary of a later view than lasts has been given another backup, no more. A backup counts in its own view.
    const bool primary = h.seat.primary() && h.seat.view() >= lasting.view(k);
    const bool backup = !h.seat.primary() && h.seat.whole() && h.seat.view() == lasting.view(k) && lasting.synced(k);
    if (primary || (backup && best == nullptr)) best = &h;
  }
  if (std::find(chosen.begin(), chosen.end(), nullptr) != chosen.end()) return false;
  last_view_ = newest;
  moves_ = 0;
  views_.assign(n, View());
  for (size_t k = 0; k < n; ++k) {
    views_[k].number = ++last_view_;
    views_[k].primary = chosen[k]->member;
    views_[k].primary_address = chosen[k]->seat.address();
    views_[k].fresh = false;
    views_[k].carried = true;
  }
  for (View& view : views_) {
    std::optional<MemberId> least;
    for (MemberId member : members) {
      if (member == view.primary) continue;
      if (!least.has_value() || SeatsOf(member).size() < SeatsOf(*least).size()) least = member;
    }
    view.backup = least;
  }
  ++changes_;
  return true;
}

v1::ReplicaViews ReplicaTable::Lasting() const {
  v1::ReplicaViews lasting;
  for (const View& view : views_) {
    lasting.add_view(view.number);
    lasting.add_synced(view.synced);
  }
  return lasting;
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
    if (report.synced() && view.backup.has_value() && !view.synced) {
      view.synced = true;
      ++news_;
    }
  } else if (!report.primary() && view.backup == from) {
    view.backup_ready |= report.ready();
    if (report.ready()) view.backup_address = report.address();
  }
}

bool ReplicaTable::CanRun() const {
  return running() && std::all_of(views_.begin(), views_.end(), [](const View& v) {
           return v.primary_ready && (v.carried || (v.backup.has_value() && v.backup_ready && v.synced));
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
    ++changes_;
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
    seat.set_carried(primary && view.carried);
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
