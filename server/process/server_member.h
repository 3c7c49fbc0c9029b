// One server process as a member of its cluster: registers, holds the blocks that it is told to (seat.h: those of one
// server; with replicas also those of others, as their backup), beats, reports its load, and leaves when the run is
// over. A coordinator that is gone is waited for: another takes its place, and this process registers again.
//
// Thread-safety: none; Run is called once.
#ifndef DESCENT_SERVER_PROCESS_SERVER_MEMBER_H_
#define DESCENT_SERVER_PROCESS_SERVER_MEMBER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/log.h"
#include "common/control/control_client.h"
#include "common/net/endpoint.h"
#include "common/storage/storage.h"
#include "descent/v1/coordinator.pb.h"
#include "server/process/seat.h"
#include "server/process/server_services.h"

namespace descent {

struct ServerMemberOptions {
  std::string address;  // where others reach this server
  // Asked whenever it registers again, since a host may come back to the network with another address; null: it stays.
  std::function<absl::StatusOr<std::string>()> find_address;
  std::string host;
  uint64_t memory_bytes = 0;  // 0: the job's limit, else 90 % of the machine's
  std::string numerics_profile;
  std::string coordinator;     // host:port, for checkpoints that can't be written to the folder
  std::string checkpoint_dir;  // where this host has the checkpoint folder; "": where the coordinator's has it
  absl::Duration wait = absl::Minutes(10);  // for the coordinator
  Endpoint replica_bind;                    // where backups of other servers listen, at any free port
  std::string replica_host;                 // under which others reach those
  bool local_sockets = true;                // and over local sockets too (RpcServer::ServeLocally)
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
  void FindAddress();
  // The checkpoint folder: itself where this host reaches it, else through the coordinator.
  std::unique_ptr<Storage> CheckpointStorage() const;
  v1::HeartbeatRequest Beat();
  // Takes seats up and lets go of them, as the coordinator's news say.
  absl::Status TendSeats(const v1::HeartbeatReply& news);
  absl::StatusOr<std::unique_ptr<Seat>> MakeSeat(const v1::Seat& want);
  bool ready() const;
  // True: there are some to be confirmed.
  bool TakeRates(const v1::HeartbeatReply& news);
  void SendScalars();
  void SpeakOfSteps();
  // A failure of a node, told once.
  void TellFailures();
  // `diverged_generation`: as in FailureReport.
  void ReportOwnFailure(const absl::Status& cause, uint64_t diverged_generation = 0);

  ServerMemberOptions options_;
  ControlClient* const control_;
  ServerServices* const services_;
  const Logger* const log_;
  std::unique_ptr<SeatContext> context_;
  std::vector<std::unique_ptr<Storage>> storages_;   // of earlier registrations
  uint64_t generation_ = 0;                          // that the seats are of, or are being made for
  uint64_t rates_of_ = 0;                            // the generation that told the changes of the rate
  std::deque<v1::ScalarPartials> untold_;            // norms that have not arrived yet
  size_t untold_bytes_ = 0;                          // of them, as messages
  std::optional<uint64_t> failure_told_;             // the generation whose first failure has been told
  std::map<uint32_t, std::unique_ptr<Seat>> seats_;  // by server id; last: they use the fields above
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_SERVER_MEMBER_H_
