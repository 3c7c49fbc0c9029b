#include "worker/loop/control_link.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

constexpr absl::Duration kOwnAbsence = absl::Seconds(8);  // more than a call and a pause take
constexpr absl::Duration kAskAgain = absl::Milliseconds(100);
constexpr absl::Duration kAskToBegin = absl::Milliseconds(10);
constexpr size_t kMostEvaluation = size_t{1} << 20;  // bytes of a beat; a part that is larger goes alone
constexpr size_t kMostTraining = size_t{1} << 20;    // likewise: what has waited long goes in several beats

// A coordinator that is away may come back.
bool Passes(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status); }

std::string Waiting(absl::string_view what, absl::Duration since, absl::string_view why) {
  return absl::StrCat("waiting ", what, " since ", absl::ToInt64Seconds(since), " s: ", why);
}

}  // namespace

ControlLink::ControlLink(Options options, ControlCalls calls, v1::RegisterWorkerRequest registration,
                         const TimeSource* time)
    : options_(options), calls_(std::move(calls)), registration_(std::move(registration)), time_(time) {
  clocks_ = options.clocks;
}

ControlLink::~ControlLink() { Close(); }

void ControlLink::Close() {
  {
    MutexLock lock(&mu_);
    end_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status ControlLink::Register(bool again) {
  DESCENT_ASSIGN_OR_RETURN(const v1::RegisterReply reply, calls_.register_worker(registration_, again));
  MutexLock lock(&mu_);
  member_ = reply.member();
  leases_.clear();
  if (reply.run() != era_.run || reply.generation() != era_.generation) Enter({reply.run(), reply.generation(), 0});
  return absl::OkStatus();
}

absl::Status ControlLink::Start() {
  const absl::Time begin = time_->Now();
  absl::Time tell = begin + options_.tell_after;
  while (true) {
    const absl::Status status = Register(false);
    if (status.ok()) break;
    const absl::Time now = time_->Now();
    if (!Passes(status) || now - begin > options_.give_up_after) return status;
    if (now >= tell) {
      calls_.log(Waiting("for the coordinator", now - begin, status.message()));
      tell = now + options_.tell_every;
    }
    MutexLock lock(&mu_);
    changed_.WaitUntil(&mu_, now + kAskAgain);
  }
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
}

v1::HeartbeatRequest ControlLink::MakeBeat() {
  v1::HeartbeatRequest beat;
  beat.set_member(member_);
  beat.set_run(era_.run);
  beat.set_generation(built_.value_or(era_).generation);
  beat.set_ready(placement_.has_value());
  beat.set_moves(era_.moves);
  size_t bytes = 0;
  for (const auto& part : evaluation_) {
    bytes += part.ByteSizeLong();
    if (bytes > kMostEvaluation && beat.evaluation_size() > 0) break;
    *beat.add_evaluation() = part;
  }
  bytes = 0;
  for (const auto& part : training_) {
    bytes += part.ByteSizeLong();
    if (bytes > kMostTraining && beat.training_size() > 0) break;
    *beat.add_training() = part;
  }
  const bool all_told = static_cast<size_t>(beat.evaluation_size()) == evaluation_.size() &&
                        static_cast<size_t>(beat.training_size()) == training_.size();
  for (const auto& [rank, progress] : progress_) {
    v1::RankProgress* out = beat.add_progress();
    out->set_rank(rank.value);
    out->set_clock(progress.clock);
    out->set_examples(progress.examples);
    out->set_done(progress.done && all_told);
  }
  return beat;
}

// What belongs to the one before is void: the coordinator has gone back to a clock at which none of it was.
void ControlLink::Enter(Era era) {
  era_ = era;
  placement_.reset();
  leases_.clear();
  progress_.clear();
  training_.clear();
  evaluation_.clear();
  begin_below_.reset();
  run_stops_ = false;  // unless it says so again: a coordinator that was started again may not know of it
}

void ControlLink::TakeNews(const v1::HeartbeatReply& reply) {
  phase_ = reply.phase();
  message_ = reply.message();
  if (reply.generation() != era_.generation) {
    Enter({era_.run, reply.generation(), reply.moves()});
  } else if (reply.moves() != era_.moves && reply.has_map()) {
    // A backup has taken over. Nothing is rolled back: what there is to tell is still to be told.
    era_.moves = reply.moves();
    placement_.reset();
  }
  run_stops_ |= reply.stop();
  if (reply.clocks() > 0) clocks_ = reply.clocks();
  begin_below_ = reply.has_begin_below() ? std::optional(reply.begin_below()) : std::nullopt;
  if (!placement_.has_value() && reply.phase() >= v1::RUNNING && reply.has_map()) placement_ = reply;
  // With nothing to compute there is nothing to build: a new generation is taken up to say that its ranks rest.
  const bool rests = resting_ && run_stops_;
  if (rests && placement_.has_value()) built_ = era_;
  std::vector<LeasedRank> leases;
  for (const v1::Lease& lease : reply.leases()) {
    leases.push_back({Rank(lease.rank()), Incarnation{Generation(lease.generation()), lease.number()}});
  }
  std::sort(leases.begin(), leases.end(), [](const LeasedRank& a, const LeasedRank& b) { return a.rank < b.rank; });
  // Progress of a rank that is somebody else's now is theirs to tell.
  std::erase_if(progress_, [&](const auto& entry) {
    return std::none_of(leases.begin(), leases.end(), [&](const LeasedRank& l) { return l.rank == entry.first; });
  });
  leases_ = std::move(leases);
  if (!rests) return;
  for (const LeasedRank& lease : leases_) progress_[lease.rank].done = true;
}

void ControlLink::Loop() {
  absl::Time heard = time_->Now();
  absl::Time awake = heard;
  absl::Time waits_since = absl::InfiniteFuture(), tell = absl::InfiniteFuture();
  bool forgotten = false;  // and not registered again yet
  while (true) {
    // A process that was stopped and wakes has heard nothing because it did not listen.
    if (time_->Now() - awake > kOwnAbsence) heard = time_->Now();
    awake = time_->Now();
    v1::HeartbeatRequest beat;
    {
      MutexLock lock(&mu_);
      if (end_) return;
      beat = MakeBeat();
      urgent_ = false;
    }
    absl::StatusOr<v1::HeartbeatReply> reply = calls_.heartbeat(beat);
    absl::Duration pause = kAskAgain;
    const bool over = reply.ok() && reply->phase() >= v1::FINISHED;
    if (reply.ok() && reply->unknown_member() && !over) {
      if (!forgotten) calls_.log("the coordinator does not know this worker any more; registering again");
      // Sent again after a failure it is the same registration.
      const absl::Status again = Register(!forgotten);
      forgotten = !again.ok();
      if (!again.ok()) reply = again;
      if (again.ok()) calls_.log(absl::StrCat("registered again as member ", member()));
    } else if (reply.ok()) {
      pause = absl::Milliseconds(std::max<uint32_t>(1, reply->next_ms()));
    }
    std::string line;
    {
      MutexLock lock(&mu_);
      const absl::Time now = time_->Now();
      std::string what, why;  // is awaited
      if (reply.ok()) {
        heard = now;
        if (over || !reply->unknown_member()) {
          if (!reply->unknown_member()) {
            training_.erase(training_.begin(), training_.begin() + beat.training_size());
            evaluation_.erase(evaluation_.begin(), evaluation_.begin() + beat.evaluation_size());
            urgent_ |= !evaluation_.empty() || !training_.empty();
          }
          TakeNews(*reply);
        }
        if (built_.has_value() && !UpToDate() && phase_ < v1::RUNNING) {
          what = absl::StrCat("for generation ", era_.generation);
          why = message_;
        }
      } else if (absl::IsFailedPrecondition(reply.status())) {
        lost_ = reply.status();
      } else {
        what = "for the coordinator";
        why = std::string(reply.status().message());
        // One that is to leave has nobody to take leave of.
        const absl::Duration patience =
            leaving_ ? std::min(options_.give_up_after, options_.tell_every) : options_.give_up_after;
        if (now - heard > patience) {
          lost_ = absl::UnavailableError(absl::StrCat("no word from the coordinator for ",
                                                      absl::FormatDuration(absl::Trunc(now - heard, absl::Seconds(1))),
                                                      ": ", reply.status().message()));
        }
      }
      if (what.empty()) {
        waits_since = absl::InfiniteFuture();
      } else if (waits_since == absl::InfiniteFuture()) {
        waits_since = now;
        tell = now + options_.tell_after;
      }
      if (waits_since <= now && now >= tell) {
        line = Waiting(what, now - waits_since, why);
        tell = now + options_.tell_every;
      }
      changed_.SignalAll();
    }
    if (!line.empty()) calls_.log(line);
    MutexLock lock(&mu_);
    const absl::Time beat_at = time_->Now();
    const auto next = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return beat_at + (awaits_begin_ ? std::min(pause, kAskToBegin) : pause);
    };
    while (!end_ && !urgent_ && time_->Now() < next()) changed_.WaitUntil(&mu_, next());
  }
}

absl::Status ControlLink::EndLocked() const {
  if (phase_ == v1::FAILED) return absl::FailedPreconditionError(message_);
  if (!lost_.ok()) return lost_;
  if (leaving_ || run_stops_ || phase_ >= v1::SAVING) return absl::CancelledError("the coordinator said stop");
  return absl::OkStatus();
}

absl::Status ControlLink::StateLocked() const {
  DESCENT_RETURN_IF_ERROR(EndLocked());
  if (!built_.has_value() || UpToDate()) return absl::OkStatus();
  if (built_->generation == era_.generation) return absl::AbortedError("a server has moved: its backup has taken over");
  return absl::AbortedError(
      absl::StrCat("generation ", built_->generation, " is over; ", era_.generation, " has begun"));
}

absl::StatusOr<v1::HeartbeatReply> ControlLink::AwaitRunning() {
  MutexLock lock(&mu_);
  while (!placement_.has_value() || UpToDate()) {
    DESCENT_RETURN_IF_ERROR(EndLocked());
    changed_.WaitUntil(&mu_, time_->Now() + absl::Seconds(1));
  }
  built_ = era_;
  resting_ = false;
  urgent_ = true;  // the coordinator is to know
  changed_.SignalAll();
  return *placement_;
}

void ControlLink::RequestStop() {
  MutexLock lock(&mu_);
  leaving_ = true;
  changed_.SignalAll();
}

void ControlLink::StopObeyed() {
  MutexLock lock(&mu_);
  resting_ = true;
  if (!run_stops_) return;  // this worker alone leaves; its ranks go on elsewhere
  for (const LeasedRank& lease : leases_) progress_[lease.rank].done = true;
  urgent_ = true;
  changed_.SignalAll();
}

bool ControlLink::leaving() const {
  MutexLock lock(&mu_);
  return leaving_ && !run_stops_ && phase_ < v1::SAVING;
}

v1::Phase ControlLink::phase() const {
  MutexLock lock(&mu_);
  return phase_;
}

uint64_t ControlLink::member() const {
  MutexLock lock(&mu_);
  return member_;
}

uint64_t ControlLink::run() const {
  MutexLock lock(&mu_);
  return era_.run;
}

absl::Status ControlLink::AwaitEnd(absl::Time deadline) {
  MutexLock lock(&mu_);
  while (phase_ < v1::FINISHED) {
    if (!lost_.ok()) return lost_;
    if (absl::Status state = StateLocked(); absl::IsAborted(state)) return state;
    if (time_->Now() >= deadline) return absl::DeadlineExceededError("the coordinator did not say how the job ended");
    changed_.WaitUntil(&mu_, deadline);
  }
  return phase_ == v1::FAILED ? absl::FailedPreconditionError(message_) : absl::OkStatus();
}

std::vector<LeasedRank> ControlLink::Leases() {
  MutexLock lock(&mu_);
  return VisibleLeases();
}

absl::Status ControlLink::State() {
  MutexLock lock(&mu_);
  return StateLocked();
}

void ControlLink::WaitForChange(absl::Time deadline) {
  MutexLock lock(&mu_);
  const std::vector<LeasedRank> before = VisibleLeases();
  const v1::Phase phase = phase_;
  while (VisibleLeases() == before && phase_ == phase && StateLocked().ok() && time_->Now() < deadline) {
    changed_.WaitUntil(&mu_, deadline);
  }
}

bool ControlLink::AwaitBegin(Clock clock, absl::Time deadline) {
  MutexLock lock(&mu_);
  const auto may = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !begin_below_.has_value() || clock.value < *begin_below_;
  };
  if (may()) return true;
  awaits_begin_ = true;
  changed_.SignalAll();  // ask more often
  const std::vector<LeasedRank> before = VisibleLeases();
  while (!may() && VisibleLeases() == before && StateLocked().ok() && time_->Now() < deadline) {
    changed_.WaitUntil(&mu_, deadline);
  }
  awaits_begin_ = false;
  return may() && StateLocked().ok();
}

