#include "server/coordinator/replication.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace descent {
namespace {

// Who is to hold a copy is to be well.
constexpr absl::Duration kHeardOfLately = absl::Seconds(1);

}  // namespace

std::string Replication::NameOfMember(MemberId id, const char* otherwise) const {
  const Member* const member = members_.Find(id);
  return member == nullptr ? otherwise : NameOf(*member);
}

bool Replication::Adopt(const v1::ReplicaViews& lasting) {
  std::vector<ReplicaTable::Held> held;
  std::vector<MemberId> servers;
  for (const auto& [id, member] : members_) {
    if (!member.is_server) continue;
    servers.push_back(id);
    for (const v1::SeatReport& seat : member.held) held.push_back({id, seat, member.held_generation});
  }
  const bool same = lasting.view_size() == static_cast<int>(options_.servers);
  adopted_ = enabled() && same && table_.Adopt(lasting, held, servers);
  return adopted_;
}

void Replication::Place() {
  if (!enabled() || adopted_) return;
  std::vector<MemberId> home(options_.servers);
  for (const auto& [id, member] : members_) {
    if (member.is_server) home[member.server.value] = id;
  }
  // Nothing has been pushed yet: a process that was replaced meanwhile is no loss.
  if (!table_.IsOf(home)) table_.Begin(home, members_.Addresses(options_.servers));
}

bool Replication::Halt() {
  table_.Halt();
  watch_.Clear();
  moves_ = 0;
  return std::exchange(adopted_, false);
}

void Replication::Joined(const Member& server) {
  if (!enabled()) return;
  for (ServerId of : table_.Joined(server.id)) {
    log_.Info(absl::StrCat("server ", server.server.value, " becomes the backup of server ", of.value));
  }
}

bool Replication::GoesOnWithout(const Member& server) {
  if (!running()) return false;
  const ReplicaTable::Loss loss = table_.Lost(server.id);
  for (ServerId lost : loss.lost) {
    log_.Warning(absl::StrCat("server ", lost.value, " is lost with ", NameOf(server),
                              ": it had no backup that held everything"));
  }
  if (!loss.lost.empty()) return false;
  for (ServerId promoted : loss.promoted) {
    ++promotions_;
    const ReplicaTable::View& view = table_.views()[promoted.value];
    log_.Warning(absl::StrCat("server ", promoted.value, ": its backup takes over, at ", view.primary_address, " on ",
                              NameOfMember(view.primary, "a process that is gone too")));
    if (members_.Find(view.primary) == nullptr) return false;
  }
  for (ServerId alone : loss.alone) {
    log_.Warning(absl::StrCat("server ", alone.value, " goes on without a backup"));
  }
  // Whoever is there without being anybody's backup can be one now.
  for (const auto& [id, member] : members_) {
    if (member.is_server && table_.SeatsOf(id).empty()) table_.Joined(id);
  }
  return true;
}

void Replication::Report(MemberId from, const v1::SeatReport& report, bool running, absl::Time now) {
  if (!table_.Report(from, report) || !report.primary()) return;
  const ServerId server(report.server());
  const bool held_up = watch_.HoldsUp(server, report.view(), report.unconfirmed(), now);
  if (!held_up || !running) return;
  const std::optional<MemberId> backup = table_.GiveUpBackup(server);
  if (!backup.has_value()) return;
  const absl::Duration pause = watch_.GaveUp(server, *backup, now);
  log_.Warning(absl::StrCat("server ", server.value, ": its backup on ",
                            NameOfMember(*backup, "a process that is gone"),
                            " confirms nothing, they may not reach each other; it goes on without it, for ",
                            absl::FormatDuration(pause), " at least"));
}

void Replication::BringBack(absl::Time now) {
  if (!running()) return;
  for (const auto& [server, backup] : watch_.Due(now)) {
    const Member* const member = members_.Find(backup);
    if (member == nullptr || now - member->heard > kHeardOfLately) continue;
    if (!table_.Join(server, backup)) continue;  // it has another, or serves it by now
    watch_.Back(server, backup, now);
    log_.Info(absl::StrCat("server ", server.value, ": ", NameOf(*member), " becomes its backup again"));
  }
}

std::vector<std::string> Replication::Addresses() const {
  if (!running()) return members_.Addresses(options_.servers);
  std::vector<std::string> addresses;
  for (const ReplicaTable::View& view : table_.views()) addresses.push_back(view.primary_address);
  return addresses;
}

std::optional<Replication::LastingViews> Replication::WantsLasting() const {
  if (!running() || (MayBeTold() && table_.news() == lasting_news_)) return std::nullopt;
  return LastingViews{table_.changes(), table_.news(), table_.Lasting()};
}

void Replication::Lasting(uint64_t change, uint64_t news) {
  lasting_change_ = std::max(lasting_change_, change);
  lasting_news_ = std::max(lasting_news_, news);
  if (MayBeTold()) moves_ = table_.moves();
}

}  // namespace descent
