// A cluster in virtual time around one coordinator, for its tests.
#ifndef DESCENT_SERVER_COORDINATOR_COORDINATOR_TEST_CLUSTER_H_
#define DESCENT_SERVER_COORDINATOR_COORDINATOR_TEST_CLUSTER_H_

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "server/coordinator/coordinator.h"

namespace descent {

inline v1::FailureReport FailureReportOf(const std::string& role, const std::string& host, uint64_t pid, bool own,
                                         const std::string& cause, double unix_seconds = 0) {
  v1::FailureReport report;
  report.set_role(role);
  report.set_host(host);
  report.set_pid(pid);
  report.set_own(own);
  report.set_cause(cause);
  report.set_unix_seconds(unix_seconds);
  return report;
}

class TestCluster {
 public:
  static CoordinatorOptions Options(uint32_t ranks, uint32_t servers, uint32_t workers) {
    CoordinatorOptions options;
    options.job.set_name("test");
    options.job.set_ranks(ranks);
    options.job.set_batch_size(10);
    options.job.set_epochs(2);
    options.job.mutable_data()->mutable_train()->mutable_csv()->add_path("x.csv");
    options.job.mutable_cluster()->set_servers(servers);
    options.job.mutable_cluster()->set_workers(workers);
    options.job.mutable_learning_rate()->set_constant(0.5);
    options.job.mutable_metrics()->set_every_rounds(10);
    options.job_fingerprint = 0xabc;
    options.run = RunId(77);
    return options;
  }

  explicit TestCluster(CoordinatorOptions options)
      : now(absl::FromUnixSeconds(1000)), c(*Coordinator::Create(std::move(options), now)) {}

  v1::RegisterServerRequest ServerRequest(const std::string& host, uint64_t pid) const {
    v1::RegisterServerRequest request;
    request.set_protocol(1);
    request.set_job_fingerprint(0xabc);
    Numerics(request.mutable_numerics());
    request.set_address(absl::StrCat(host, ":", pid));
    request.set_host(host);
    request.set_pid(pid);
    return request;
  }
  v1::RegisterWorkerRequest WorkerRequest(const std::string& host, uint64_t pid) const {
    v1::RegisterWorkerRequest request;
    request.set_protocol(1);
    request.set_job_fingerprint(0xabc);
    Numerics(request.mutable_numerics());
    request.set_host(host);
    request.set_pid(pid);
    v1::TensorSpec* spec = request.add_tensors();
    spec->set_name("w");
    spec->add_shape(100);
    spec->add_shape(2000);
    spec->set_decay(true);
    v1::DataFile* file = request.add_files();
    file->set_name("x.csv");
    file->set_bytes(12345);
    file->set_rows(1000);
    file->set_crc32c(0x1234abcd);
    request.set_train_rows(1000);
    request.set_validation_rows(100);
    return request;
  }

  uint64_t AddServer(const std::string& host, uint64_t pid) {
    return Joined(c->RegisterServer(ServerRequest(host, pid), now), true);
  }
  uint64_t AddWorker(const std::string& host, uint64_t pid, uint32_t capacity = 0) {
    v1::RegisterWorkerRequest request = WorkerRequest(host, pid);
    request.set_capacity(capacity);
    return Joined(c->RegisterWorker(request, now), false);
  }
  void Kill(uint64_t member) { alive.erase(member); }

