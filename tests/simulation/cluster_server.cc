#include "tests/simulation/cluster_server.h"

#include <algorithm>

#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "server/checkpoint/cut_reader.h"
#include "server/coordinator/coordinator.h"
#include "tests/simulation/cluster_coordinator.h"
#include "tests/simulation/cluster_worker.h"
#include "tests/simulation/node_options.h"

namespace descent::simulation {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);

// What a coordinator or a disk that is slow, busy, or being replaced answers.
bool Passes(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status) ||
         absl::IsAborted(status);
}

Payload Copy(const Payload& from) {
  Payload to;
  if (from.empty()) return to;
  std::shared_ptr<std::byte[]> bytes(new std::byte[from.size()]);
  from.CopyTo(bytes.get());
  to.Append(bytes.get(), from.size(), bytes);
  return to;
}

}  // namespace

class ClusterServer::Part final : public CutSink {
 public:
  Part(Storage* storage, std::string folder, const CutId& cut, ServerId server, std::vector<TensorSpec> tensors,
       uint32_t ranks)
      : storage_(storage),
        folder_(std::move(folder)),
        cut_(cut),
        server_(server),
        tensors_(std::move(tensors)),
        least_mark_(ranks, UINT64_MAX) {}

  void Add(BlockExport image, std::vector<uint64_t> marks) override {
    image.payload = Copy(image.payload);  // it waits
    queue_.emplace_back(std::move(image), std::move(marks));
  }
  void Done() override { done_ = true; }

  // One image at a time; then the end of the file, once the node is done.
  void Step() {
    if (report.has_value()) return;
    absl::Status status;
    if (!queue_.empty()) {
      status = Append(queue_.front().first, queue_.front().second);
      queue_.pop_front();
    } else if (done_) {
      status = Open();
      absl::StatusOr<v1::PartFile> part;
      if (status.ok()) {
        part = file_->Finish();
        status = part.status();
      }
      if (status.ok()) {
        report.emplace();
        report->set_number(cut_.number);
        *report->mutable_part() = *part;
        for (uint64_t mark : least_mark_) report->add_least_mark(mark);
      }
    }
    if (!status.ok()) Fail(status, false);
  }
  void Fail(const absl::Status& why, bool past) {
    report.emplace();
    report->set_number(cut_.number);
    report->set_failure(std::string(why.message()));
    report->set_past(past);
    queue_.clear();
  }

  std::optional<v1::CutReport> report;
  uint64_t attempt = 0;

 private:
  absl::Status Open() {
    if (file_ != nullptr) return absl::OkStatus();
    DESCENT_ASSIGN_OR_RETURN(file_, PartFileWriter::Create(storage_, folder_, cut_, server_));
    return absl::OkStatus();
  }
  absl::Status Append(const BlockExport& image, const std::vector<uint64_t>& marks) {
    DESCENT_RETURN_IF_ERROR(Open());
    const TensorSpec& spec = tensors_[image.id.tensor.value];
    for (size_t r = 0; r < least_mark_.size(); ++r) least_mark_[r] = std::min(least_mark_[r], marks[r]);
    return file_->Append(image, spec.sparse ? spec.dim() : 0, marks);
  }

  Storage* const storage_;
  const std::string folder_;
  const CutId cut_;
  const ServerId server_;
  const std::vector<TensorSpec> tensors_;
  std::vector<uint64_t> least_mark_;
  std::deque<std::pair<BlockExport, std::vector<uint64_t>>> queue_;
  std::unique_ptr<PartFileWriter> file_;
  bool done_ = false;
};

void ClusterServer::After(absl::Duration after, void (ClusterServer::*then)()) {
  cluster_->net.On(process(), after, [this, then] { (this->*then)(); });
}

void ClusterServer::Start(bool elsewhere) {
  if (elsewhere && moves_ > 0) cluster_->truth.coverage.Add("servers moved");
  if (elsewhere || address_.empty()) address_ = absl::StrCat("s", index_, ":", ++moves_);
  storage_ = cluster_->MakeStorage(process());
  nonce_ = cluster_->next_nonce++;
  heard_ = cluster_->net.now();
  exited_ = false;
  Register();
}

