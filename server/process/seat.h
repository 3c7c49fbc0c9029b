// The blocks of one server in this process: as its primary, which workers talk to, or, with replicas, as the backup of
// another process. The owner passes on the coordinator's news, once a beat; the seat does what SeatState says is
// lacking: makes blocks anew with every generation (as the cut has them that it goes on from), writes its parts of
// cuts, is promoted, finds its backup.
//
// Thread-safety: none; the member's thread owns it.
#ifndef DESCENT_SERVER_PROCESS_SEAT_H_
#define DESCENT_SERVER_PROCESS_SEAT_H_

#include <atomic>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/log.h"
#include "common/job/shared_rate_changes.h"
#include "common/storage/storage.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/coordinator.pb.h"
#include "server/node/server_node.h"
#include "server/process/cut_writer.h"
#include "server/process/server_services.h"
#include "server/replica/backup_node.h"
#include "server/replica/primary_node.h"
#include "server/replica/replica_link.h"
#include "server/replica/seat_state.h"

namespace descent {

class RpcServer;

// What the seats of a process share; outlives them.
struct SeatContext {
  v1::GetJobReply job;
  v1::RegisterReply registration;
  std::unique_ptr<Storage> storage;  // the checkpoint folder
  const Logger* log = nullptr;
  bool replicated = false;
  std::shared_ptr<SharedRateChanges> rate_changes = std::make_shared<SharedRateChanges>();
};

class Seat {
 public:
  // Serves at `services`, which are the process's own, at its own address.
  Seat(const SeatContext* context, ServerId server, ServerServices* services, std::string address);
  // Serves at a port of its own: `services` and `rpc` are handed over.
  Seat(const SeatContext* context, ServerId server, std::unique_ptr<ServerServices> services,
       std::unique_ptr<RpcServer> rpc, std::string address);
  // Lets go of all that it holds.
  ~Seat();

  // `want`: what the coordinator says of this server.
  void Tend(const v1::HeartbeatReply& news, const v1::Seat& want);
  // The coordinator that it was told of is no more: whatever was ordered is void. What it holds stays.
  void Rest();
  // A generation begins that goes on with what this seat holds.
  void Carry(Generation generation);
  // Takes up what has come about meanwhile. UNAVAILABLE and the like: it will be tried again. Anything else: this
  // process can't take part, and this is why.
  absl::Status Poll();
  // Waits until the blocks that are being made are there, or the deadline.
  bool AwaitPlaced(absl::Time deadline);

  ServerId server() const { return state_.server(); }
  bool placing() const { return placing_.valid(); }
  bool ready(uint64_t generation) const { return state_.ready(generation); }
  bool primary() const { return state_.primary(); }
  bool writing() const { return cut_ != nullptr; }
  ServerServices* services() { return services_; }
  // What the coordinator is to know of it: its load, its part of a cut, its replicas.
  // Waits for the node to say it, this long at most.
  void Report(v1::HeartbeatRequest* beat, absl::Duration patience = absl::Milliseconds(200));

 private:
  // What the node's thread knows of itself.
  struct Answer {
    v1::ServerLoad load;
    SeatState::NodeView replicas;
  };

  // Makes the blocks; on a thread of its own, since a large model takes longer than a lease.
  absl::Status Place(const v1::HeartbeatReply& news, const v1::Seat& want);
  absl::Status Restore(const v1::RestorePoint& from, const ServerNodeOptions& options, ServerNode* node);
  void Promote();
  void SetBackup(const v1::Seat& want);
  void TakeOrder(const v1::HeartbeatReply& news);
  // Gives the cut under way up; its thread may still be at the disk, and is not waited for.
  void RetireCut();
  // Asks the node on its thread, and leaves the answer to the writer. A node that is busy with another cut (that of a
  // backup which is sent its images) is asked again, until the order is taken back.
  void BeginCut();
  Answer Ask(absl::Duration patience);

  const SeatContext* const context_;
  const std::unique_ptr<ServerServices> own_services_;
  const std::unique_ptr<RpcServer> rpc_;
  ServerServices* const services_;
  const std::string address_;

  SeatState state_;
  // With replicas, the node's two faces, owned by the service and touched on its thread alone: a backup lies within a
  // primary that is alone until it is promoted.
  PrimaryNode* primary_node_ = nullptr;
  BackupNode* backup_node_ = nullptr;  // null: it has been the primary from the beginning
  // Kept until the node has let go of them: a link's end waits for its stream, which is not for the node's thread.
  std::vector<std::shared_ptr<BackupLink>> links_;
  std::shared_ptr<std::atomic<bool>> promotion_failed_ = std::make_shared<std::atomic<bool>>(false);
  std::vector<TensorSpec> tensors_;
  v1::CutOrder order_;              // of cut_
  std::shared_ptr<CutWriter> cut_;  // under way, or its result not asked for any more
  std::shared_ptr<std::atomic<bool>> cut_refused_ = std::make_shared<std::atomic<bool>>(false);  // cut_, so far
  std::vector<std::shared_ptr<CutWriter>> retired_;
  std::future<absl::Status> placing_;  // last: Place uses the fields above, but for state_
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_SEAT_H_