  v1::HeartbeatRequest Beat(uint64_t member) const {
    v1::HeartbeatRequest request;
    request.set_member(member);
    request.set_run(77);
    const auto it = generation.find(member);
    request.set_generation(it == generation.end() ? 1 : it->second);
    request.set_ready(ready.contains(member));
    if (const auto heard = moves.find(member); heard != moves.end()) request.set_moves(heard->second);
    const auto held = seats.find(member);
    for (size_t i = 0; held != seats.end() && i < held->second.size(); ++i) {
      const v1::Seat& seat = held->second[i];
      v1::SeatReport* report = request.add_seat();
      report->set_server(seat.server());
      report->set_primary(seat.primary());
      report->set_view(seat.view());
      report->set_address(absl::StrCat("m", member, ":", seat.server()));
      report->set_ready(ready.contains(member));
      report->set_synced(seat.primary() && !seat.backup_address().empty() && sync);
      if (const auto waits = unconfirmed.find(seat.server()); waits != unconfirmed.end() && seat.await_backup()) {
        report->set_unconfirmed(waits->second);
      }
    }
    return request;
  }
  v1::HeartbeatReply Send(const v1::HeartbeatRequest& request) {
    v1::HeartbeatReply reply = c->Heartbeat(request, now);
    seats[request.member()].assign(reply.seat().begin(), reply.seat().end());
    if (reply.has_map()) moves[request.member()] = reply.moves();
    return reply;
  }
  v1::HeartbeatReply Send(uint64_t member) { return Send(Beat(member)); }
  v1::HeartbeatReply Progress(uint64_t member, const std::vector<std::pair<uint32_t, uint64_t>>& clocks,
                              bool done = false) {
    v1::HeartbeatRequest request = Beat(member);
    for (const auto& [rank, clock] : clocks) {
      v1::RankProgress* progress = request.add_progress();
      progress->set_rank(rank);
      progress->set_clock(clock);
      progress->set_examples(clock * 10);
      progress->set_done(done);
    }
    return Send(request);
  }

  // Time goes on in ticks; whoever is alive sends heartbeats.
  void Run(absl::Duration duration) {
    for (const absl::Time end = now + duration; now < end;) {
      now += step;
      for (const auto& [member, is_server] : alive) {
        // A server has its blocks made on the heartbeat after it heard of the map.
        const v1::HeartbeatReply reply = Send(member);
        if (reply.generation() > Beat(member).generation()) ready.erase(member);
        if (!reply.has_map()) continue;
        generation[member] = reply.generation();
        if (is_server) ready.insert(member);
      }
      c->Tick(now);
      MakeViewsLasting();
    }
  }
  void MakeViewsLasting() {
    if (const auto wanted = c->WantsViews(); wanted.has_value()) {
      views = wanted->views;
      c->ViewsLasting(wanted->change, wanted->news, now);
    }
  }
  // Servers s and workers w, running.
  void Start(uint32_t servers, uint32_t workers, absl::Duration within = absl::Seconds(1)) {
    for (uint32_t s = 0; s < servers; ++s) server.push_back(AddServer(absl::StrCat("s", s), 100 + s));
    for (uint32_t w = 0; w < workers; ++w) worker.push_back(AddWorker(absl::StrCat("w", w), 200 + w));
    Run(within);
    ASSERT_EQ(c->phase(), v1::RUNNING) << Log();
  }

  // "5 5 6 -": the member that holds each rank.
  std::string Holders() const {
    std::vector<std::string> holders;
    const v1::StatusReply status = c->Status(now);
    for (const v1::RankStatus& rank : status.rank()) {
      holders.push_back(rank.member() == 0 ? "-" : absl::StrCat(rank.member()));
    }
    return absl::StrJoin(holders, " ");
  }
  std::string Log() {
    for (LogLine& line : c->DrainLog()) absl::StrAppend(&log_, line.text, "\n");
    return log_;
  }

  absl::Time now;
  std::unique_ptr<Coordinator> c;
  std::map<uint64_t, bool> alive;  // member -> is a server
  std::set<uint64_t> ready;
  std::map<uint64_t, uint64_t> generation;  // that a member has built for
  std::vector<uint64_t> server, worker;
  std::map<uint64_t, uint64_t> moves;               // as in the news that its map came with
  std::map<uint64_t, std::vector<v1::Seat>> seats;  // that a server was told of last, all of which it holds
  absl::Duration step = absl::Milliseconds(500);    // between two ticks
  v1::ReplicaViews views;                           // that were made lasting last
  bool sync = true;                                 // primaries have synced the backups that they know of
  std::map<uint32_t, uint64_t> unconfirmed;         // by server: what its primary waits for its backup to confirm

 private:
  static void Numerics(v1::Numerics* numerics) {
    numerics->set_build("b1");
    numerics->set_instruction_set("x86-64-v3");
    numerics->set_probe(0x55);
  }
  uint64_t Joined(const v1::RegisterReply& reply, bool is_server) {
    EXPECT_EQ(reply.mismatch_size(), 0) << reply.DebugString();
    alive[reply.member()] = is_server;
    return reply.member();
  }
  std::string log_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_COORDINATOR_TEST_CLUSTER_H_
