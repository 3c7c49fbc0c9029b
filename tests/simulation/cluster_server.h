// A server's process in the simulated cluster: registers, beats, and holds the seats that it is told to
// (cluster_seat.h: that of the server id it was given; with replicas also others), as server/process/server_member does
// with threads.
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_SERVER_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_SERVER_H_

#include <map>
#include <memory>
#include <string>

#include "tests/simulation/cluster_parts.h"
#include "tests/simulation/cluster_seat.h"

namespace descent::simulation {

class ClusterServer {
 public:
  ClusterServer(Cluster* cluster, uint32_t index) : cluster_(cluster), index_(index) {}

  void Start(bool elsewhere);  // the process begins; perhaps at another address
  void Killed();               // what it was is gone
  bool exited() const { return exited_; }
  ProcessId process() const { return cluster_->server_process(index_); }
  const std::map<uint32_t, std::shared_ptr<ClusterSeat>>& seats() const { return seats_; }  // by server id

 private:
  std::string name() const { return absl::StrCat("server process ", index_); }
  void After(absl::Duration after, void (ClusterServer::*then)());
  void Register();
  void Beat();
  void TakeNews(const v1::HeartbeatReply& news);
  void TendSeats(const v1::HeartbeatReply& news);
  std::shared_ptr<ClusterSeat> MakeSeat(const v1::Seat& want);
  bool ready() const;
  void End();

  Cluster* const cluster_;
  const uint32_t index_;
  uint32_t moves_ = 0, ports_ = 0;
  std::string address_;
  bool exited_ = false;

  // Of this life of the process.
  std::unique_ptr<ProcessStorage> storage_;
  uint64_t nonce_ = 0;
  v1::RegisterReply registration_;
  bool moved_ = false, zombie_ = false;  // and not yet registered as such
  absl::Time heard_;
  uint64_t generation_ = 0;                                 // that the seats are of, or are being made for
  std::map<uint32_t, std::shared_ptr<ClusterSeat>> seats_;  // they use storage_
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_SERVER_H_
