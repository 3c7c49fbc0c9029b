#include "worker/loop/trainer.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"
#include "common/wire/read_vector.h"
#include "worker/loop/gradient_sum.h"

namespace descent {
namespace {

constexpr absl::Duration kWaitSlice = absl::Milliseconds(100);  // between looks at leases and state

void Add(const BatchResult& part, BatchResult* total) {
  total->loss += part.loss;
  total->weight += part.weight;
  total->correct += part.correct;
}

constexpr absl::Duration kFinishWithin = absl::Seconds(3);  // for pushes under way when the run is stopped
constexpr absl::Duration kFirstPause = absl::Milliseconds(100), kLastPause = absl::Seconds(1);  // before a new start
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
        time_(time) {
    LayOut(tensors_, &parameters_);
    rows_.resize(tensors_.size());
    for (Reading& reading : evaluation_) reading.rows.resize(tensors_.size());
    for (const TensorSpec& t : tensors_) has_tables_ |= t.sparse;
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
  struct Reading {  // a batch of an evaluation, and the rows of tables that it needs
    Batch batch;
    std::vector<AlignedFloats> rows;
    Ticket ticket = 0;
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
    question_ = {};
    old_questions_.clear();
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
        const absl::Time slice = std::min(deadline, time_->Now() + kWaitSlice);
        status = connection_.client->Wait(*ticket, slice);
        if (absl::IsUnavailable(status)) {  // a backup, say, that has not heard yet that it serves now
          ticket.reset();
          control_->WaitForChange(slice);
        }
      } while ((absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status)) && time_->Now() < deadline);
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

  // Has every server closed the round of `clock`? That is what a read of the next clock, of nothing, waits for.
  void AskClosed(Clock clock, Rank rank) {
    if (question_.ticket.has_value() && question_.clock == clock) return;
    if (question_.ticket.has_value()) old_questions_.push_back(*question_.ticket);
    // Answered by now, but for those of rounds that a rank which has just come here is still needed for.
    std::erase_if(old_questions_, [&](Ticket ticket) { return Answered(ticket).has_value(); });
    PullSpec pull;
    pull.rank = rank;
    pull.clock = Clock(clock.value + 1);
    question_ = {connection_.client->Exchange(std::nullopt, pull), clock, false};
  }
  std::optional<absl::Status> Answered(Ticket ticket) {
    absl::Status status = connection_.client->Wait(ticket, absl::InfinitePast());
    if (absl::IsDeadlineExceeded(status)) return std::nullopt;
    return status;
  }
  bool RoundClosed() {
    if (!question_.ticket.has_value()) return question_.closed;
    const std::optional<absl::Status> answer = Answered(*question_.ticket);
    if (!answer.has_value()) return false;
    question_.ticket.reset();
    question_.closed = answer->ok();  // what is wrong shows where it matters
    return question_.closed;
  }

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
    return Compute(clock, group);
  }

  absl::Status Compute(Clock clock, const std::vector<Rank>& group) {
    for (Rank rank : group) {
      for (uint64_t ahead = 1; ahead <= 2; ++ahead) {
        if (clock.value + ahead < options_.clocks) batches_->Request(rank, Clock(clock.value + ahead));
      }
    }
    std::vector<Span> spans;
    if (options_.consistency.apply_push || backup()) {
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
    if (abandons()) AskClosed(clock, group[0]);
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
  Clock ReadClock(Clock clock) const {
    return ReadsAll(clock) ? Clock(clock.value + options_.consistency.staleness) : clock;
  }

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
    pull.dense = parameters_.dense;
    if (records()) {
      versions_.clear();
      pull.versions = &versions_;
    }
    if (has_tables_ && clock.value < options_.clocks) {
      std::vector<std::shared_ptr<const Batch>> batches;
      std::vector<const std::vector<uint64_t>*> lists;
      for (Rank rank : group) {
        DESCENT_ASSIGN_OR_RETURN(std::shared_ptr<const Batch> batch, BatchOf(rank, clock));
        lists.push_back(&batch->keys);
        batches.push_back(std::move(batch));
      }
      keys_ = MergeKeys(options_.geometry, lists);
      AddTables(keys_, &rows_, &pull);
    }
    return pull;
  }

  void AddTables(const std::vector<uint64_t>& keys, std::vector<AlignedFloats>* rows, PullSpec* pull) const {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (!tensors_[i].sparse) continue;
      (*rows)[i].Resize(keys.size() * tensors_[i].dim());
      pull->sparse.push_back({TensorId(static_cast<uint32_t>(i)), keys, (*rows)[i].data()});
    }
  }

