#include "worker/loop/trainer.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "worker/loop/gradient_sum.h"
#include "worker/loop/held_parameters.h"
#include "worker/loop/long_batch.h"
#include "worker/loop/round_question.h"
#include "worker/loop/share_evaluator.h"

namespace descent {
namespace {

constexpr absl::Duration kWaitSlice = absl::Milliseconds(100);  // between looks at leases and state

constexpr absl::Duration kFinishWithin = absl::Seconds(3);  // for pushes under way when the run is stopped
constexpr absl::Duration kFirstPause = absl::Milliseconds(100), kLastPause = absl::Seconds(1);  // before a new start
constexpr absl::Duration kRefusedPause = absl::Milliseconds(20);  // before a push is offered again
constexpr absl::Duration kRejoinPause = absl::Milliseconds(10);
constexpr absl::Duration kTellEvery = absl::Seconds(10);

}  // namespace

NoDataSource::NoDataSource() {
  auto batch = std::make_shared<Batch>();
  batch->rows = 1;
  batch->label.assign(1, 0.0f);
  batch_ = std::move(batch);
}

class Trainer::Impl {
 public:
  Impl(TrainerOptions options, Model<float>* model, BatchSource* batches, const Dataset* train,
       const Dataset* validation, std::function<Connection()> connect, TrainerControl* control, const TimeSource* time)
      : options_(std::move(options)),
        model_(model),
        tensors_(model->tensors()),
        batches_(batches),
        train_(train),
        validation_(validation),
        connect_(std::move(connect)),
        control_(control),
        time_(time),
        has_tables_(HasTables(tensors_)),
        parameters_(&tensors_, options_.geometry, records()),
        evaluator_(model, &tensors_, options_.ranks, options_.evaluation_batch,
                   {[this](const PullSpec& pull) { return connection_.client->Exchange(std::nullopt, pull); },
                    [this](Ticket ticket) { return Await(ticket); }, [this] { return StillWanted(); }}) {
    if (options_.local_steps.has_value()) local_steps_.emplace(*options_.local_steps);
    if (abandons()) model_->set_unwanted([this] { return RoundClosed(); });
  }
  ~Impl() {
    if (abandons()) model_->set_unwanted(nullptr);
  }

  absl::Status Run() {
    while (true) {
      if (absl::Status state = control_->State(); !state.ok()) {
        if (absl::IsAborted(state)) Disconnect();
        return absl::IsCancelled(state) ? absl::OkStatus() : state;
      }
      absl::Status status = UpdateLeases();
      if (status.ok()) {
        const std::vector<Rank> group = LowestGroup();
        if (group.empty()) {
          control_->WaitForChange(time_->Now() + absl::Seconds(1));
          continue;
        }
        status = Iterate(clocks_.at(group[0]), group);
      }
      if (absl::IsAborted(status) || absl::IsUnavailable(status)) {
        // A lease was lost or a generation ended; what was under way is somebody else's now. Servers may know of a new
        // generation before the coordinator's word of it comes here.
        StartOver(status);
        continue;
      }
      if (status.ok()) pause_ = kFirstPause;
      if (absl::IsCancelled(status)) {  // the state tells why
        if (absl::IsCancelled(control_->State())) FinishPushes();
        continue;
      }
      if (!status.ok()) return status;
    }
  }

  ClientStats client_stats() const {
    ClientStats stats = past_stats_;
    if (connection_.client != nullptr) Accumulate(connection_.client->stats(), &stats);
    return stats;
  }

 private:
  struct InFlight {
    Ticket ticket;
    PushSpec push;  // points into sum
    std::unique_ptr<GradientSum> sum;
  };
  static void Accumulate(const ClientStats& part, ClientStats* total) {
    total->payload_bytes_out += part.payload_bytes_out;
    total->payload_bytes_in += part.payload_bytes_in;
    total->payload_bytes_copied += part.payload_bytes_copied;
    total->resends += part.resends;
    total->duplicates += part.duplicates;
  }