void ClusterServer::Killed() {
  part_.reset();  // before the storage that it writes to
  CountNode();
  // Connections end; whoever can't be told of it finds out by itself.
  for (const auto& [id, line] : std::exchange(lines_, {})) {
    line->at_server = false;
    const bool told = !cluster_->net.cut(process(), line->worker);
    if (cluster_->net.alive(line->worker) && cluster_->net.life(line->worker) == line->worker_life) {
      cluster_->net.On(line->worker, told ? cluster_->net.Delay() : absl::Seconds(2), [this, line = line] {
        cluster_->workers[line->worker - cluster_->worker_process(0)]->OnClosed(line);
      });
    }
  }
  node_.reset();
  out_.clear();
  ready_ = placing_ = false;
  generation_ = Generation();
  timer_ = absl::InfiniteFuture();
}

void ClusterServer::CountNode() {
  if (node_ == nullptr) return;
  const ServerNodeStats& stats = node_->stats();
  cluster_->truth.coverage.Add("pushes fenced", stats.fenced);
  cluster_->truth.coverage.Add("duplicates", stats.duplicates);
  cluster_->truth.coverage.Add("pulls held", stats.held);
}

void ClusterServer::Uninstall() { Killed(); }

void ClusterServer::End() {
  Uninstall();
  exited_ = true;
  if (index_ != 0) cluster_->net.Kill(process());
}

void ClusterServer::Register() {
  v1::RegisterServerRequest request;
  cluster_->Sign(&request);
  request.set_address(address_);
  request.set_host(absl::StrCat("host", index_));
  request.set_pid(1000 + cluster_->net.life(process()));
  request.set_nonce(nonce_);
  cluster_->net.Call<v1::RegisterReply>(
      process(), 0,
      [this, request] {
        return cluster_->coordinator->Serve(
            [&](Coordinator& c) { return c.RegisterServer(request, cluster_->net.now()); });
      },
      [this](absl::StatusOr<v1::RegisterReply> reply) {
        if (exited_) return;
        if (reply.ok() && reply->mismatch_size() == 0) {
          registration_ = *std::move(reply);
          cluster_->Note(name(), absl::StrCat("is server ", registration_.server(), " at ", address_));
          return Beat();
        }
        const Coordinator* c = cluster_->coordinator->coordinator();
        if (reply.ok() && !reply->later() && c != nullptr && c->ended()) return End();  // too late
        if (cluster_->net.now() - heard_ > kPatience) return End();
        After(absl::Milliseconds(200), &ClusterServer::Register);
      });
}

void ClusterServer::Beat() {
  v1::HeartbeatRequest beat;
  beat.set_member(registration_.member());
  beat.set_run(registration_.run());
  beat.set_generation(ready_ ? generation_.value : 0);
  beat.set_ready(ready_);
  beat.set_nonce(nonce_);
  if (part_ != nullptr && part_->report.has_value()) {
    *beat.add_cut() = *part_->report;
    beat.mutable_cut(0)->set_attempt(part_->attempt);
  }
  if (ready_) beat.mutable_load()->set_round(node_->stats().round);
  cluster_->net.Call<v1::HeartbeatReply>(
      process(), 0,
      [this, beat] {
        return cluster_->coordinator->Serve([&](Coordinator& c) { return c.Heartbeat(beat, cluster_->net.now()); });
      },
      [this](absl::StatusOr<v1::HeartbeatReply> news) {
        if (exited_) return;
        if (!news.ok()) {
          if (cluster_->net.now() - heard_ > kPatience) return End();
          return After(kBeatAgain, &ClusterServer::Beat);
        }
        heard_ = cluster_->net.now();
        TakeNews(*news);
      });
}

