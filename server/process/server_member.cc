#include "server/process/server_member.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "common/job/job.h"
#include "common/numerics/fingerprint.h"
#include "server/checkpoint/cut_reader.h"
#include "server/process/node_options.h"
#include "server/rpc/remote_storage.h"

namespace descent {
namespace {

constexpr absl::Duration kKnock = absl::Milliseconds(200);
constexpr size_t kMaxScalars = 64;  // clocks whose norms wait to be told; older ones are dropped, norms are for people

// What a coordinator or a disk that is slow, busy, or being replaced answers.
bool Passes(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status) ||
         absl::IsAborted(status);
}

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

absl::Status ServerMember::Register(bool again) {
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
  if (again) control_->ForgetRegistration();
  for (const absl::Time deadline = absl::Now() + options_.wait; true; absl::SleepFor(kKnock)) {
    absl::StatusOr<v1::RegisterReply> registered = control_->RegisterServer(request);
    if (registered.ok()) {
      registration_ = *std::move(registered);
      break;
    }
    // The one whose place it takes may not have been missed yet; or the coordinator itself is being replaced.
    if (!Passes(registered.status()) || absl::Now() > deadline) return registered.status();
  }
  storage_ = CheckpointStorage();
  ready_ = false;
  generation_ = 0;
  log_->Log(absl::StrCat("registered as server ", registration_.server(), " at ", options_.address));
  return absl::OkStatus();
}

std::unique_ptr<Storage> ServerMember::CheckpointStorage() const {
  const std::string& folder = options_.checkpoint_dir.empty() ? job_.checkpoint_folder() : options_.checkpoint_dir;
  if (!job_.job().checkpoint().gather() && !folder.empty()) {
    std::unique_ptr<Storage> shared = MakePosixStorage(folder);
    // What the coordinator has written there is there to be read, and something can be written beside it.
    const std::string generation = GenerationFileName(Generation(registration_.generation()));
    const absl::StatusOr<std::string> text = shared->ReadFile(generation, 1024);
    const std::string run = absl::StrCat(absl::Hex(registration_.run(), absl::kZeroPad16));
    const std::string probe = absl::StrCat("probe-", registration_.server(), "-", getpid());
    if (text.ok() && absl::StrContains(*text, run) && shared->CreateExclusive(probe, "").ok()) {
      shared->Remove(probe).IgnoreError();
      return shared;
    }
    log_->Log(absl::StrCat("the checkpoint folder ", folder, " is not reached from here: parts go to the coordinator"));
  }
  return MakeRemoteStorage(options_.coordinator);
}

absl::Status ServerMember::Place(const v1::HeartbeatReply& news) {
  const v1::JobSpec& job = job_.job();
  DESCENT_ASSIGN_OR_RETURN(ServerNodeOptions options, NodeOptionsOf(job));
  options.envelope.job = job_.job_fingerprint();
  options.envelope.run = RunId(registration_.run());
  options.envelope.generation = Generation(news.generation());
  options.envelope.map_epoch = news.map().epoch();
  if (options.backup_ranks > 0) options.full_every = EvaluateEvery(job.evaluation(), news.clocks_per_epoch());
  StoreOptions& store = options.store;
  DESCENT_ASSIGN_OR_RETURN(store.tensors, SpecsFromMessage(news.tensors()));
  DESCENT_ASSIGN_OR_RETURN(store.map, FromMessage(news.map(), store.tensors, store.geometry));
  store.self = ServerId(registration_.server());
  store.history = std::max(store.history, HistoryFor(options));
  log_->Log(absl::StrCat("memory at most: ", BudgetText(PlanStore(store))));
  if (news.has_restore()) {
    RestoredState& restored = options.restored.emplace();
    for (uint64_t clock : news.restore().clock()) restored.restart.push_back(Clock(clock));
  }
  // What the generation before held goes first: there may be no room for both.
  services_->service()->Uninstall();
  DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<ServerNode> node,
                           ServerNode::Create(options, services_->service()->output()));
  if (news.has_restore()) DESCENT_RETURN_IF_ERROR(Restore(news.restore(), options, node.get()));
  tensors_ = store.tensors;
  services_->service()->Install(std::move(options), std::move(node));
  return absl::OkStatus();
}

absl::Status ServerMember::Restore(const v1::RestorePoint& from, const ServerNodeOptions& options, ServerNode* node) {
  const absl::Time begin = absl::Now();
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<CutReader> cut, CutReader::Open(storage_.get(), from.folder()));
  const auto mine = [&](BlockId id) { return options.store.map.server(id) == options.store.self; };
  uint64_t bytes = 0;
  const auto install = [&](const v1::CutRecord& record, const Payload& payload) {
    BlockExport image;
    image.id = BlockId{TensorId(record.tensor()), record.index()};
    image.version = record.version();
    image.steps = record.steps();
    image.keys = record.keys();
    image.state_slots = record.state_slots();
    image.skipped.assign(record.skipped().begin(), record.skipped().end());
    image.payload = payload;
    bytes += payload.size();
    const std::vector<uint64_t> marks(record.mark().begin(), record.mark().end());
    return node->Install(image, marks);
  };
  // The coordinator has read and verified all of it.
  DESCENT_RETURN_IF_ERROR(cut->ForEach(mine, install, CutReader::Extent::kWanted));
  DESCENT_RETURN_IF_ERROR(node->FinishRestore());
  log_->Log(absl::StrCat("restored ", bytes, " bytes of cut ", from.folder(), " in ",
                         absl::FormatDuration(absl::Trunc(absl::Now() - begin, absl::Milliseconds(1)))));
  return absl::OkStatus();
}