  void StartOver(const absl::Status& why) {
    if (const absl::Time now = time_->Now(); now - told_ >= kTellEvery) {
      control_->Log(absl::StrCat("starting over with the leases held: ", why.message()));
      told_ = now;
    }
    Disconnect();
    control_->WaitForChange(time_->Now() + pause_);
    pause_ = std::min(2 * pause_, kLastPause);
  }

  void Disconnect() {
    if (connection_.client != nullptr) Accumulate(connection_.client->stats(), &past_stats_);
    connection_.client.reset();  // after this nobody touches the buffers of what was in flight
    connection_.transport.reset();
    while (!in_flight_.empty()) {
      Release(std::move(in_flight_.front().sum));
      in_flight_.pop_front();
    }
    next_ = {};
    have_.reset();
    question_.Forget();
    for (const LeasedRank& lease : leases_) batches_->Forget(lease.rank);
    batch_of_.clear();
    results_.clear();
    leases_.clear();
    clocks_.clear();
  }

  // What is on its way when the run is stopped must arrive on every server or on none, or blocks would be saved at
  // different clocks. The pull that rides with it may wait for ranks that have stopped; so the push is sent again,
  // alone: what is in already answers as a duplicate. Should a server die meanwhile, its backup is to get it.
  void FinishPushes() {
    const absl::Time deadline = time_->Now() + kFinishWithin;
    std::vector<std::string> servers;
    bool arrived = true;
    for (const InFlight& in_flight : in_flight_) {
      std::optional<Ticket> ticket;
      absl::Status status;
      do {
        if (std::vector<std::string> moved = control_->MovedServers(); moved != servers) {
          servers = std::move(moved);
          ticket.reset();
          Accumulate(connection_.client->stats(), &past_stats_);
          connection_.client.reset();
          connection_ = connect_();
        }
        if (!ticket.has_value()) ticket = connection_.client->Exchange(in_flight.push, std::nullopt);
        status = connection_.client->Wait(*ticket, std::min(deadline, time_->Now() + kWaitSlice));
        if (absl::IsAborted(status)) {  // refused: by a backup, say, that has not heard yet that it serves now
          ticket.reset();
          control_->Pause(std::min(deadline, time_->Now() + kRefusedPause));
        }
      } while ((absl::IsDeadlineExceeded(status) || absl::IsAborted(status)) && time_->Now() < deadline &&
               absl::IsCancelled(control_->State()));
      if (status.ok()) continue;
      if (LeftBehind(status)) {
        DropResult(in_flight.push.rank);
        continue;
      }
      arrived = false;
      control_->Log(absl::StrCat("the last push did not arrive everywhere: ", status.message()));
    }
    if (arrived) ReportCompleted();
    Disconnect();
  }

  // The clock in hand is in, for every rank that it was computed for.
  void ReportCompleted() {
    for (const auto& [rank, result] : results_) {
      control_->Completed(rank, clocks_.at(rank), result);
      ++clocks_.at(rank);
    }
    results_.clear();
  }

  // Takes up new leases at the clock that the servers expect, drops those that were taken away.
  absl::Status UpdateLeases() {
    std::vector<LeasedRank> now = control_->Leases();
    if (now == leases_) return absl::OkStatus();
    if (connection_.client == nullptr && !now.empty()) connection_ = connect_();
    std::map<Rank, Clock> clocks;
    for (const LeasedRank& lease : now) {
      auto held = std::find(leases_.begin(), leases_.end(), lease);
      if (held != leases_.end()) {
        clocks[lease.rank] = clocks_.at(lease.rank);
        continue;
      }
      DESCENT_ASSIGN_OR_RETURN(const Clock expected, AskExpected(lease.rank, now));
      clocks[lease.rank] = expected;
      evaluated_.erase(lease.rank);
      batches_->Request(lease.rank, expected);
    }
    for (const LeasedRank& lease : leases_) {
      if (clocks.contains(lease.rank)) continue;
      batches_->Forget(lease.rank);
      batch_of_.erase(lease.rank);
    }
    leases_ = std::move(now);
    clocks_ = std::move(clocks);
    done_.clear();
    return absl::OkStatus();
  }

