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
  struct View {
    uint64_t number = 0;
    MemberId primary;
    std::optional<MemberId> backup;
    bool fresh = true;    // the backup is made as the generation begins
    bool synced = false;  // the backup holds whatever has been acknowledged
    bool primary_ready = false, backup_ready = false;
    std::string primary_address, backup_address;  // "": not told yet
  };

  // The members that hold the servers at the beginning, by server id; two at least. `addresses`: theirs.
  void Begin(const std::vector<MemberId>& members, const std::vector<std::string>& addresses);
  // No generation runs.
  void Halt() { views_.clear(); }
  bool running() const { return !views_.empty(); }
  // A member of the beginning that is gone, and is not in `members`: Begin is to be called again.
  bool IsOf(const std::vector<MemberId>& members) const;

  // What a member says of what it holds; of other views, or of what it is not to hold, it counts nothing.
  void Report(MemberId from, const v1::SeatReport& report);
  // Every server has a primary and a synced backup.
  bool AllSynced() const;

  struct Loss {
    std::vector<ServerId> promoted, alone, lost;
  };
  // The member is gone. Where `lost` is not empty the table is of no use any more.
  Loss Lost(MemberId member);
  // Would Lost(member) lose nothing?
  bool Covers(MemberId member) const;
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

 private:
  std::vector<View> views_;  // by server id
  uint64_t last_view_ = 0;   // numbers are never used twice
  uint64_t moves_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_REPLICA_TABLE_H_
