#include "server/process/server_member.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "common/job/job.h"
#include "common/numerics/fingerprint.h"
#include "server/process/node_options.h"

namespace descent {
namespace {

constexpr size_t kMaxScalars = 64;  // clocks whose norms wait to be told; older ones are dropped, norms are for people

uint64_t MachineBytes() {
  return static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

ServerServices::ServerServices() {
  ParameterService::Callbacks callbacks;
  callbacks.fail = [this](absl::Status cause) {
    MutexLock lock(&mu_);
    if (failure_.ok()) failure_ = std::move(cause);
    changed_.SignalAll();
  };
  callbacks.scalars = [this](Clock clock, std::vector<BlockSquare> squares) {
    MutexLock lock(&mu_);
    if (scalars_.size() >= kMaxScalars) scalars_.erase(scalars_.begin());
    scalars_.push_back({clock, std::move(squares)});
    changed_.SignalAll();
  };
  service_ = ParameterService::Create(ParameterServiceOptions{}, std::move(callbacks));
}

void ServerServices::Wait(absl::Time deadline, bool failure_known) {
  MutexLock lock(&mu_);
  while (scalars_.empty() && (failure_known || failure_.ok()) && absl::Now() < deadline) {
    changed_.WaitUntil(&mu_, deadline);
  }
}

std::vector<ServerServices::Scalars> ServerServices::TakeScalars() {
  MutexLock lock(&mu_);
  return std::exchange(scalars_, {});
}

absl::Status ServerServices::failure() const {
  MutexLock lock(&mu_);
  return failure_;
}

absl::Status ServerMember::Register() {
  DESCENT_ASSIGN_OR_RETURN(job_, control_->WaitForJob(options_.wait));
  v1::RegisterServerRequest request;
  request.set_protocol(kProtocolVersion);
  request.set_job_fingerprint(JobFingerprint(job_.job()));
  const NumericsFingerprint numerics = ComputeNumericsFingerprint(options_.numerics_profile);
  request.mutable_numerics()->set_build(numerics.build);
  request.mutable_numerics()->set_instruction_set(numerics.instruction_set);
  request.mutable_numerics()->set_probe(numerics.probe);
  request.set_address(options_.address);
  request.set_host(options_.host);
  request.set_pid(static_cast<uint64_t>(getpid()));
  const uint64_t limit = job_.job().limits().server_bytes();
  request.set_memory_bytes(options_.memory_bytes > 0 ? options_.memory_bytes
                           : limit > 0               ? limit
                                                     : MachineBytes() / 10 * 9);
  DESCENT_ASSIGN_OR_RETURN(registration_, control_->RegisterServer(request));
  log_->Log(absl::StrCat("registered as server ", registration_.server(), " at ", options_.address));
  return absl::OkStatus();
}

absl::Status ServerMember::Place(const v1::HeartbeatReply& news) {
  const v1::JobSpec& job = job_.job();
  DESCENT_ASSIGN_OR_RETURN(ServerNodeOptions options, NodeOptionsOf(job));
  options.envelope.job = job_.job_fingerprint();
  options.envelope.run = RunId(registration_.run());
  options.envelope.generation = Generation(news.generation());
  options.envelope.map_epoch = news.map().epoch();
  StoreOptions& store = options.store;
  DESCENT_ASSIGN_OR_RETURN(store.tensors, SpecsFromMessage(news.tensors()));
  DESCENT_ASSIGN_OR_RETURN(store.map, FromMessage(news.map(), store.tensors, store.geometry));
  store.self = ServerId(registration_.server());
  log_->Log(absl::StrCat("memory at most: ", BudgetText(PlanStore(store))));
  DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<ServerNode> node,
                           ServerNode::Create(options, services_->service()->output()));
  services_->service()->Install(std::move(options), std::move(node));
  ready_ = true;
  return absl::OkStatus();
}

v1::ServerLoad ServerMember::Load() {
  // Asked of the owning thread; an answer that takes longer than a beat is left for the next one.
  struct Answer {
    Mutex mu;
    CondVar done;
    bool there ABSL_GUARDED_BY(mu) = false;
    v1::ServerLoad load ABSL_GUARDED_BY(mu);
  };
  auto answer = std::make_shared<Answer>();
  services_->service()->Post([answer](ServerNode* node) {
    v1::ServerLoad load;
    if (node != nullptr) {
      const ServerNodeStats& stats = node->stats();
      load.set_bytes_in(stats.payload_bytes_in);
      load.set_bytes_out(stats.payload_bytes_out);
      load.set_parameter_bytes(node->store().parameter_bytes());
      load.set_held_bytes(node->store().held_bytes());
      load.set_round(stats.round);
      load.set_duplicates(stats.duplicates);
      load.set_fenced(stats.fenced);
      load.set_held_pulls(stats.held_pulls);
      for (const WaitingNotice& notice : node->Waiting(absl::Now())) {
        for (Rank rank : notice.ranks) {
          v1::Waited* waited = load.add_waited();
          waited->set_rank(rank.value);
          waited->set_seconds(absl::ToDoubleSeconds(notice.since));
          waited->set_why(notice.why);
        }
      }
    }
    MutexLock lock(&answer->mu);
    answer->load = std::move(load);
    answer->there = true;
    answer->done.SignalAll();
  });
  MutexLock lock(&answer->mu);
  const absl::Time deadline = absl::Now() + absl::Milliseconds(200);
  while (!answer->there && absl::Now() < deadline) answer->done.WaitUntil(&answer->mu, deadline);
  return answer->load;
}

void ServerMember::SendScalars() {
  for (const ServerServices::Scalars& s : services_->TakeScalars()) {
    v1::ScalarPartials partials;
    partials.set_member(registration_.member());
    partials.set_generation(registration_.generation());
    partials.set_clock(s.clock.value);
    v1::TensorPartials* tensor = nullptr;
    for (const BlockSquare& square : s.squares) {
      if (tensor == nullptr || tensor->tensor() != square.id.tensor.value) {
        tensor = partials.add_tensor();
        tensor->set_tensor(square.id.tensor.value);
      }
      tensor->add_block(square.id.index);
      tensor->add_square(square.square);
    }
    control_->AgreeScalars(partials).IgnoreError();  // a norm that is not told is missing in one record
  }
}

void ServerMember::ReportOwnFailure(const absl::Status& cause) {
  v1::FailureReport report;
  report.set_member(registration_.member());
  report.set_role("server");
  report.set_host(options_.host);
  report.set_pid(static_cast<uint64_t>(getpid()));
  report.set_own(true);
  report.set_cause(std::string(cause.message()));
  report.set_unix_seconds(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  control_->ReportFailure(report).IgnoreError();
}

absl::StatusOr<v1::Phase> ServerMember::Run() {
  DESCENT_RETURN_IF_ERROR(Register());
  // Longer than a lease: a coordinator that was stopped for a while forgives its members, so they forgive it.
  const absl::Duration patience = 3 * absl::Seconds(job_.job().cluster().lease_seconds());
  absl::Time heard = absl::Now();
  bool failure_told = false;
  while (true) {
    v1::HeartbeatRequest beat;
    beat.set_member(registration_.member());
    beat.set_run(registration_.run());
    beat.set_generation(registration_.generation());
    beat.set_ready(ready_);
    if (ready_) *beat.mutable_load() = Load();
    absl::StatusOr<v1::HeartbeatReply> news = control_->Heartbeat(beat);
    absl::Duration pause = absl::Milliseconds(100);
    if (news.ok()) {
      heard = absl::Now();
      if (news->phase() >= v1::FINISHED) {
        control_->Leave(registration_.member(), "the run is over").IgnoreError();
        if (news->phase() == v1::FAILED) log_->Log(absl::StrCat("the run failed: ", news->message()));
        return news->phase();
      }
      if (news->unknown_member()) {
        return absl::AbortedError("the coordinator gave this server up (silent for longer than its lease)");
      }
      pause = absl::Milliseconds(std::max<uint32_t>(1, news->next_ms()));
      if (!ready_ && news->has_map()) {
        if (absl::Status placed = Place(*news); !placed.ok()) {
          ReportOwnFailure(placed);
          return placed;
        }
        continue;  // say so at once
      }
    } else if (absl::Now() - heard > patience) {
      return absl::UnavailableError(absl::StrCat(
          "no word from the coordinator for ", absl::FormatDuration(absl::Trunc(absl::Now() - heard, absl::Seconds(1))),
          ": ", news.status().message()));
    }
    SendScalars();
    services_->Wait(absl::Now() + pause, failure_told);
    const absl::Status failure = services_->failure();
    if (!failure.ok() && !failure_told) {
      failure_told = true;
      log_->Log(absl::StrCat("failed: ", failure.message()));
      ReportOwnFailure(failure);
    }
  }
}

}  // namespace descent
