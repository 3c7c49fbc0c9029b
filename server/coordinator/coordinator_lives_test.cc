// A coordinator in random lives of its cluster.
#include <random>

#include "gtest/gtest.h"
#include "server/coordinator/coordinator_test_cluster.h"

namespace descent {
namespace {

// Random members, deaths, reports and nonsense: leases stay consistent, the job always ends or goes on, and the same
// calls give the same answers.
std::string Fuzz(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t n) { return random() % n; };
  const uint32_t ranks = 1 + below(9), servers = 1 + below(3), workers = 1 + below(4);
  CoordinatorOptions options = TestCluster::Options(ranks, servers, workers);
  options.job.mutable_cluster()->set_start_timeout_seconds(60);
  options.job.mutable_cluster()->set_stall_timeout_seconds(60);
  TestCluster t(options);
  std::string trace;
  std::map<uint32_t, uint64_t> incarnation;
  std::map<uint32_t, uint64_t> holder;
  Generation generation(1);
  std::vector<uint64_t> members = {0, 12345};
  for (int step = 0; step < 300; ++step) {
    t.now += absl::Milliseconds(below(1500));
    const uint64_t member = members[below(members.size())];
    switch (below(12)) {
      case 0: {
        const v1::RegisterReply reply = t.c->RegisterServer(t.ServerRequest("s", below(6)), t.now);
        if (reply.mismatch_size() == 0) t.alive[reply.member()] = true, members.push_back(reply.member());
        break;
      }
      case 1: {
        v1::RegisterWorkerRequest request = t.WorkerRequest("w", below(20));
        request.set_capacity(below(4));
        if (below(5) == 0) request.set_train_rows(below(3));
        const v1::RegisterReply reply = t.c->RegisterWorker(request, t.now);
        if (reply.mismatch_size() == 0) t.alive[reply.member()] = false, members.push_back(reply.member());
        break;
      }
      case 2: {
        if (below(6) != 0) break;
        v1::LeaveRequest leave;
        leave.set_member(member);
        t.c->Leave(leave, t.now);
        break;
      }
      case 3:
        if (below(6) == 0) t.c->ReportFailure(FailureReportOf("worker", "w", below(20), below(10) == 0, "died"), t.now);
        break;
      case 4: {
        v1::ScalarPartials partials;
        partials.set_member(member);
        partials.set_generation(below(2));
        partials.add_tensor()->set_tensor(below(3));
        (void)t.c->AgreeScalars(partials, t.now);
        break;
      }
      default: {
        for (const auto& [id, is_server] : t.alive) {
          if (below(8) == 0) continue;
          v1::HeartbeatRequest beat = t.Beat(id);
          for (uint32_t i = 0; i < ranks + 1; ++i) {
            v1::RankProgress* progress = beat.add_progress();
            progress->set_rank(i);
            progress->set_clock(step + below(5));
            progress->set_done(step > 100 && below(3) == 0);
            if (below(3) == 0) {
              v1::TrainingPart* part = beat.add_training();
              part->set_rank(i);
              part->set_first(step);
              part->set_clocks(below(5));
            }
            if (below(20) == 0) {
              beat.add_evaluation()->set_rank(i);
              beat.mutable_evaluation()->rbegin()->set_clock(step / 10);
            }
          }
          const v1::HeartbeatReply reply = t.Send(beat);
          if (reply.generation() > beat.generation()) t.ready.erase(id);
          if (reply.has_map()) t.generation[id] = reply.generation();
          if (is_server && reply.has_map()) t.ready.insert(id);
          absl::StrAppend(&trace, reply.ShortDebugString(), "\n");
        }
      }
    }
    t.c->Tick(t.now);
    if (t.c->wants_generation() && below(3) == 0) {
      RestoreFrom from;
      from.number = t.c->round() / 2;
      from.clocks.assign(ranks, from.number);
      from.tensors = t.c->specs();
      t.c->BeginGeneration(Generation(t.c->generation().value + 1), below(2) == 0 ? std::optional(from) : std::nullopt,
                           t.now);
    }
    if (t.c->generation() != generation) {
      generation = t.c->generation();
      incarnation.clear();
      holder.clear();
    }
    if (t.c->phase() == v1::SAVING && below(3) == 0) t.c->SaveFinished(absl::OkStatus(), "/m", "", "", t.now);
    const v1::StatusReply status = t.c->Status(t.now);
    std::set<uint64_t> living;
    for (const v1::MemberStatus& m : status.member()) living.insert(m.member());
    for (const v1::RankStatus& rank : status.rank()) {
      EXPECT_GE(rank.incarnation(), incarnation[rank.rank()]);
      if (rank.member() != 0) {
        EXPECT_TRUE(living.contains(rank.member()));
        if (holder[rank.rank()] != rank.member()) {
          EXPECT_GT(rank.incarnation(), incarnation[rank.rank()]) << "another holder, the same incarnation";
        }
        holder[rank.rank()] = rank.member();
      }
      incarnation[rank.rank()] = rank.incarnation();
    }
    EXPECT_EQ(t.c->phase() == v1::FAILED, !t.c->first_cause().empty());
    for (const MetricRecord& record : t.c->DrainRecords()) {
      absl::StrAppend(&trace, record.clock, " ", record.weight, "\n");
    }
  }
  absl::StrAppend(&trace, v1::Phase_Name(t.c->phase()), "\n", t.Log());
  return trace;
}

TEST(CoordinatorLivesTest, RandomLivesOfAClusterKeepTheInvariantsAndRepeatExactly) {
  std::map<std::string, int> seen;
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    const std::string trace = Fuzz(seed);
    ASSERT_EQ(trace, Fuzz(seed)) << "seed " << seed;
    for (const char* what :
         {"phase STARTING -> PLACING", "-> RUNNING", "-> SAVING", "-> FINISHED", "-> FAILED", "lease moved", "refused",
          "unknown_member", "RUNNING -> PLACING", "generation 2:", "have no worker"}) {
      seen[what] += trace.find(what) != std::string::npos;
    }
  }
  for (const auto& [what, count] : seen) EXPECT_GT(count, 0) << what;
}

}  // namespace
}  // namespace descent