void ClusterServer::TakeNews(const v1::HeartbeatReply& news) {
  if (news.phase() >= v1::FINISHED) return End();
  if (news.unknown_member()) {
    cluster_->truth.coverage.Add("zombies back");
    if (cluster_->fault == ClusterFault::kZombieStays) return After(kBeatAgain, &ClusterServer::Beat);
    Uninstall();
    nonce_ = cluster_->next_nonce++;
    return Register();
  }
  if (ready_ && news.generation() != generation_.value) ready_ = false;
  TakeOrder(news);
  if (!ready_ && news.has_map() && !placing_) {
    part_.reset();
    placing_ = true;
    // The reading of a cut and the making of blocks take their time; beats go on meanwhile.
    cluster_->net.On(process(), cluster_->dice->Between(absl::Milliseconds(2), absl::Milliseconds(120)),
                     [this, news] { Place(news); });
  }
  absl::Duration pause = absl::Milliseconds(std::max<uint32_t>(1, news.next_ms()));
  if (part_ != nullptr) pause = std::min(pause, absl::Milliseconds(20));
  After(pause, &ClusterServer::Beat);
}

void ClusterServer::Place(const v1::HeartbeatReply& news) {
  if (!placing_) return;  // it has registered again meanwhile
  placing_ = false;
  const absl::Status placed = MakeNode(news);
  cluster_->Note(name(), absl::StrCat("places generation ", news.generation(), ": ", placed.ToString()));
  if (placed.ok()) {
    ready_ = true;
    generation_ = Generation(news.generation());
  } else if (absl::IsDataLoss(placed) && cluster_->truth.damaged()) {
    Uninstall();
  } else if (!Passes(placed) || absl::IsResourceExhausted(placed)) {
    cluster_->truth.Wrong(absl::StrCat(name(), " can't place its blocks: ", placed.ToString()));
  } else {
    Uninstall();
  }
}

absl::Status ClusterServer::MakeNode(const v1::HeartbeatReply& news) {
  Uninstall();
  Envelope envelope;
  envelope.job = kFingerprint;
  envelope.run = kRun;
  envelope.generation = Generation(news.generation());
  envelope.map_epoch = news.map().epoch();
  DESCENT_ASSIGN_OR_RETURN(tensors_, SpecsFromMessage(news.tensors()));
  DESCENT_ASSIGN_OR_RETURN(const PartitionMap map, FromMessage(news.map(), tensors_, cluster_->job.geometry()));
  Schedule schedule;
  schedule.send_window = cluster_->schedule.send_window;
  const ServerId self(registration_.server());
  ServerNodeOptions options = MakeNodeOptions(cluster_->job, schedule, map, envelope, self);
  options.fault = cluster_->engine_fault;
  if (news.has_restore()) {
    options.restored.emplace();
    for (uint64_t clock : news.restore().clock()) options.restored->restart.push_back(Clock(clock));
  }
  DESCENT_ASSIGN_OR_RETURN(node_, ServerNode::Create(std::move(options), this));
  newest_.assign(cluster_->job.ranks, Incarnation());
  if (!news.has_restore()) return absl::OkStatus();
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<CutReader> cut,
                           CutReader::Open(storage_.get(), news.restore().folder()));
  const auto install = [&](const v1::CutRecord& record, const Payload& payload) {
    BlockExport image;
    image.id = BlockId{TensorId(record.tensor()), record.index()};
    image.version = record.version();
    image.steps = record.steps();
    image.keys = record.keys();
    image.state_slots = record.state_slots();
    image.skipped.assign(record.skipped().begin(), record.skipped().end());
    image.payload = payload;
    return node_->Install(image, std::vector<uint64_t>(record.mark().begin(), record.mark().end()));
  };
  DESCENT_RETURN_IF_ERROR(
      cut->ForEach([&](BlockId id) { return map.server(id) == self; }, install, CutReader::Extent::kWanted));
  return node_->FinishRestore();
}

