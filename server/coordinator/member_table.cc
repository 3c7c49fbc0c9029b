#include "server/coordinator/member_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace descent {

std::string NameOf(const Member& member) {
  const uint64_t number = member.is_server ? member.server.value : member.id.value;
  return absl::StrCat(member.is_server ? "server " : "worker ", number, " on host ", member.host, " (pid ", member.pid,
                      ")");
}

std::string Clip(absl::string_view text) { return std::string(text.substr(0, MemberTable::kMaxText)); }

const Member& MemberTable::Add(Member member) {
  member.id = MemberId(++last_);
  member.host = Clip(member.host);
  member.address = Clip(member.address);
  servers_ += member.is_server;
  return members_.emplace(member.id, std::move(member)).first->second;
}

std::optional<Member> MemberTable::Remove(MemberId id) {
  const auto it = members_.find(id);
  if (it == members_.end()) return std::nullopt;
  Member member = std::move(it->second);
  members_.erase(it);
  servers_ -= member.is_server;
  return member;
}

Member* MemberTable::Find(MemberId id) {
  const auto it = members_.find(id);
  return it == members_.end() ? nullptr : &it->second;
}

const Member* MemberTable::Find(MemberId id) const { return const_cast<MemberTable*>(this)->Find(id); }

Member* MemberTable::FindAs(MemberId id, uint64_t nonce) {
  Member* const member = Find(id);
  const bool own = member != nullptr && (nonce == 0 || member->nonce == 0 || member->nonce == nonce);
  return own ? member : nullptr;
}

Member* MemberTable::FindNonce(bool is_server, uint64_t nonce) {
  if (nonce == 0) return nullptr;
  for (auto& [id, member] : members_) {
    if (member.is_server == is_server && member.nonce == nonce) return &member;
  }
  return nullptr;
}

Member* MemberTable::FindProcess(bool is_server, absl::string_view host, uint64_t pid) {
  if (pid == 0) return nullptr;
  for (auto& [id, member] : members_) {
    if (member.is_server == is_server && member.pid == pid && member.host == host) return &member;
  }
  return nullptr;
}

std::vector<MemberId> MemberTable::ServersAt(absl::string_view address) const {
  std::vector<MemberId> found;
  for (const auto& [id, member] : members_) {
    if (member.is_server && member.address == address) found.push_back(id);
  }
  return found;
}

ServerId MemberTable::FreeServer() const {
  const auto taken = [this](ServerId id) {
    return std::any_of(begin(), end(), [&](const auto& m) { return m.second.is_server && m.second.server == id; });
  };
  ServerId id;
  while (taken(id)) ++id;
  return id;
}

const Member* MemberTable::MostSilentServer(absl::Duration patience, absl::Time now) const {
  const Member* silent = nullptr;
  for (const auto& [id, member] : members_) {
    if (!member.is_server || now - member.heard <= patience) continue;
    if (silent == nullptr || member.heard < silent->heard) silent = &member;
  }
  return silent;
}

std::vector<std::string> MemberTable::Addresses(uint32_t servers) const {
  std::vector<std::string> addresses(servers);
  for (const auto& [id, member] : members_) {
    if (member.is_server) addresses[member.server.value] = member.address;
  }
  return addresses;
}

bool MemberTable::AllServersReady() const {
  return std::all_of(begin(), end(), [](const auto& m) { return !m.second.is_server || m.second.ready; });
}

void MemberTable::NobodyIsReady() {
  for (auto& [id, member] : members_) member.ready = false;
}

void MemberTable::Excuse(absl::Duration absence, absl::Time now) {
  for (auto& [id, member] : members_) member.heard = std::min(now, member.heard + absence);
}

uint64_t MemberTable::FurthestRound() const {
  uint64_t round = 0;
  for (const auto& [id, member] : members_) {
    if (member.is_server) round = std::max<uint64_t>(round, member.load.round());
  }
  return round;
}

uint64_t MemberTable::LastRound() const {
  std::optional<uint64_t> round;
  for (const auto& [id, member] : members_) {
    if (member.is_server) round = std::min<uint64_t>(round.value_or(UINT64_MAX), member.load.round());
  }
  return round.value_or(0);
}

ClippedSteps MemberTable::Steps() const {
  ClippedSteps sum;
  for (const auto& [id, member] : members_) {
    sum.steps += member.load.steps();
    sum.clipped += member.load.clipped();
  }
  return sum;
}

uint64_t MemberTable::Bytes() const {
  uint64_t bytes = 0;
  for (const auto& [id, member] : members_) bytes += member.load.bytes_in() + member.load.bytes_out();
  return bytes;
}

}  // namespace descent
