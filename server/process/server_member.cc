#include "server/process/server_member.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/job/job.h"
#include "common/job/step_spec.h"
#include "common/job/stopping_spec.h"
#include "common/numerics/fingerprint.h"
#include "server/checkpoint/checkpoint_folder.h"
#include "server/rpc/remote_storage.h"
#include "server/rpc/rpc_server.h"

namespace descent {
namespace {

constexpr absl::Duration kKnock = absl::Milliseconds(200);
// Clocks' norms that are not told yet: these, and as many more as have so many bytes; and bytes in one message.
constexpr size_t kMostUntold = 64, kMostUntoldBytes = size_t{64} << 20, kMostTogether = size_t{256} << 10;

// What a coordinator or a disk that is slow, busy, or being replaced answers.
bool Passes(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status) ||
         absl::IsAborted(status);
}

uint64_t MachineBytes() {
  return static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

absl::Status ServerMember::Register(bool again) {
  auto context = std::make_unique<SeatContext>();
  context->log = log_;
  DESCENT_ASSIGN_OR_RETURN(context->job, control_->WaitForJob(options_.wait));
  const v1::JobSpec& job = context->job.job();
  context->replicated = job.replicas() > 0 && job.cluster().servers() > 1;
  v1::RegisterServerRequest request;
  request.set_protocol(kProtocolVersion);
  request.set_job_fingerprint(JobFingerprint(job));
  const NumericsFingerprint numerics = ComputeNumericsFingerprint(options_.numerics_profile);
  request.mutable_numerics()->set_build(numerics.build);
  request.mutable_numerics()->set_instruction_set(numerics.instruction_set);
  request.mutable_numerics()->set_probe(numerics.probe);
  if (again && options_.find_address != nullptr) FindAddress();
  request.set_address(options_.address);
  request.set_host(options_.host);
  request.set_pid(static_cast<uint64_t>(getpid()));
  const uint64_t limit = job.limits().server_bytes();
  request.set_memory_bytes(options_.memory_bytes > 0 ? options_.memory_bytes
                           : limit > 0               ? limit
                                                     : MachineBytes() / 10 * 9);
  if (again) control_->ForgetRegistration();
  for (const auto& [server, seat] : seats_) {
    v1::HeartbeatRequest held;
    seat->Report(&held, absl::Seconds(5));  // what is not said now is not asked for again
    request.mutable_seat()->MergeFrom(held.seat());
  }
  request.set_seat_generation(generation_);
  if (context_ != nullptr) request.set_seat_run(context_->registration.run());
  for (const absl::Time deadline = absl::Now() + options_.wait; true; absl::SleepFor(kKnock)) {
    absl::StatusOr<v1::RegisterReply> registered = control_->RegisterServer(request);
    if (registered.ok()) {
      context->registration = *std::move(registered);
      break;
    }
    // The one whose place it takes may not have been missed yet; or the coordinator itself is being replaced.
    if (!Passes(registered.status()) || absl::Now() > deadline) return registered.status();
  }
  if (context_ == nullptr) {
    context_ = std::move(context);
  } else {
    // Seats point to it, and threads that still write to a folder to its storage.
    context_->job = std::move(context->job);
    context_->registration = std::move(context->registration);
    storages_.push_back(std::move(context_->storage));
  }
  context_->storage = CheckpointStorage();
  log_->Log(absl::StrCat("registered as server ", context_->registration.server(), " at ", options_.address));
  return absl::OkStatus();
}

std::unique_ptr<Storage> ServerMember::CheckpointStorage() const {
  const std::string& folder =
      options_.checkpoint_dir.empty() ? context_->job.checkpoint_folder() : options_.checkpoint_dir;
  if (!context_->job.job().checkpoint().gather() && !folder.empty()) {
    std::unique_ptr<Storage> shared = MakePosixStorage(folder);
    // What the coordinator has written there is there to be read, and something can be written beside it.
    const std::string generation = GenerationFileName(Generation(context_->registration.generation()));
    const absl::StatusOr<std::string> text = shared->ReadFile(generation, 1024);
    const std::string run = absl::StrCat(absl::Hex(context_->registration.run(), absl::kZeroPad16));
    const std::string probe = absl::StrCat("probe-", context_->registration.server(), "-", getpid());
    if (text.ok() && absl::StrContains(*text, run) && shared->CreateExclusive(probe, "").ok()) {
      shared->Remove(probe).IgnoreError();
      return shared;
    }
    log_->Log(absl::StrCat("the checkpoint folder ", folder, " is not reached from here: parts go to the coordinator"));
  }
  return MakeRemoteStorage(options_.coordinator);
}

v1::HeartbeatRequest ServerMember::Beat() {
  v1::HeartbeatRequest beat;
  beat.set_member(context_->registration.member());
  beat.set_run(context_->registration.run());
  // With replicas some of what it holds may be ready and some not: each seat says so of itself.
  const bool told = ready() || (context_->replicated && !seats_.empty());
  beat.set_generation(told ? generation_ : 0);
  beat.set_ready(ready());
  for (const auto& [server, seat] : seats_) seat->Report(&beat);
  beat.set_rate_changes(context_->rate_changes->size());
  return beat;
}

bool ServerMember::ready() const {
  return !seats_.empty() &&
         std::all_of(seats_.begin(), seats_.end(), [&](const auto& s) { return s.second->ready(generation_); });
}

void ServerMember::FindAddress() {
  const absl::StatusOr<std::string> found = options_.find_address();
  if (!found.ok() || *found == options_.address) return;
  log_->Log(absl::StrCat("is at ", *found, " now, not at ", options_.address, " any more"));
  options_.address = *found;
  if (const auto reached = ParseEndpoint(*found, Endpoint{"127.0.0.1", 0}); reached.ok()) {
    options_.replica_host = reached->host;
  }
}

absl::StatusOr<std::unique_ptr<Seat>> ServerMember::MakeSeat(const v1::Seat& want) {
  const ServerId server(want.server());
  if (want.primary()) return std::make_unique<Seat>(context_.get(), server, services_, options_.address);
  // A backup listens from the beginning, so that it can be told where it will be reached once it is promoted.
  auto services = std::make_unique<ServerServices>();
  RpcServerOptions rpc_options;
  rpc_options.bind = Endpoint{options_.replica_bind.host, 0};
  DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<RpcServer> rpc, RpcServer::Start(rpc_options, services->service(), {}));
  const std::string address = Endpoint{options_.replica_host, rpc->port()}.ToString();
  if (options_.local_sockets) {
    if (absl::Status local = rpc->ServeLocally(address); !local.ok()) log_->Log(local.message());
  }
  return std::make_unique<Seat>(context_.get(), server, std::move(services), std::move(rpc), address);
}

absl::Status ServerMember::TendSeats(const v1::HeartbeatReply& news) {
  std::map<uint32_t, v1::Seat> wanted;
  if (context_->replicated) {
    for (const v1::Seat& seat : news.seat()) wanted[seat.server()] = seat;
  } else {
    v1::Seat& seat = wanted[context_->registration.server()];
    seat.set_server(context_->registration.server());
    seat.set_primary(true);
  }
  if (news.has_map() && generation_ != news.generation()) {
    // Of the process's own seat the service stays, and its address; the others belonged to the generation before,
    // unless this one goes on with them.
    std::erase_if(seats_, [&](const auto& s) {
      const auto want = wanted.find(s.first);
      const bool carried = want != wanted.end() && want->second.carried() && s.second->ready(generation_);
      if (carried) s.second->Carry(Generation(news.generation()));
      const bool own = s.second->services() == services_ && want != wanted.end() && want->second.primary();
      return !carried && !own;
    });
    generation_ = news.generation();
  }
  std::erase_if(seats_, [&](const auto& s) {
    if (!context_->replicated || news.generation() != generation_ || news.seat_size() == 0) return false;
    const auto want = wanted.find(s.first);
    // The process's own service is its primary's: before anything was pushed it may have become another server's.
    return want == wanted.end() || (s.second->services() == services_ && !want->second.primary());
  });
  for (const auto& [server, want] : wanted) {
    auto& seat = seats_[server];
    if (seat == nullptr) {
      if (!news.has_map()) {
        seats_.erase(server);
        continue;
      }
      DESCENT_ASSIGN_OR_RETURN(seat, MakeSeat(want));
    }
    seat->Tend(news, want);
  }
  return absl::OkStatus();
}

bool ServerMember::TakeRates(const v1::HeartbeatReply& news) {
  // Another generation may have decided otherwise so far: its list comes whole while this server is not ready.
  if (news.rate_change().empty() && news.generation() == rates_of_) return false;
  rates_of_ = news.generation();
  RateChanges::List list;
  for (const v1::RateChange& change : news.rate_change()) list.emplace_back(change.clock(), change.factor());
  const bool more = list.size() > context_->rate_changes->size();
  context_->rate_changes->Set(std::move(list));
  return more;
}

void ServerMember::SpeakOfSteps() {
  const v1::JobSpec& job = context_->job.job();
  if (!NeedsScalars(job)) return;
  // No server is further ahead of another than ranks may be of each other.
  const size_t keep = static_cast<size_t>(std::min<uint64_t>(ConsistencyOf(job).staleness, 62)) + 2;
  for (const auto& [server, seat] : seats_) {
    if (!seat->ready(generation_)) continue;
    seat->services()->agent()->Speak({context_->registration.member(), generation_, server}, keep, control_,
                                     seat->services()->service(),
                                     [log = log_](const std::string& what) { log->Log("warning: " + what); });
  }
}

void ServerMember::SendScalars() {
  for (const auto& [server, seat] : seats_) {
    if (!seat->ready(generation_)) continue;  // what it has told is of a generation before
    for (const ServerServices::Scalars& s : seat->services()->TakeScalars()) {
      v1::ScalarPartials partials;
      partials.set_member(context_->registration.member());
      partials.set_generation(generation_);
      partials.set_clock(s.clock.value);
      partials.set_server(server);
      partials.set_norms_only(s.norms_only);
      v1::TensorPartials* tensor = nullptr;
      for (const BlockSquare& square : s.squares) {
        if (tensor == nullptr || tensor->tensor() != square.id.tensor.value) {
          tensor = partials.add_tensor();
          tensor->set_tensor(square.id.tensor.value);
        }
        tensor->add_block(square.id.index);
        tensor->add_square(square.square);
        if (!s.norms_only) tensor->add_step_square(square.step);
      }
      untold_bytes_ += partials.ByteSizeLong();
      untold_.push_back(std::move(partials));
    }
  }
  const auto drop = [this] {
    untold_bytes_ -= untold_.front().ByteSizeLong();
    untold_.pop_front();
  };
  // Rules that end training may wait for them: what does not arrive is told again, while the generation lasts.
  while (!untold_.empty()) {
    // Where each round has norms to be told, those of many go together.
    v1::ScalarPartials message = untold_.front();
    size_t told = 1, bytes = message.ByteSizeLong();
    for (; told < untold_.size() && bytes < kMostTogether; ++told) {
      const v1::ScalarPartials& next = untold_[told];
      if (next.server() != message.server() || next.generation() != message.generation()) break;
      bytes += next.ByteSizeLong();
      *message.add_also() = next;
    }
    if (message.generation() == generation_ && Passes(control_->AgreeScalars(message).status())) break;
    for (; told > 0; --told) drop();
  }
  while (untold_.size() > kMostUntold && untold_bytes_ > kMostUntoldBytes) drop();
}

void ServerMember::TellFailures() {
  for (const auto& [server, seat] : seats_) {
    const absl::Status failure = seat->services()->failure();
    const bool rolls_back = RollsBack(context_->job.job());
    // That of a node which is about to go is of a generation that counts no more.
    if (failure.ok() || failure_told_ == generation_ || (rolls_back && !seat->ready(generation_))) continue;
    failure_told_ = generation_;
    log_->Log(absl::StrCat("failed: ", failure.message()));
    // What a node says of gradients: one that is not finite, or whose sum is not.
    const bool diverged = absl::IsInvalidArgument(failure) || absl::IsFailedPrecondition(failure);
    ReportOwnFailure(failure, diverged && rolls_back ? generation_ : 0);
  }
}

void ServerMember::ReportOwnFailure(const absl::Status& cause, uint64_t diverged_generation) {
  v1::FailureReport report;
  report.set_diverged_generation(diverged_generation);
  report.set_member(context_->registration.member());
  report.set_role("server");
  report.set_host(options_.host);
  report.set_pid(static_cast<uint64_t>(getpid()));
  report.set_own(true);
  report.set_cause(std::string(cause.message()));
  report.set_unix_seconds(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  control_->ReportFailure(report).IgnoreError();
}

absl::StatusOr<v1::Phase> ServerMember::Run() {
  DESCENT_RETURN_IF_ERROR(Register(/*again=*/false));
  // Whoever watches over the coordinator may have to wait for a machine.
  const double seconds = context_->job.job().cluster().start_timeout_seconds();
  const absl::Duration patience = absl::Seconds(seconds > 0 ? seconds : 600);
  absl::Time heard = absl::Now(), complained = heard;
  while (true) {
    const bool was_ready = ready();
    SendScalars();  // in front of a beat: that which ends the run finds all told
    absl::StatusOr<v1::HeartbeatReply> news = control_->Heartbeat(Beat());
    absl::Duration pause = absl::Milliseconds(100);
    if (news.ok()) {
      heard = absl::Now();
      if (news->phase() >= v1::FINISHED) {
        control_->Leave(context_->registration.member(), "the run is over").IgnoreError();
        if (news->phase() == v1::FAILED) log_->Log(absl::StrCat("the run failed: ", news->message()));
        seats_.clear();
        return news->phase();
      }
      if (news->unknown_member()) {
        // Another coordinator, or this server was silent for longer than its lease. What it holds is of no generation
        // that goes on.
        log_->Log(absl::StrCat("registering again: ", news->message()));
        if (context_->replicated) {
          for (const auto& [server, seat] : seats_) seat->Rest();
        } else {
          seats_.clear();
          generation_ = 0;
        }
        DESCENT_RETURN_IF_ERROR(Register(/*again=*/true));
        continue;
      }
      pause = absl::Milliseconds(std::max<uint32_t>(1, news->next_ms()));
      const bool rates = TakeRates(*news);
      DESCENT_RETURN_IF_ERROR(TendSeats(*news));
      if (rates) continue;  // ranks wait for every server to say that it knows
    } else if (absl::Now() - heard > patience) {
      return absl::UnavailableError(absl::StrCat(
          "no word from the coordinator for ", absl::FormatDuration(absl::Trunc(absl::Now() - heard, absl::Seconds(1))),
          ": ", news.status().message()));
    }
    if (!news.ok() && absl::Now() - complained > absl::Seconds(5)) {
      complained = absl::Now();
      log_->Log(absl::StrCat("waiting for the coordinator, for ",
                             absl::FormatDuration(absl::Trunc(complained - heard, absl::Seconds(1))), ": ",
                             news.status().message()));
    }
    SpeakOfSteps();
    bool placing = false;
    for (const auto& [server, seat] : seats_) {
      if (seat->writing()) pause = std::min(pause, absl::Milliseconds(20));
      if (seat->placing()) {
        placing = true;
        seat->AwaitPlaced(absl::Now() + std::min(pause, absl::Milliseconds(20)));
      }
      if (absl::Status placed = seat->Poll(); !placed.ok()) {
        // The reading of a cut may meet a coordinator that is being replaced. No memory for the blocks stays so.
        if (!Passes(placed) || absl::IsResourceExhausted(placed)) {
          ReportOwnFailure(placed);
          return placed;
        }
        log_->Log(absl::StrCat("no blocks of generation ", generation_, " yet: ", placed.message()));
        absl::SleepFor(kKnock);
      }
    }
    if (ready() && !was_ready) continue;  // say so at once
    if (!placing) services_->Wait(absl::Now() + pause, failure_told_ == generation_);
    TellFailures();
  }
}

}  // namespace descent
