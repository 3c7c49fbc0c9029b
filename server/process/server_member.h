// One server as a member of its cluster: registers, makes its blocks when it is told which (anew with every generation,
// as the cut has them that it goes on from), writes its parts of cuts, beats, reports its load, and leaves when the run
// is over. A coordinator that is gone is waited for: another takes its place, and this server registers again.
//
// Thread-safety: none; Run is called once.
#ifndef DESCENT_SERVER_PROCESS_SERVER_MEMBER_H_
#define DESCENT_SERVER_PROCESS_SERVER_MEMBER_H_

#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/control/control_client.h"
#include "common/storage/storage.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/coordinator.pb.h"
#include "server/node/server_node.h"
#include "server/process/cut_writer.h"
#include "server/rpc/parameter_service.h"

namespace descent {

struct ServerMemberOptions {
  std::string address;  // where others reach this server
  std::string host;
  uint64_t memory_bytes = 0;  // 0: the job's limit, else 90 % of the machine's
  std::string numerics_profile;
  std::string coordinator;     // host:port, for checkpoints that can't be written to the folder
  std::string checkpoint_dir;  // where this host has the checkpoint folder; "": where the coordinator's has it
  absl::Duration wait = absl::Minutes(10);  // for the coordinator
};

// The parameter service of this process and what its node reports, to be picked up by the member. Made first: a server
// binds before it knows the address to register. Thread-safe.
class ServerServices {
 public:
  struct Scalars {
    Clock clock;
    std::vector<BlockSquare> squares;
  };

  ServerServices();
  ParameterService* service() { return service_.get(); }

  // Waits until there is something to take, or the deadline.
  void Wait(absl::Time deadline, bool failure_known);
  std::vector<Scalars> TakeScalars();
  absl::Status failure() const;

 private:
  mutable Mutex mu_;
  CondVar changed_;
  std::vector<Scalars> scalars_ ABSL_GUARDED_BY(mu_);  // at most kMaxScalars
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<ParameterService> service_;  // last: its thread calls into the fields above
};

class ServerMember {
 public:
  // Pointers outlive the member.
  ServerMember(ServerMemberOptions options, ControlClient* control, ServerServices* services, const Logger* log)
      : options_(std::move(options)), control_(control), services_(services), log_(log) {}

  // Takes part until the run is over. The phase it ended with, or why it could not go on.
  absl::StatusOr<v1::Phase> Run();

 private:
  absl::Status Register(bool again);
  // The checkpoint folder: itself where this host reaches it, else through the coordinator.
  std::unique_ptr<Storage> CheckpointStorage() const;
  // Makes the blocks of the news's generation; on a thread of its own, since a large model takes longer than a lease.
  absl::Status Place(const v1::HeartbeatReply& news);
  absl::Status Restore(const v1::RestorePoint& from, const ServerNodeOptions& options, ServerNode* node);
  void TakeOrder(const v1::HeartbeatReply& news);
  // Gives the cut under way up; its thread may still be at the disk, and is not waited for.
  void RetireCut();
  // Asks the node on its thread, and leaves the answer to the writer.
  void BeginCut(const v1::CutOrder& order);
  v1::ServerLoad Load();
  void SendScalars();
  void ReportOwnFailure(const absl::Status& cause);

  const ServerMemberOptions options_;
  ControlClient* const control_;
  ServerServices* const services_;
  const Logger* const log_;
  v1::GetJobReply job_;
  v1::RegisterReply registration_;
  bool ready_ = false;
  uint64_t generation_ = 0;  // that the blocks are of
  std::vector<TensorSpec> tensors_;
  std::unique_ptr<Storage> storage_;  // the checkpoint folder
  std::shared_ptr<CutWriter> cut_;    // under way, or its result not asked for any more
  std::vector<std::shared_ptr<CutWriter>> retired_;
  uint64_t placing_generation_ = 0;
  std::future<absl::Status> placing_;  // last: Place uses the fields above, but for ready_ and generation_
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_SERVER_MEMBER_H_