  // CANCELLED where the state says so; ABORTED where the leases have changed: what is awaited may be for others to go
  // on with, or may itself wait for ranks that have just come here.
  absl::Status StillWanted() { return StillWanted(leases_); }
  absl::Status StillWanted(const std::vector<LeasedRank>& leases) {
    if (absl::Status state = control_->State(); !state.ok()) return absl::CancelledError(state.message());
    if (control_->Leases() != leases) return absl::AbortedError("the leases of this worker have changed");
    return absl::OkStatus();
  }

  absl::StatusOr<Clock> AskExpected(Rank rank, const std::vector<LeasedRank>& leases) {
    while (true) {
      auto answer = connection_.client->ExpectedClock(rank, time_->Now() + kWaitSlice);
      if (answer.ok() || !absl::IsDeadlineExceeded(answer.status())) return answer;
      DESCENT_RETURN_IF_ERROR(StillWanted(leases));
    }
  }

  // --- Backup ranks

  bool backup() const { return options_.consistency.backup_ranks > 0; }
  bool abandons() const { return backup() && !options_.consistency.finish_late; }
  // Of a ticket: its push has come too late for every server. (NOT_FOUND, of a pull: a server is past its clock.)
  bool LeftBehind(const absl::Status& status) const { return backup() && absl::IsOutOfRange(status); }
  void DropResult(Rank rank) {
    std::erase_if(results_, [&](const auto& result) { return result.first == rank; });
  }

  bool RoundClosed() { return connection_.client != nullptr && question_.Closed(connection_.client.get()); }

  // Ranks that some round has closed without: they go on where a server expects them, the one that is furthest behind.
  absl::Status Rejoin(const std::vector<Rank>& group) {
    have_.reset();
    bool moved = false;
    for (Rank rank : group) {
      DESCENT_ASSIGN_OR_RETURN(const Clock expected, AskExpected(rank, leases_));
      Clock& clock = clocks_.at(rank);
      if (expected <= clock) continue;
      moved = true;
      control_->Skipped(rank, clock, expected);
      clock = expected;
      batches_->Forget(rank);  // those of the clocks between
      batch_of_.erase(rank);
      if (clock.value < options_.clocks) batches_->Request(rank, clock);
    }
    // One server is past a clock that another has not closed yet.
    if (!moved) control_->WaitForChange(time_->Now() + kRejoinPause);
    return absl::OkStatus();
  }

  absl::Status Await(Ticket ticket) {
    while (true) {
      absl::Status status = connection_.client->Wait(ticket, time_->Now() + kWaitSlice);
      if (!absl::IsDeadlineExceeded(status)) return status;
      DESCENT_RETURN_IF_ERROR(StillWanted());
    }
  }

  // The ranks with the lowest clock that have not reached the end.
  std::vector<Rank> LowestGroup() const {
    std::vector<Rank> group;
    Clock lowest(kUnbounded);
    for (const auto& [rank, clock] : clocks_) {
      if (std::find(done_.begin(), done_.end(), rank) != done_.end()) continue;
      if (clock < lowest) {
        lowest = clock;
        group.clear();
      }
      if (clock == lowest) group.push_back(rank);
    }
    return group;
  }

  bool EvaluatesAt(Clock clock) const {
    if (!options_.evaluate || clock.value == 0) return false;
    return clock.value >= options_.clocks ||
           (options_.evaluate_every > 0 && clock.value % options_.evaluate_every == 0);
  }

