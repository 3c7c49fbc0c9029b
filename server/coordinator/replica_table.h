// Which process serves each server's blocks, and which holds their second copy. Pure: the same calls, the same table.
// Thread-safety: none.
//
// A server is an id of the partition map. Its *primary* answers workers; its *backup* is told every push before the
// primary answers for it (primary-backup replication: Alsberg and Day, ICSE 1976). The pair is a *view* with a number;
// every change of the pair is a new view, and only this table makes views, so that a primary which is cut off, and
// whose backup has been promoted, is left with a backup that answers it no more.
//
//   begin      server k on the k-th process, its backup on the next one, both fresh: made as the generation begins.
//   lost       of the primary: a backup that is synced is promoted; one that isn't holds too little, and the server is
//              lost. Of the backup: the primary goes on alone.
//   given up   a backup that its primary can't reach: the primary goes on alone, as if the backup were gone.
//   adopt      another coordinator takes over: the processes say what they hold, and whoever holds a server's blocks
//              goes on with them. What is believed is decided by the views that the coordinator before has made
//              lasting: it did so before anybody heard of a promotion or of a backup that was given up. Those of
//              the generation before count as well until the adopted one is settled (replica_views_file.h).
//   joined     a process without duties is made the backup of every server that has none; the primary sends it
//              everything, and reports when it is synced.
#ifndef DESCENT_SERVER_COORDINATOR_REPLICA_TABLE_H_
#define DESCENT_SERVER_COORDINATOR_REPLICA_TABLE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

class ReplicaTable {
 public:
  // Seeded bugs, for tests alone.
  enum class Fault : uint8_t {
    kNone,
    kGivenUpPromoted,  // a backup that was given up still takes over
  };
  explicit ReplicaTable(Fault fault = Fault::kNone) : fault_(fault) {}

  struct View {
    uint64_t number = 0;
    MemberId primary;
    std::optional<MemberId> backup;
    bool fresh = true;      // the backup is made as the generation begins
    bool synced = false;    // the backup holds whatever has been acknowledged
    bool given_up = false;  // Fault::kGivenUpPromoted alone: the primary goes on without the backup
    bool carried = false;   // the primary holds the blocks already, of the generation before
    bool primary_ready = false, backup_ready = false;
    std::string primary_address, backup_address;  // "": not told yet
  };

  // The members that hold the servers at the beginning, by server id; two at least. `addresses`: theirs.
  void Begin(const std::vector<MemberId>& members, const std::vector<std::string>& addresses);
  struct Held {  // what a process holds
    MemberId member;
    v1::SeatReport seat;
    uint64_t generation = 0;  // that the seat is of
  };
  // False, and nothing has changed: some server's blocks are held by nobody who can be believed. `held`: what members
  // that are there hold; seats that are of no generation of `lasting` or lasting.before are passed over. Backups are
  // chosen among `members`, anew.
  bool Adopt(const v1::ReplicaViews& lasting, const std::vector<Held>& held, const std::vector<MemberId>& members);
  // All that was adopted is held in the new generation: what lasted before counts no more, once that is lasting too.
  void Settle();
  // No generation runs.
  void Halt();
  bool running() const { return !views_.empty(); }
  // A member of the beginning that is gone, and is not in `members`: Begin is to be called again.
  bool IsOf(const std::vector<MemberId>& members) const;

  // What a member says of what it holds; of other views, or of what it is not to hold, it counts nothing: false.
  bool Report(MemberId from, const v1::SeatReport& report);
  // Every server has a primary, and a synced backup or (adopted) one that is to join.
  bool CanRun() const;

  struct Loss {
    std::vector<ServerId> promoted, alone, lost;
  };
  // The member is gone. Where `lost` is not empty the table is of no use any more.
  Loss Lost(MemberId member);
  // Would Lost(member) lose nothing?
  bool Covers(MemberId member) const;
  // The server's backup is its backup no more; who it was, if it had one.
  std::optional<MemberId> GiveUpBackup(ServerId server);
  // The member becomes the server's backup, if that lacks one and is served by another.
  bool Join(ServerId server, MemberId member);
  // A member that may hold what lacks a backup; the servers that it becomes the backup of.
  std::vector<ServerId> Joined(MemberId member);

  // All that the member is to hold.
  std::vector<v1::Seat> SeatsOf(MemberId member) const;
  // The member's seats have been reported ready.
  bool Ready(MemberId member) const;
  bool IsPrimary(MemberId member, ServerId server) const;
  const std::vector<View>& views() const { return views_; }
  // Promotions since Begin.
  uint64_t moves() const { return moves_; }
  // Counts what must last before anybody hears of it; and what should, soon.
  uint64_t changes() const { return changes_; }
  uint64_t news() const { return news_; }
  v1::ReplicaViews Lasting() const;  // run and generation are the caller's

 private:
  // The view's pair has changed: a new view, which nobody hears of before it lasts, and which begins alone.
  void GoAlone(View* view);

  Fault fault_;
  std::vector<View> views_;               // by server id
  std::vector<v1::ReplicaViews> before_;  // while what was adopted is not settled, newest first
  uint64_t last_view_ = 0;                // numbers are never used twice
  uint64_t moves_ = 0;
  uint64_t changes_ = 0, news_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_REPLICA_TABLE_H_