void ServerMember::RetireCut() {
  if (cut_ != nullptr) {
    cut_->Abandon(absl::CancelledError("the order was taken back"));
    retired_.push_back(std::move(cut_));
  }
  std::erase_if(retired_, [](const auto& writer) { return writer->result().has_value(); });
}

void ServerMember::TakeOrder(const v1::HeartbeatReply& news) {
  const bool wanted = news.has_cut() && ready_ && news.generation() == generation_;
  if (cut_ != nullptr && (!wanted || cut_->cut().number != news.cut().number())) {
    // Taken back, or done. A node that still waits for its clock is told.
    cut_->Abandon(absl::CancelledError("the order was taken back"));
    services_->service()->Post([](ServerNode* node) {
      if (node != nullptr) node->DropCut();
    });
    RetireCut();
  }
  // While a disk hangs no further cut is begun: what it would hold is not bounded.
  if (!retired_.empty()) RetireCut();
  if (wanted && cut_ == nullptr && retired_.empty()) BeginCut(news.cut());
}

void ServerMember::BeginCut(const v1::CutOrder& order) {
  const CutId id{RunId(registration_.run()), Generation(generation_), order.number()};
  cut_ = std::make_shared<CutWriter>(storage_.get(), order.folder(), id, ServerId(registration_.server()), tensors_,
                                     job_.job().ranks());
  services_->service()->Post([cut = cut_, at = Clock(order.at())](ServerNode* node) {
    if (node == nullptr) {
      cut->Abandon(absl::UnavailableError("there are no blocks"));
      return;
    }
    if (absl::Status begun = node->BeginCut(at, cut); !begun.ok()) cut->Abandon(begun, absl::IsOutOfRange(begun));
  });
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
          waited->set_clock(notice.clock);
          waited->set_last_rpc(notice.last_rpc);
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
    partials.set_generation(generation_);
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
  DESCENT_RETURN_IF_ERROR(Register(/*again=*/false));
  // Whoever watches over the coordinator may have to wait for a machine.
  const double seconds = job_.job().cluster().start_timeout_seconds();
  const absl::Duration patience = absl::Seconds(seconds > 0 ? seconds : 600);
  absl::Time heard = absl::Now(), complained = heard;
  bool failure_told = false;
  while (true) {
    v1::HeartbeatRequest beat;
    beat.set_member(registration_.member());
    beat.set_run(registration_.run());
    beat.set_generation(ready_ ? generation_ : 0);
    beat.set_ready(ready_);
    if (cut_ != nullptr) {
      if (std::optional<v1::CutReport> report = cut_->result(); report.has_value())
        *beat.add_cut() = *std::move(report);
    }
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
        // Another coordinator, or this server was silent for longer than its lease. What it holds is of no generation
        // that goes on.
        log_->Log(absl::StrCat("registering again: ", news->message()));
        if (placing_.valid()) placing_.get().IgnoreError();
        RetireCut();
        services_->service()->Uninstall();
        DESCENT_RETURN_IF_ERROR(Register(/*again=*/true));
        continue;
      }
      pause = absl::Milliseconds(std::max<uint32_t>(1, news->next_ms()));
      if (ready_ && news->generation() != generation_) {
        log_->Log(absl::StrCat("generation ", news->generation(), " begins"));
        ready_ = false;
      }
      TakeOrder(*news);
      if (cut_ != nullptr) pause = std::min(pause, absl::Milliseconds(20));
      if (!ready_ && news->has_map() && !placing_.valid()) {
        RetireCut();
        placing_generation_ = news->generation();
        placing_ = std::async(std::launch::async, [this, news = *news] { return Place(news); });
      }
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
    SendScalars();
    if (placing_.valid()) {
      if (placing_.wait_for(absl::ToChronoMilliseconds(std::min(pause, absl::Milliseconds(20)))) !=
          std::future_status::ready) {
        continue;
      }
      if (absl::Status placed = placing_.get(); !placed.ok()) {
        // The reading of a cut may meet a coordinator that is being replaced. No memory for the blocks stays so.
        if (!Passes(placed) || absl::IsResourceExhausted(placed)) {
          ReportOwnFailure(placed);
          return placed;
        }
        log_->Log(absl::StrCat("no blocks of generation ", placing_generation_, " yet: ", placed.message()));
        absl::SleepFor(kKnock);
        continue;
      }
      ready_ = true;
      generation_ = placing_generation_;
      continue;  // say so at once
    }
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