  // One clock of the ranks of `group`, all of which are at `clock`.
  absl::Status Iterate(Clock clock, const std::vector<Rank>& group) {
    const bool at_end = clock.value >= options_.clocks;
    if (!at_end || EvaluatesAt(clock)) {
      if (!have_.has_value() || have_->first != clock || have_->second != group) {
        DESCENT_ASSIGN_OR_RETURN(PullSpec pull, MakePull(clock, group));
        const absl::Status pulled = Await(connection_.client->Exchange(std::nullopt, pull));
        if (backup() && absl::IsNotFound(pulled)) return Rejoin(group);
        DESCENT_RETURN_IF_ERROR(pulled);
        have_.emplace(clock, group);
      }
      if (EvaluatesAt(clock)) {
        if (options_.averaged) {
          const absl::Status pulled = PullAverages(clock, group[0]);
          if (backup() && absl::IsNotFound(pulled)) return Rejoin(group);
          DESCENT_RETURN_IF_ERROR(pulled);
        }
        for (Rank rank : group) DESCENT_RETURN_IF_ERROR(Evaluate(rank, clock));
      }
    }
    if (at_end) {
      for (Rank rank : group) {
        done_.push_back(rank);
        control_->Done(rank);
      }
      return absl::OkStatus();
    }
    // Without leave: back to where leases and state are looked at.
    if (!control_->AwaitBegin(clock, time_->Now() + kWaitSlice)) return absl::OkStatus();
    return Compute(clock, group);
  }

  absl::Status Compute(Clock clock, const std::vector<Rank>& group) {
    for (Rank rank : group) {
      for (uint64_t ahead = 1; ahead <= 2; ++ahead) {
        if (clock.value + ahead < options_.clocks) batches_->Request(rank, Clock(clock.value + ahead));
      }
    }
    std::vector<Span> spans;
    if (options_.consistency.apply_push || backup() || options_.rounded) {
      for (Rank rank : group) spans.push_back({rank, 1});
    } else {
      // One push carries one incarnation; ranks that moved here hold others.
      std::map<Incarnation, std::vector<Rank>> by_incarnation;
      for (Rank rank : group) by_incarnation[IncarnationOf(rank)].push_back(rank);
      for (const auto& [incarnation, ranks] : by_incarnation) {
        for (const Span& span : AlignedSpans(ranks, options_.ranks)) spans.push_back(span);
      }
    }
    results_.clear();
    if (abandons()) question_.Ask(connection_.client.get(), clock, group[0]);
    std::optional<Ticket> pulled;
    bool behind = false, missed = false;
    for (size_t i = 0; i < spans.size(); ++i) {
      behind = abandons() && RoundClosed();
      if (behind) break;
      auto sum = ComputeSpan(spans[i], clock);
      if (!sum.ok()) return sum.status();
      behind = abandons() && RoundClosed();
      if (behind) {
        DropResult(spans[i].first);
        Release(*std::move(sum));
        break;
      }
      const PushSpec push = MakePush(spans[i], clock, **sum);
      std::optional<PullSpec> pull;
      if (i + 1 == spans.size()) {
        const auto next = NextGroup(group);
        if (!next.second.empty() && (next.first.value < options_.clocks || EvaluatesAt(next.first))) {
          // The parameters in hand are read no more, so the next ones may arrive over them.
          have_.reset();
          DESCENT_ASSIGN_OR_RETURN(pull, MakePull(next.first, next.second));
          next_ = next;
        }
      }
      const Ticket ticket = connection_.client->Exchange(push, pull);
      if (pull.has_value()) pulled = ticket;
      in_flight_.push_back({ticket, push, std::move(*sum)});
      while (in_flight_.size() > kMostInFlight) DESCENT_RETURN_IF_ERROR(AwaitOldest(&missed));
    }
    while (!in_flight_.empty()) DESCENT_RETURN_IF_ERROR(AwaitOldest(&missed));
    if (pulled.has_value()) have_ = next_;
    ReportCompleted();
    return behind || missed ? Rejoin(group) : absl::OkStatus();
  }