void ControlLink::Pause(absl::Time until) {
  MutexLock lock(&mu_);
  while (time_->Now() < until) changed_.WaitUntil(&mu_, until);
}

std::vector<std::string> ControlLink::MovedServers() {
  MutexLock lock(&mu_);
  if (!placement_.has_value() || !SameGeneration() || UpToDate()) return {};
  return {placement_->map().address().begin(), placement_->map().address().end()};
}

void ControlLink::Completed(Rank rank, Clock clock, const BatchResult& batch) {
  MutexLock lock(&mu_);
  if (!SameGeneration()) return;
  Progress& progress = progress_[rank];
  progress.clock = clock.value + 1;
  progress.examples += static_cast<uint64_t>(batch.weight);
  v1::TrainingPart& window = progress.window;
  if (window.clocks() == 0) {
    window.set_rank(rank.value);
    window.set_first(clock.value);
  }
  window.set_clocks(window.clocks() + 1);
  window.set_loss(window.loss() + batch.loss);
  window.set_weight(window.weight() + batch.weight);
  if (progress.clock % options_.window == 0 || progress.clock == clocks_) {
    training_.push_back(window);
    window.Clear();
  }
}

void ControlLink::Skipped(Rank rank, Clock clock, Clock next) {
  MutexLock lock(&mu_);
  if (!SameGeneration()) return;
  // Parts end where windows do; whole windows without a contribution make one part.
  Progress& progress = progress_[rank];
  v1::TrainingPart& window = progress.window;
  for (uint64_t at = clock.value; at < next.value;) {
    uint64_t end = (at / options_.window + 1) * options_.window;
    if (window.clocks() == 0) {
      window.set_rank(rank.value);
      window.set_first(at);
      end = std::max(end, next.value / options_.window * options_.window);
    }
    at = std::min(end, next.value);
    window.set_clocks(at - window.first());
    if (at % options_.window != 0 && at != clocks_) continue;
    training_.push_back(window);
    window.Clear();
  }
  progress.clock = next.value;
}

