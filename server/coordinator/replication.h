// The replicas of a run: who serves and who backs up (replica_table.h), which backups are given up and come again
// (backup_watch.h), and what must be lasting before anybody hears of it. Pure: the same calls, the same words.
// Thread-safety: none.
//
//   a generation begins: Place, or Adopt  ->  it runs: Settle  ->  it ends: Halt
//
// Without replicas (not enabled) it holds nothing, and every server is its own member's.
#ifndef DESCENT_SERVER_COORDINATOR_REPLICATION_H_
#define DESCENT_SERVER_COORDINATOR_REPLICATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/base/ids.h"
#include "descent/v1/coordinator.pb.h"
#include "server/coordinator/backup_watch.h"
#include "server/coordinator/member_table.h"
#include "server/coordinator/replica_table.h"
#include "server/coordinator/run_log.h"

namespace descent {

class Replication {
 public:
  struct Options {
    bool enabled = false;
    uint32_t servers = 1;
    absl::Duration patience;                                 // how long a backup may confirm nothing
    ReplicaTable::Fault fault = ReplicaTable::Fault::kNone;  // for tests alone
  };
  // Pointers outlive this. What happens is told in *log.
  Replication(const Options& options, const MemberTable* members, RunLog* log)
      : options_(options), members_(*members), log_(*log), table_(options.fault), watch_(options.patience) {}

  bool enabled() const { return options_.enabled; }
  bool running() const { return table_.running(); }
  // This generation goes on with what servers held.
  bool adopted() const { return adopted_; }
  uint64_t promotions() const { return promotions_; }

  // --- Generations
  // Another coordinator of the run has made these lasting: goes on with what the members that are there hold of them.
  // False: they do not hold all blocks between them.
  bool Adopt(const v1::ReplicaViews& lasting);
  // All servers are there: each serves its own blocks and backs up another's, unless the generation was adopted, or
  // they do already.
  void Place();
  // Every server is served, and has its backup.
  bool CanRun() const { return !enabled() || table_.CanRun(); }
  void Settle() { table_.Settle(); }
  // Returns whether the generation had been adopted.
  bool Halt();

  // --- Members
  // A server has registered while the generation runs: it backs up whatever lacks a backup.
  void Joined(const Member& server);
  // A server that is no member any more: true if all that it served is served by others now.
  bool GoesOnWithout(const Member& server);
  void Forget(MemberId member) { watch_.Forget(member); }
  // A server is lost with the member, unless this says that others take over at once.
  bool Covers(MemberId member) const { return enabled() && table_.Covers(member); }
  // What a server says of what it holds. A backup that holds its primary up is given up for a while, if `running`.
  void Report(MemberId from, const v1::SeatReport& report, bool running, absl::Time now);
  bool Ready(MemberId member) const { return !enabled() || table_.Ready(member); }
  // Backups that were given up come again.
  void BringBack(absl::Time now);
  bool Serves(const Member& member, ServerId server) const {
    return enabled() ? table_.IsPrimary(member.id, server) : member.server == server;
  }

  // --- What others hear
  // Primaries and backups that have changed are told once that is lasting.
  bool MayBeTold() const { return table_.changes() == lasting_change_; }
  std::vector<v1::Seat> SeatsOf(MemberId member) const { return table_.SeatsOf(member); }
  uint64_t moves() const { return moves_; }  // promotions of this generation that may be heard of
  std::vector<std::string> Addresses() const;
  const std::vector<ReplicaTable::View>& views() const { return table_.views(); }

  // --- The owner
  struct LastingViews {
    uint64_t change = 0, news = 0;
    v1::ReplicaViews views;  // run and generation are the caller's
  };
  // To be made lasting; nullopt: all is.
  std::optional<LastingViews> WantsLasting() const;
  void Lasting(uint64_t change, uint64_t news);

 private:
  std::string NameOfMember(MemberId id, const char* otherwise) const;

  const Options options_;
  const MemberTable& members_;
  RunLog& log_;
  ReplicaTable table_;
  BackupWatch watch_;
  bool adopted_ = false;
  uint64_t promotions_ = 0;
  uint64_t lasting_change_ = 0, lasting_news_ = 0;
  uint64_t moves_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_REPLICATION_H_