  // *missed: with backup ranks, a rank of it is to go on elsewhere.
  absl::Status AwaitOldest(bool* missed) {
    const absl::Status status = Await(in_flight_.front().ticket);
    if (LeftBehind(status)) DropResult(in_flight_.front().push.rank);
    const bool passed = LeftBehind(status) || (backup() && absl::IsNotFound(status));
    if (!passed) DESCENT_RETURN_IF_ERROR(status);
    *missed |= passed;
    Release(std::move(in_flight_.front().sum));
    in_flight_.pop_front();
    return absl::OkStatus();
  }

  // What the next iteration will serve once `group` has finished its clock.
  std::pair<Clock, std::vector<Rank>> NextGroup(const std::vector<Rank>& group) const {
    std::pair<Clock, std::vector<Rank>> next(Clock(kUnbounded), {});
    for (const auto& [rank, at] : clocks_) {
      if (std::find(done_.begin(), done_.end(), rank) != done_.end()) continue;
      Clock after = at;
      if (std::find(group.begin(), group.end(), rank) != group.end()) ++after;
      if (after < next.first) next = {after, {}};
      if (after == next.first) next.second.push_back(rank);
    }
    return next;
  }

  // The last evaluation reads what all clocks of all ranks have made, not what staleness would allow.
  bool ReadsAll(Clock clock) const {
    return clock.value >= options_.clocks && options_.consistency.staleness != kUnbounded;
  }
  Clock ReadClock(Clock clock) const { return ReadsAll(clock) ? Clock(clock.value + StalenessOf(clock)) : clock; }

  Incarnation IncarnationOf(Rank rank) const {
    auto lease = std::find_if(leases_.begin(), leases_.end(), [&](const LeasedRank& l) { return l.rank == rank; });
    DESCENT_CHECK(lease != leases_.end());
    return lease->incarnation;
  }

  // A batch is asked for twice: for its keys, then for its gradient.
  absl::StatusOr<std::shared_ptr<const Batch>> BatchOf(Rank rank, Clock clock) {
    auto& [at, batch] = batch_of_[rank];
    if (batch == nullptr || at != clock) {
      DESCENT_ASSIGN_OR_RETURN(batch, batches_->Get(rank, clock));
      at = clock;
    }
    return batch;
  }

  absl::StatusOr<PullSpec> MakePull(Clock clock, const std::vector<Rank>& group) {
    PullSpec pull;
    pull.rank = group[0];
    pull.clock = ReadClock(clock);
    std::vector<std::shared_ptr<const Batch>> batches;
    std::vector<const std::vector<uint64_t>*> lists;
    if (has_tables_ && clock.value < options_.clocks) {
      for (Rank rank : group) {
        DESCENT_ASSIGN_OR_RETURN(std::shared_ptr<const Batch> batch, BatchOf(rank, clock));
        lists.push_back(&batch->keys);
        batches.push_back(std::move(batch));
      }
    }
    parameters_.Want(lists, &pull);
    return pull;
  }

  absl::Status PullAverages(Clock clock, Rank rank) {
    if (averages_.dense.empty()) LayOut(tensors_, &averages_);
    PullSpec pull;
    pull.rank = rank;
    pull.clock = ReadClock(clock);
    pull.dense = averages_.dense;
    pull.averaged = true;
    return Await(connection_.client->Exchange(std::nullopt, pull));
  }
  // What is evaluated.
  std::vector<const float*> Evaluated() const {
    if (!options_.averaged) return parameters_.Dense();
    return {averages_.dense.begin(), averages_.dense.end()};
  }