void ControlLink::Evaluated(const RankEvaluation& evaluation) {
  v1::EvaluationPart part;
  part.set_rank(evaluation.rank.value);
  part.set_clock(evaluation.clock.value);
  // Without validation data the training data are what there is to tell.
  const BatchResult& told = evaluation.validation.weight > 0 ? evaluation.validation : evaluation.train;
  part.set_loss(told.loss);
  part.set_weight(told.weight);
  part.set_correct(told.correct);
  part.set_train_loss(evaluation.train.loss);
  part.set_train_weight(evaluation.train.weight);
  part.set_regularizer(evaluation.regularizer);
  part.set_fuzzy(evaluation.fuzzy);
  part.set_classification(evaluation.classification);
  if (evaluation.metrics.has_value()) *part.mutable_metrics() = *evaluation.metrics;
  MutexLock lock(&mu_);
  if (!SameGeneration()) return;
  evaluation_.push_back(part);
  urgent_ = true;
  changed_.SignalAll();
}

void ControlLink::Done(Rank rank) {
  MutexLock lock(&mu_);
  if (!SameGeneration()) return;
  Progress& progress = progress_[rank];
  progress.clock = std::max(progress.clock, clocks_);
  progress.done = true;
  urgent_ = true;
  changed_.SignalAll();
}

}  // namespace descent