  PushSpec MakePush(const Span& span, Clock clock, const GradientSum& sum) const {
    PushSpec push;
    push.rank = span.first;
    push.span = span.size;
    push.clock = clock;
    const uint64_t s = options_.consistency.staleness;
    push.read_clock = options_.consistency.apply_push || s == 0 ? clock : Clock(clock.value - std::min(clock.value, s));
    push.incarnation = IncarnationOf(span.first);
    push.weight = sum.weight;
    if (sum.empty) return push;
    if (records()) push.read = ReadOf(sum.keys);
    for (float* values : sum.dense) push.dense.push_back(values);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (tensors_[i].sparse) {
        push.sparse.push_back({TensorId(static_cast<uint32_t>(i)), sum.keys, sum.rows[i].data()});
      }
    }
    return push;
  }

  bool records() const { return options_.record_order && options_.consistency.apply_push; }

  // What the parameters in hand, and of tables the rows of `keys`, were when they were read.
  std::string ReadOf(const std::vector<uint64_t>& keys) const {
    std::vector<PartVersion> sorted = versions_;
    std::sort(sorted.begin(), sorted.end(), [](const PartVersion& a, const PartVersion& b) { return a.id < b.id; });
    std::vector<bool> touched(has_tables_ ? options_.geometry.slots : 0);
    for (uint64_t key : keys) touched[options_.geometry.slot(key)] = true;
    ReadVector read;
    for (const PartVersion& part : sorted) {
      if (!tensors_[part.id.tensor.value].sparse) {
        read.dense.push_back(part.version);
      } else if (touched[part.id.index]) {
        read.slots.push_back({part.id, part.version, part.steps});
      }
    }
    return EncodeRead(read);
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
      std::vector<const float*> parameters(parameters_.dense.begin(), parameters_.dense.end());
      std::vector<float*> gradient = sum->dense;
      for (size_t i = 0; i < tensors_.size(); ++i) {
        if (!tensors_[i].sparse) continue;
        sum->rows[i].Resize(sum->keys.size() * tensors_[i].dim());
        gradient[i] = sum->rows[i].data();
        parameters[i] = GatherRows(i, batch->keys);
      }
      result = model_->Gradient(*batch, parameters, absl::MakeSpan(gradient));
    }
    sum->weight.assign(1, result.weight);
    results_.emplace_back(rank, result);
    return sum;
  }

  // Rows of `keys`, a subset of keys_ in the same order.
  const float* GatherRows(size_t tensor, const std::vector<uint64_t>& keys) {
    if (keys.size() == keys_.size()) return rows_[tensor].data();
    const size_t dim = tensors_[tensor].dim();
    gathered_.resize(tensors_.size());
    AlignedFloats& out = gathered_[tensor];
    out.Resize(keys.size() * dim);
    size_t at = 0;
    for (size_t k = 0; k < keys.size(); ++k, ++at) {
      while (keys_[at] != keys[k]) ++at;
      std::memcpy(out.data() + k * dim, rows_[tensor].data() + at * dim, dim * sizeof(float));
    }
    return out.data();
  }

  absl::Status Evaluate(Rank rank, Clock clock) {
    if (auto it = evaluated_.find(rank); it != evaluated_.end() && it->second >= clock) return absl::OkStatus();
    RankEvaluation evaluation;
    evaluation.rank = rank;
    evaluation.clock = clock;
    evaluation.classification = model_->classifier();
    evaluation.fuzzy = options_.consistency.apply_push && !ReadsAll(clock);
    if (validation_ != nullptr) {
      DESCENT_ASSIGN_OR_RETURN(evaluation.validation, EvaluateShare(*validation_, rank, clock));
    }
    if (options_.objective && train_ != nullptr) {
      DESCENT_ASSIGN_OR_RETURN(evaluation.train, EvaluateShare(*train_, rank, clock));
    }
    if (train_ == nullptr && validation_ == nullptr) {  // a model without data is its own objective
      DESCENT_ASSIGN_OR_RETURN(std::shared_ptr<const Batch> batch, batches_->Get(rank, clock));
      evaluation.validation = model_->Evaluate(*batch, Parameters());
    }
    if (rank.value == 0) evaluation.regularizer = Regularizer();
    evaluated_[rank] = clock;
    control_->Evaluated(evaluation);
    return absl::OkStatus();
  }

  std::vector<const float*> Parameters() const { return {parameters_.dense.begin(), parameters_.dense.end()}; }

  absl::StatusOr<BatchResult> EvaluateShare(const Dataset& data, Rank rank, Clock clock) {
    const uint64_t begin =
        data.rows() / options_.ranks * rank.value + data.rows() % options_.ranks * rank.value / options_.ranks;
    const uint64_t next = rank.value + 1;
    const uint64_t end = data.rows() / options_.ranks * next + data.rows() % options_.ranks * next / options_.ranks;
    BatchResult total;
    uint64_t at = begin;
    const auto fetch = [&](Reading* reading) -> absl::Status {
      std::vector<uint64_t> rows(std::min<uint64_t>(end - at, options_.evaluation_batch));
      std::iota(rows.begin(), rows.end(), at);
      at += rows.size();
      DESCENT_RETURN_IF_ERROR(data.Read(rows, &reading->batch));
      if (!has_tables_) return absl::OkStatus();
      PullSpec pull;
      pull.rank = rank;
      pull.clock = ReadClock(clock);
      AddTables(reading->batch.keys, &reading->rows, &pull);
      reading->ticket = connection_.client->Exchange(std::nullopt, pull);
      return absl::OkStatus();
    };
    // One batch is read and its rows are asked for while those of the one before are on their way.
    Reading *now = &evaluation_[0], *ahead = &evaluation_[1];
    if (begin < end) DESCENT_RETURN_IF_ERROR(fetch(now));
    for (bool more = begin < end; more; std::swap(now, ahead)) {
      more = at < end;
      if (more) DESCENT_RETURN_IF_ERROR(fetch(ahead));
      std::vector<const float*> parameters = Parameters();
      if (has_tables_) {
        DESCENT_RETURN_IF_ERROR(Await(now->ticket));
        for (size_t i = 0; i < tensors_.size(); ++i) {
          if (tensors_[i].sparse) parameters[i] = now->rows[i].data();
        }
      }
      Add(model_->Evaluate(now->batch, parameters), &total);
      DESCENT_RETURN_IF_ERROR(StillWanted());
    }
    return total;
  }

  double Regularizer() const {
    double square = 0;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (!tensors_[i].decay || options_.l2 == 0) continue;
      if (tensors_[i].sparse) return std::numeric_limits<double>::quiet_NaN();  // no worker sees all rows
      const float* values = parameters_.dense[i];
      for (uint64_t k = 0; k < tensors_[i].elements(); ++k) square += static_cast<double>(values[k]) * values[k];
    }
    return 0.5 * options_.l2 * square;
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
  bool has_tables_ = false;

  std::vector<LeasedRank> leases_;
  std::map<Rank, Clock> clocks_;  // of the ranks held: the next to compute
  std::vector<Rank> done_;
  std::map<Rank, Clock> evaluated_;
  std::map<Rank, std::pair<Clock, std::shared_ptr<const Batch>>> batch_of_;

  // Parameters of clock have_->first, and the rows that the batches of have_->second need.
  std::optional<std::pair<Clock, std::vector<Rank>>> have_;
  std::pair<Clock, std::vector<Rank>> next_;
  GradientSum parameters_;
  std::vector<uint64_t> keys_;
  std::vector<AlignedFloats> rows_;
  std::vector<AlignedFloats> gathered_;
  std::vector<PartVersion> versions_;  // of these and of the dense parameters, where the order is recorded
  Reading evaluation_[2];              // here, because an evaluation may be given up while its rows are on their way

  std::vector<std::pair<Rank, BatchResult>> results_;  // of the clock in hand
  std::vector<std::unique_ptr<GradientSum>> free_;
  GradientSum scratch_;
  std::deque<InFlight> in_flight_;
  struct Question {
    std::optional<Ticket> ticket;  // until it is answered
    Clock clock;
    bool closed = false;
  };
  Question question_;
  std::vector<Ticket> old_questions_;
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