  PushSpec MakePush(const Span& span, Clock clock, const GradientSum& sum) const {
    PushSpec push;
    push.rank = span.first;
    push.span = span.size;
    push.clock = clock;
    const uint64_t s = StalenessOf(clock);
    push.read_clock = options_.consistency.apply_push || s == 0 ? clock : Clock(clock.value - std::min(clock.value, s));
    push.incarnation = IncarnationOf(span.first);
    push.weight = sum.weight;
    if (sum.empty) return push;
    if (records()) push.read = parameters_.ReadOf(sum.keys);
    for (float* values : sum.dense) push.dense.push_back(values);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].sparse) {
        push.sparse.push_back({TensorId(static_cast<uint32_t>(i)), sum.keys, sum.rows[i].data()});
      }
    }
    return push;
  }

  // Of reads for `clock`; after the end that of the last one.
  uint64_t StalenessOf(Clock clock) const {
    const uint64_t last = std::max<uint64_t>(options_.clocks, 1) - 1;
    return StalenessAt(options_.consistency.changes, options_.consistency.staleness, std::min(clock.value, last));
  }

  bool records() const {
    return options_.consistency.apply_push && (options_.record_order || options_.consistency.tells_reads());
  }

  absl::StatusOr<std::unique_ptr<GradientSum>> ComputeSpan(const Span& span, Clock clock) {
    if (span.size == 1) return ComputeRank(span.first, clock);
    const uint32_t half = span.size / 2;
    DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<GradientSum> left, ComputeSpan({span.first, half}, clock));
    const Rank middle(span.first.value + half);
    if (middle.value >= options_.ranks) return left;
    DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<GradientSum> right, ComputeSpan({middle, half}, clock));
    Fold(tensors_, options_.geometry, left.get(), *right, &scratch_);
    Release(std::move(right));
    return left;
  }

  absl::StatusOr<std::unique_ptr<GradientSum>> ComputeRank(Rank rank, Clock clock) {
    DESCENT_ASSIGN_OR_RETURN(std::shared_ptr<const Batch> batch, BatchOf(rank, clock));
    std::unique_ptr<GradientSum> sum = Acquire();
    BatchResult result;
    sum->empty = batch->rows == 0;
    sum->keys = batch->keys;
    if (!sum->empty) {
      std::vector<float*> gradient = sum->dense;
      for (size_t i = 0; i < tensors_.size(); ++i) {
        if (!tensors_[i].sparse) continue;
        sum->rows[i].Resize(sum->keys.size() * tensors_[i].dim());
        gradient[i] = sum->rows[i].data();
      }
      const std::vector<const float*> parameters = parameters_.ForKeys(batch->keys);
      result = Gradient(*batch, parameters, absl::MakeSpan(gradient));
    }
    sum->weight.assign(1, result.weight);
    results_.emplace_back(rank, result);
    return sum;
  }

  // What a rank pushes for a batch, on the parameters that it has read.
  BatchResult Gradient(const Batch& batch, absl::Span<const float* const> parameters,
                       absl::Span<float* const> gradient) {
    if (options_.full_gradient) return long_batch_.Gradient(batch, parameters, model_, gradient);
    if (!local_steps_.has_value()) return model_->Gradient(batch, parameters, gradient);
    return local_steps_->Contribution(batch, parameters, model_, gradient,
                                      [this] { return abandons() && RoundClosed(); });
  }

  absl::Status Evaluate(Rank rank, Clock clock) {
    if (auto it = evaluated_.find(rank); it != evaluated_.end() && it->second >= clock) return absl::OkStatus();
    RankEvaluation evaluation;
    evaluation.rank = rank;
    evaluation.clock = clock;
    evaluation.classification = model_->classifier();
    evaluation.fuzzy = options_.consistency.apply_push && !ReadsAll(clock);
    const Dataset* judged = validation_ != nullptr ? validation_ : train_;
    std::optional<MetricObserver> metrics;
    if (judged != nullptr && WantsMetrics(options_.metrics)) {
      metrics.emplace(options_.metrics, PredictionOf(*model_), judged->rows());
    }
    const auto observer = [&](const Dataset* data) { return metrics && data == judged ? &*metrics : nullptr; };
    if (validation_ != nullptr) {
      DESCENT_ASSIGN_OR_RETURN(evaluation.validation, Share(*validation_, rank, clock, observer(validation_)));
    }
    if (options_.objective && train_ != nullptr) {
      DESCENT_ASSIGN_OR_RETURN(evaluation.train, Share(*train_, rank, clock, observer(train_)));
    }
    if (metrics) evaluation.metrics = metrics->Take();
    if (train_ == nullptr && validation_ == nullptr) {  // a model without data is its own objective
      DESCENT_ASSIGN_OR_RETURN(std::shared_ptr<const Batch> batch, batches_->Get(rank, clock));
      evaluation.validation = model_->Evaluate(*batch, Evaluated());
    }
    if (rank.value == 0) evaluation.regularizer = Regularizer(tensors_, options_.penalty, Evaluated());
    evaluated_[rank] = clock;
    control_->Evaluated(evaluation);
    return absl::OkStatus();
  }

  absl::StatusOr<BatchResult> Share(const Dataset& data, Rank rank, Clock clock, MetricObserver* metrics) {
    return evaluator_.Evaluate(data, rank, ReadClock(clock), Evaluated(), metrics);
  }

  std::unique_ptr<GradientSum> Acquire() {
    std::unique_ptr<GradientSum> sum;
    if (free_.empty()) {
      sum = std::make_unique<GradientSum>();
      LayOut(tensors_, sum.get());
    } else {
      sum = std::move(free_.back());
      free_.pop_back();
    }
    return sum;
  }
  void Release(std::unique_ptr<GradientSum> sum) {
    if (sum != nullptr) free_.push_back(std::move(sum));
  }

  static constexpr size_t kMostInFlight = 2;  // pushes on their way while the next gradient is computed

  const TrainerOptions options_;
  Model<float>* const model_;
  const std::vector<TensorSpec> tensors_;
  BatchSource* const batches_;
  const Dataset* const train_;
  const Dataset* const validation_;
  const std::function<Connection()> connect_;
  TrainerControl* const control_;
  const TimeSource* const time_;
  const bool has_tables_;

  std::vector<LeasedRank> leases_;
  std::map<Rank, Clock> clocks_;  // of the ranks held: the next to compute
  std::vector<Rank> done_;
  std::map<Rank, Clock> evaluated_;
  std::map<Rank, std::pair<Clock, std::shared_ptr<const Batch>>> batch_of_;

  // Parameters of clock have_->first, and the rows that the batches of have_->second need.
  std::optional<std::pair<Clock, std::vector<Rank>>> have_;
  std::pair<Clock, std::vector<Rank>> next_;
  HeldParameters parameters_;
  LongBatch long_batch_;
  std::optional<LocalSteps> local_steps_;
  GradientSum averages_;      // laid out like a gradient
  ShareEvaluator evaluator_;  // here, because an evaluation may be given up while its rows are on their way

  std::vector<std::pair<Rank, BatchResult>> results_;  // of the clock in hand
  std::vector<std::unique_ptr<GradientSum>> free_;
  GradientSum scratch_;
  std::deque<InFlight> in_flight_;
  RoundQuestion question_;
  absl::Duration pause_ = kFirstPause;
  absl::Time told_ = absl::InfinitePast();
  ClientStats past_stats_;
  Connection connection_;  // last: destroyed first, before the buffers it points into
};

Trainer::Trainer(TrainerOptions options, Model<float>* model, BatchSource* batches, const Dataset* train,
                 const Dataset* validation, std::function<Connection()> connect, TrainerControl* control,
                 const TimeSource* time)
    : impl_(std::make_unique<Impl>(std::move(options), model, batches, train, validation, std::move(connect), control,
                                   time)) {}
Trainer::~Trainer() = default;
absl::Status Trainer::Run() { return impl_->Run(); }
ClientStats Trainer::client_stats() const { return impl_->client_stats(); }

}  // namespace descent
