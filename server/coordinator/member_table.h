// The living members of a run: which processes they are, when they were last heard of, and the ids they go by. Pure:
// the same calls, the same table. Thread-safety: none.
//
// A member has an id that no other member of this coordinator ever gets; a server also has a server id, which another
// process may take once it is gone. What a member says of itself is clipped to kMaxText.
#ifndef DESCENT_SERVER_COORDINATOR_MEMBER_TABLE_H_
#define DESCENT_SERVER_COORDINATOR_MEMBER_TABLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

struct Member {
  MemberId id;
  bool is_server = false;
  ServerId server;
  std::string host, address;
  uint64_t pid = 0, nonce = 0, memory_bytes = 0;
  absl::Time heard;
  bool ready = false;  // of a server: its blocks of this generation are made
  bool told_end = false;
  v1::ServerLoad load;
  uint64_t rate_changes = 0;         // that a server knows of this generation
  std::vector<v1::SeatReport> held;  // when it registered, of the generation below
  uint64_t held_generation = 0;
};

// Steps of blocks and slots, with a gradient, and those whose gradient was clipped; as far as servers have told.
struct ClippedSteps {
  uint64_t steps = 0, clipped = 0;
};

// "server 1 on host b (pid 4711)".
std::string NameOf(const Member& member);

// Of a text that came from outside: as much as is kept.
std::string Clip(absl::string_view text);

class MemberTable {
 public:
  static constexpr size_t kMaxMembers = 16384;
  static constexpr size_t kMaxText = 4096;

  // Under the next id, which is set. The reference holds until the member is removed.
  const Member& Add(Member member);
  std::optional<Member> Remove(MemberId id);

  // nullptr: no such member.
  Member* Find(MemberId id);
  const Member* Find(MemberId id) const;
  // A process that registered with another coordinator may come with an id that somebody else has here: with a nonce it
  // is found under its own alone (0, on either side: any).
  Member* FindAs(MemberId id, uint64_t nonce);
  // Who registered with this nonce; 0: nobody.
  Member* FindNonce(bool is_server, uint64_t nonce);
  // The process; pid 0: nobody.
  Member* FindProcess(bool is_server, absl::string_view host, uint64_t pid);

  std::vector<MemberId> ServersAt(absl::string_view address) const;
  // The lowest server id that nobody has.
  ServerId FreeServer() const;
  // The server that was not heard of for the longest time, of those for longer than `patience`; nullptr: none.
  const Member* MostSilentServer(absl::Duration patience, absl::Time now) const;
  // Of servers 0 to servers - 1; "" where there is none.
  std::vector<std::string> Addresses(uint32_t servers) const;
  bool AllServersReady() const;
  // Nobody is, since a generation has ended.
  void NobodyIsReady();
  // `absence`: for so long nobody could have been heard.
  void Excuse(absl::Duration absence, absl::Time now);

  // The furthest round that a server tells, and what all have sent and received.
  uint64_t FurthestRound() const;
  uint64_t LastRound() const;  // of the server that is least far; 0: there is none
  uint64_t Bytes() const;
  ClippedSteps Steps() const;

  size_t size() const { return members_.size(); }
  size_t servers() const { return servers_; }
  size_t workers() const { return members_.size() - servers_; }
  // By id.
  auto begin() const { return members_.begin(); }
  auto end() const { return members_.end(); }

 private:
  std::map<MemberId, Member> members_;
  uint64_t last_ = 0;
  size_t servers_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_MEMBER_TABLE_H_