void ClusterServer::TakeOrder(const v1::HeartbeatReply& news) {
  const bool wanted = news.has_cut() && ready_ && news.generation() == generation_.value;
  if (part_ != nullptr && (!wanted || part_->attempt != news.cut().attempt())) {
    if (node_ != nullptr) node_->DropCut();
    part_.reset();
  }
  if (!wanted || part_ != nullptr) return;
  part_ = std::make_shared<Part>(storage_.get(), news.cut().folder(), CutId{kRun, generation_, news.cut().number()},
                                 ServerId(registration_.server()), tensors_, cluster_->job.ranks);
  part_->attempt = news.cut().attempt();
  const absl::Status begun = node_->BeginCut(Clock(news.cut().at()), part_);
  if (!begun.ok()) part_->Fail(begun, absl::IsOutOfRange(begun));
  After(absl::Milliseconds(1), &ClusterServer::WritePart);
}

void ClusterServer::WritePart() {
  if (part_ == nullptr || part_->report.has_value()) return;
  part_->Step();
  node_->PumpCut();
  After(cluster_->dice->Between(absl::ZeroDuration(), absl::Milliseconds(12)), &ClusterServer::WritePart);
}

bool ClusterServer::Accept(const std::shared_ptr<ClusterLine>& line) {
  if (node_ == nullptr || !ready_) return false;
  lines_[line->id] = line;
  node_->OnOpen(ConnectionId(line->id), cluster_->net.now());
  AfterNode();
  return true;
}

void ClusterServer::Close(uint64_t id) {
  const auto line = lines_.find(id);
  if (line == lines_.end()) return;
  line->second->at_server = false;
  lines_.erase(line);
  node_->OnClose(ConnectionId(id), cluster_->net.now());
  AfterNode();
}

void ClusterServer::OnRequest(const std::shared_ptr<ClusterLine>& line, Request request) {
  if (!line->at_server || node_ == nullptr) return;
  // Once a rank's newer holder has pushed here, an older one must be told that it is fenced, whatever it says it is.
  if (request.push.has_value() && request.envelope.generation == generation_) {
    const Rank rank = request.push->rank;
    const Incarnation true_one = cluster_->truth.granted(line->worker, line->worker_life, rank);
    Incarnation& newest = newest_[rank.value];
    if (line->seen.insert(request.id).second && true_one < newest) line->to_be_fenced.insert(request.id);
    newest = std::max(newest, true_one);
  }
  node_->OnRequest(ConnectionId(line->id), std::move(request), cluster_->net.now());
  AfterNode();
}

void ClusterServer::AfterNode() {
  for (auto& [to, reply] : std::exchange(out_, {})) {
    const auto found = lines_.find(to.value);
    if (found == lines_.end()) continue;
    const std::shared_ptr<ClusterLine> line = found->second;
    if (reply.ack.has_value() && reply.ack->outcome != Outcome::kFenced && line->to_be_fenced.contains(reply.id)) {
      cluster_->truth.Wrong("a push of an older holder was not answered as fenced");
    }
    cluster_->net.On(process(), cluster_->dice->Between(absl::ZeroDuration(), absl::Microseconds(200)),
                     [this, id = line->id] {
                       if (!lines_.contains(id)) return;
                       node_->OnSent(ConnectionId(id), cluster_->net.now());
                       AfterNode();
                     });
    reply.payload = Copy(reply.payload);
    cluster_->net.Message(process(), line->worker, [this, line, reply = std::make_shared<Reply>(std::move(reply))] {
      cluster_->workers[line->worker - cluster_->worker_process(0)]->OnReply(line, *reply);
    });
  }
  const absl::Time next = node_->next_timer();
  if (next >= timer_) return;
  timer_ = next;
  cluster_->net.On(process(), std::max(next - cluster_->net.now(), absl::ZeroDuration()), [this] {
    timer_ = absl::InfiniteFuture();
    if (node_ == nullptr) return;
    node_->OnTimer(cluster_->net.now());
    AfterNode();
  });
}

}  // namespace descent::simulation
