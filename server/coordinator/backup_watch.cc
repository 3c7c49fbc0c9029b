#include "server/coordinator/backup_watch.h"

#include <algorithm>

namespace descent {

bool BackupWatch::HoldsUp(ServerId server, uint64_t view, uint64_t unconfirmed, absl::Time now) {
  Wait& wait = waits_[server];
  const bool same = wait.view == view && wait.unconfirmed == unconfirmed && now - wait.told <= kReportGap;
  if (!same) wait = {view, unconfirmed, now, now};
  wait.told = now;
  return unconfirmed > 0 && now - wait.since > patience_;
}

absl::Duration BackupWatch::GaveUp(ServerId server, MemberId backup, absl::Time now) {
  const auto [it, first] = absences_.try_emplace({server, backup});
  Absence& absence = it->second;
  const bool stayed = first || (absence.back && now - absence.since > absence.pause);
  absence.pause = stayed ? kFirstPause : std::min(2 * absence.pause, kLongestPause);
  absence.until = now + absence.pause;
  absence.back = false;
  return absence.pause;
}

std::vector<std::pair<ServerId, MemberId>> BackupWatch::Due(absl::Time now) const {
  std::vector<std::pair<ServerId, MemberId>> due;
  for (const auto& [who, absence] : absences_) {
    if (!absence.back && now >= absence.until) due.push_back(who);
  }
  return due;
}

void BackupWatch::Back(ServerId server, MemberId backup, absl::Time now) {
  const auto it = absences_.find({server, backup});
  if (it == absences_.end()) return;
  it->second.back = true;
  it->second.since = now;
}

void BackupWatch::Forget(MemberId member) {
  std::erase_if(absences_, [&](const auto& a) { return a.first.second == member; });
}

void BackupWatch::Clear() {
  waits_.clear();
  absences_.clear();
}

}  // namespace descent
