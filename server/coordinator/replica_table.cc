#include "server/coordinator/replica_table.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace descent {

void ReplicaTable::Begin(const std::vector<MemberId>& members, const std::vector<std::string>& addresses) {
  const size_t n = members.size();
  DESCENT_CHECK(n >= 2 && addresses.size() == n);
  before_.clear();
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
  const auto n = static_cast<size_t>(lasting.view_size());
  std::vector<v1::ReplicaViews> all = {lasting};
  all[0].clear_before();
  all.insert(all.end(), lasting.before().begin(), lasting.before().end());
  uint64_t newest = last_view_;
  for (const v1::ReplicaViews& views : all) {
    if (n < 2 || views.view_size() != static_cast<int>(n) || views.synced_size() != views.view_size()) return false;
    for (uint64_t view : views.view()) newest = std::max(newest, view);
  }
  std::vector<const Held*> chosen(n, nullptr);
  for (const Held& h : held) {
    const auto views =
        std::find_if(all.begin(), all.end(), [&](const auto& v) { return v.generation() == h.generation; });
    if (views == all.end() || h.seat.server() >= n || !h.seat.ready()) continue;
    newest = std::max(newest, h.seat.view());
    const int k = static_cast<int>(h.seat.server());
    // A primary of a later view than lasts has been given another backup, no more. A backup counts in its own view.
    const bool primary = h.seat.primary() && h.seat.view() >= views->view(k);
    const bool backup = !h.seat.primary() && h.seat.whole() && h.seat.view() == views->view(k) && views->synced(k);
    if (!primary && !backup) continue;
    // Of several that can be believed any would do; the newest primary has the least to be told.
    const auto rank = [](const Held& of) { return std::pair(of.seat.primary(), of.generation); };
    if (chosen[k] == nullptr || rank(h) > rank(*chosen[k])) chosen[k] = &h;
  }
  if (std::find(chosen.begin(), chosen.end(), nullptr) != chosen.end()) return false;
  before_ = std::move(all);
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
  for (const v1::ReplicaViews& before : before_) *lasting.add_before() = before;
  return lasting;
}

void ReplicaTable::Settle() {
  if (before_.empty()) return;
  before_.clear();
  ++changes_;
}

void ReplicaTable::Halt() {
  views_.clear();
  before_.clear();
}

bool ReplicaTable::IsOf(const std::vector<MemberId>& members) const {
  if (members.size() != views_.size()) return false;
  for (size_t k = 0; k < views_.size(); ++k) {
    if (views_[k].primary != members[k]) return false;
  }
  return true;
}

bool ReplicaTable::Report(MemberId from, const v1::SeatReport& report) {
  if (report.server() >= views_.size()) return false;
  View& view = views_[report.server()];
  if (report.view() != view.number) return false;
  if (report.primary() && view.primary == from) {
    view.primary_ready |= report.ready();
    if (!report.address().empty()) view.primary_address = report.address();
    if (report.synced() && view.backup.has_value() && !view.synced) {
      view.synced = true;
      ++news_;
    }
    return true;
  }
  if (!report.primary() && view.backup == from) {
    view.backup_ready |= report.ready();
    if (report.ready()) view.backup_address = report.address();
    return true;
  }
  return false;
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
    GoAlone(&view);
  }
  return loss;
}

void ReplicaTable::GoAlone(View* view) {
  ++changes_;
  view->number = ++last_view_;
  view->backup.reset();
  view->backup_address.clear();
  view->backup_ready = view->synced = view->fresh = view->given_up = false;
}

std::optional<MemberId> ReplicaTable::GiveUpBackup(ServerId server) {
  if (server.value >= views_.size()) return std::nullopt;
  View& view = views_[server.value];
  const std::optional<MemberId> backup = view.backup;
  if (fault_ == Fault::kGivenUpPromoted) {
    view.given_up = true;
  } else if (backup.has_value()) {
    GoAlone(&view);
  }
  return backup;
}

bool ReplicaTable::Covers(MemberId member) const {
  return running() && std::all_of(views_.begin(), views_.end(), [&](const View& v) {
           return v.primary != member || (v.backup.has_value() && *v.backup != member && v.synced);
         });
}

bool ReplicaTable::Join(ServerId server, MemberId member) {
  if (server.value >= views_.size()) return false;
  View& view = views_[server.value];
  if (view.backup.has_value() || view.primary == member) return false;
  view.number = ++last_view_;
  view.backup = member;
  view.fresh = view.synced = view.backup_ready = false;
  view.backup_address.clear();
  return true;
}

std::vector<ServerId> ReplicaTable::Joined(MemberId member) {
  std::vector<ServerId> taken;
  for (uint32_t k = 0; k < views_.size(); ++k) {
    if (Join(ServerId(k), member)) taken.push_back(ServerId(k));
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
    seat.set_await_backup(primary && view.backup.has_value() && !view.given_up);
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
