// What a process knows of one server's blocks, which it holds as primary or backup, and what is to be done about them
// when the coordinator's news come: blocks made anew with every generation, a backup promoted, a primary given a backup
// or left alone, a cut begun or dropped. Pure: the caller does what is said, on threads or in virtual time
// (server/process/seat, the simulator). Thread-safety: none.
#ifndef DESCENT_SERVER_REPLICA_SEAT_STATE_H_
#define DESCENT_SERVER_REPLICA_SEAT_STATE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/ids.h"
#include "descent/v1/coordinator.pb.h"
#include "server/replica/backup_orders.h"

namespace descent {

class SeatState {
 public:
  SeatState(ServerId server, bool replicated) : server_(server), replicated_(replicated) {}

  // News come: of another generation or, for a backup, of another view, what is held is void.
  void Hear(const v1::HeartbeatReply& news, const v1::Seat& want);
  // After Hear: the cut that is ordered, if one is, takes a part of this seat.
  bool CutWanted(const v1::HeartbeatReply& news) const;
  // Then what is to be done, in this order.
  struct Duty {
    bool place = false;             // make blocks, as news and want have it; then say Placed
    bool promote = false;           // the backup takes over
    std::optional<uint64_t> alone;  // the primary goes on alone, in that view
    bool backup = false;            // the primary gets a backup: want.backup_address, in view()
  };
  // `placing`: blocks are being made.
  Duty Tend(const v1::HeartbeatReply& news, const v1::Seat& want, bool placing);

  void Placed();
  // What is held is void.
  void Void() { ready_ = false; }
  // A generation goes on with what is held.
  void Carry(Generation generation) { generation_ = generation.value; }

  // What the node says of its replicas; all but view is of no account without.
  struct NodeView {
    uint64_t view = 0;  // that the primary is in
    bool synced = false;
    bool whole = false;
    uint64_t unconfirmed = 0;
  };
  v1::SeatReport Report(const std::string& address, const NodeView& node) const;

  ServerId server() const { return server_; }
  bool ready() const { return ready_; }
  bool ready(uint64_t generation) const { return ready_ && generation_ == generation; }
  bool primary() const { return primary_; }
  uint64_t generation() const { return generation_; }  // of the blocks
  uint64_t view() const { return orders_.view(); }     // that the node has been told of
  bool linked() const { return orders_.linked(); }     // it has a backup whose address is known

 private:
  const ServerId server_;
  const bool replicated_;
  bool ready_ = false;
  bool primary_ = true;
  uint64_t generation_ = 0;
  BackupOrders orders_;     // what the node has been told
  uint64_t told_view_ = 0;  // that the coordinator has told last
  uint64_t placing_generation_ = 0, placing_view_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_REPLICA_SEAT_STATE_H_
