// What a primary's node is to be told of its backup, from what the coordinator says of the server's seat, beat by beat.
// Pure; a value.
//
// A node lets go of a backup for good: what it has answered since, that backup lacks, while the coordinator may hold it
// for synced. So within a view nothing but SetBackup may follow the node's going alone before it had one, and nothing
// but GoAlone once it has. That is so because within a view the table (coordinator/replica_table.h) keeps the pair and
// only learns the backup's address, and because views only grow.
#ifndef DESCENT_SERVER_REPLICA_BACKUP_ORDERS_H_
#define DESCENT_SERVER_REPLICA_BACKUP_ORDERS_H_

#include <cstdint>
#include <utility>

#include "descent/v1/coordinator.pb.h"

namespace descent {

class BackupOrders {
 public:
  enum class Kind {
    kNothing,
    kAlone,   // GoAlone(view)
    kBackup,  // SetBackup(view, a link to want.backup_address, want.fresh)
  };
  struct Order {
    Kind kind = Kind::kNothing;
    uint64_t view = 0;
  };

  // A node was made: as a primary of no view (0), or as the backup of this one.
  void Begin(uint64_t view) {
    view_ = view;
    linked_ = false;
  }
  // `want`: the seat of a primary. The order is obeyed.
  Order Take(const v1::Seat& want) {
    // The address of a backup becomes known some beats after the backup is.
    const bool linked = want.await_backup() && !want.backup_address().empty();
    if (want.view() == view_ && linked == linked_) return {};
    if (want.await_backup() && !linked) {
      // Nobody waits meanwhile for the one before, which is gone. (Where it is fresh nothing is pushed yet.)
      return std::exchange(linked_, false) ? Order{Kind::kAlone, view_} : Order{};
    }
    view_ = want.view();
    linked_ = linked;
    return {linked ? Kind::kBackup : Kind::kAlone, view_};
  }

  uint64_t view() const { return view_; }  // that the node was told of
  bool linked() const { return linked_; }  // it has a backup there

 private:
  uint64_t view_ = 0;
  bool linked_ = false;
};

}  // namespace descent

#endif  // DESCENT_SERVER_REPLICA_BACKUP_ORDERS_H_
