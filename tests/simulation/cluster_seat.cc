#include "tests/simulation/cluster_seat.h"

#include <algorithm>

#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "server/checkpoint/cut_reader.h"
#include "tests/simulation/cluster_worker.h"
#include "tests/simulation/node_options.h"

namespace descent::simulation {
namespace {

// What a coordinator or a disk that is slow, busy, or being replaced answers.
bool Passes(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsAborted(status);
}

}  // namespace

std::string ClusterSeat::name() const {
  return absl::StrCat(primary() ? "server " : "backup of server ", server_.value, " at ", address_);
}

void ClusterSeat::After(absl::Duration after, void (ClusterSeat::*then)()) {
  cluster_->net.On(process_, after, [self = weak_from_this(), then] {
    if (const auto seat = self.lock()) (seat.get()->*then)();
  });
}

// --- Blocks ----------------------------------------------------------------------------------------------------------

void ClusterSeat::CountNode() {
  if (node_ == nullptr) return;
  const ServerNodeStats& stats = node_->stats();
  ClusterCoverage& coverage = cluster_->truth.coverage;
  coverage.Add("pushes fenced", stats.fenced);
  coverage.Add("duplicates", stats.duplicates);
  coverage.Add("pulls held", stats.held);
  coverage.Add("clocks acknowledged under replication", std::exchange(replicated_acks_, 0));
}

void ClusterSeat::Uninstall() {
  part_.reset();
  CountNode();
  CloseAll();
  telling_.Forget();
  node_.reset();
  primary_node_ = nullptr;
  backup_node_ = nullptr;
  out_.clear();
  state_.Void();
  placing_ = 0;
  timer_ = absl::InfiniteFuture();
}

// Connections end; whoever can't be told of it finds out by itself.
void ClusterSeat::CloseAll() {
  for (const auto& [id, line] : std::exchange(lines_, {})) {
    line->at_server = false;
    const bool told = !cluster_->net.cut(process_, line->worker);
    if (cluster_->net.alive(line->worker) && cluster_->net.life(line->worker) == line->worker_life) {
      cluster_->net.On(line->worker, told ? cluster_->net.Delay() : absl::Seconds(2),
                       [cluster = cluster_, line = line] {
                         cluster->workers[line->worker - cluster->worker_process(0)]->OnClosed(line);
                       });
    }
  }
  for (const auto& [id, from] : std::exchange(links_, {})) {
    if (const auto link = from.lock()) link->Ended(id);
  }
}

void ClusterSeat::Place(const v1::HeartbeatReply& news, const v1::Seat& want) {
  placing_ = 0;
  const absl::Status placed = MakeBlocks(news, want);
  cluster_->Note(name(), absl::StrCat("places generation ", news.generation(), ": ", placed.ToString()));
  if (placed.ok()) {
    return state_.Placed();
  }
  Uninstall();
  const bool expected = Passes(placed) || (absl::IsDataLoss(placed) && cluster_->truth.damaged());
  if (!expected) cluster_->truth.Wrong(absl::StrCat(name(), " can't place its blocks: ", placed.ToString()));
}

absl::Status ClusterSeat::MakeBlocks(const v1::HeartbeatReply& news, const v1::Seat& want) {
  Envelope envelope;
  envelope.job = kFingerprint;
  envelope.run = kRun;
  envelope.generation = Generation(news.generation());
  envelope.map_epoch = news.map().epoch();
  DESCENT_ASSIGN_OR_RETURN(tensors_, SpecsFromMessage(news.tensors()));
  DESCENT_ASSIGN_OR_RETURN(map_, FromMessage(news.map(), tensors_, cluster_->job.geometry()));
  Schedule schedule;
  schedule.send_window = cluster_->schedule.send_window;
  ServerNodeOptions options = MakeNodeOptions(cluster_->job, schedule, map_, envelope, server_);
  options.fault = cluster_->engine_fault;
  const bool joins = !want.primary() && !want.fresh();  // its primary sends what it holds
  if (!joins) cluster_->truth.BeginsAnew(Generation(news.generation()), news.has_restore());
  if (news.has_restore() && !joins) {
    options.restored.emplace();
    for (uint64_t clock : news.restore().clock()) options.restored->restart.push_back(Clock(clock));
  }
  newest_.assign(cluster_->job.ranks, Incarnation());
  if (!cluster_->schedule.replicas) {
    DESCENT_ASSIGN_OR_RETURN(node_, ServerNode::Create(std::move(options), this));
  } else {
    MakeNode make;
    if (!want.primary()) {
      make = [this, &want](ServerNodeOptions inner,
                           ServerNode::Output* to) -> absl::StatusOr<std::unique_ptr<ServerNode>> {
        DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<BackupNode> made,
                                 BackupNode::Create(std::move(inner), want.view(), want.fresh(), to));
        backup_node_ = made.get();
        return made;
      };
    }
    PrimaryOptions primary;
    primary.view = want.primary() ? 0 : want.view();
    primary.fault = cluster_->replica_fault();
    DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<PrimaryNode> made,
                             PrimaryNode::Create(std::move(options), primary, this, make));
    primary_node_ = made.get();
    node_ = std::move(made);
  }
  return news.has_restore() && !joins ? Restore(news.restore(), map_) : absl::OkStatus();
}

absl::Status ClusterSeat::Restore(const v1::RestorePoint& from, const PartitionMap& map) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<CutReader> cut, CutReader::Open(storage_, from.folder()));
  const auto install = [&](const v1::CutRecord& record, const Payload& payload) {
    return node_->Install(ImageOf(record, payload), std::vector<uint64_t>(record.mark().begin(), record.mark().end()));
  };
  DESCENT_RETURN_IF_ERROR(
      cut->ForEach([&](BlockId id) { return map.server(id) == server_; }, install, CutReader::Extent::kWanted));
  return node_->FinishRestore();
}

// --- What the coordinator says ---------------------------------------------------------------------------------------

void ClusterSeat::Tend(const v1::HeartbeatReply& news, const v1::Seat& want) {
  state_.Hear(news, want);
  TakeOrder(news);
  const SeatState::Duty duty = state_.Tend(news, want, placing_ != 0);
  if (duty.place) {
    Uninstall();
    placing_ = ++placings_;
    // The reading of a cut and the making of blocks take their time; beats go on meanwhile.
    cluster_->net.On(process_, cluster_->dice->Between(absl::Milliseconds(2), absl::Milliseconds(120)),
                     [self = weak_from_this(), news, want, placing = placing_] {
                       const auto seat = self.lock();
                       if (seat != nullptr && seat->placing_ == placing) seat->Place(news, want);
                     });
  }
  if (duty.promote) Promote();
  if (duty.alone.has_value()) {
    cluster_->Note(name(), absl::StrCat("goes on alone, view ", *duty.alone));
    primary_node_->GoAlone(*duty.alone);
  }
  if (duty.backup) SetBackup(want);
  if (duty.alone.has_value() || duty.backup) AfterNode();
}

void ClusterSeat::SetBackup(const v1::Seat& want) {
  const uint64_t view = state_.view();
  cluster_->Note(name(), absl::StrCat("has a backup at ", want.backup_address(), ", view ", view));
  fresh_ = want.fresh();
  primary_node_->SetBackup(view, ClusterLink::Make(cluster_, process_, weak_from_this(), want.backup_address(), view),
                           want.fresh());
}

void ClusterSeat::Promote() {
  cluster_->Note(name(), absl::StrCat("promoted: ", node_->DebugState().substr(0, 60)));
  if (const absl::Status promoted = backup_node_->Promote(); !promoted.ok()) {
    return cluster_->truth.Wrong(absl::StrCat(name(), " was promoted: ", promoted.message()));
  }
  promoted_ = true;
  cluster_->successors[{generation(), server_}] = weak_from_this();
  CheckTold("is promoted");
}

void ClusterSeat::CheckTold(absl::string_view when) {
  ClusterTruth& truth = cluster_->truth;
  const Told& told = truth.told(generation(), server_);
  for (uint32_t r = 0; r < newest_.size(); ++r) newest_[r] = std::max(newest_[r], told.pushers()[r]);
  truth.coverage.Add("clocks that a successor has to hold", told.clocks());
  const std::string wrong = told.Check(cluster_->job, map_, server_, truth.ledger(generation()), *node_);
  if (!wrong.empty()) truth.Wrong(absl::StrCat(name(), " ", when, ": ", wrong));
}

void ClusterSeat::Rest() {
  if (placing_ != 0) Uninstall();
  if (part_ != nullptr) node_->DropCut();
  part_.reset();
}

void ClusterSeat::Carry(Generation generation) {
  Rest();
  CheckTold("is gone on with");
  const Generation before = this->generation();
  cluster_->truth.Carried(before, generation, server_);
  cluster_->successors[{before, server_}] = cluster_->successors[{generation, server_}] = weak_from_this();
  state_.Carry(generation);
  std::vector<uint64_t> open;
  for (const auto& [id, line] : lines_) open.push_back(id);
  for (const auto& [id, link] : links_) open.push_back(id);
  CloseAll();
  for (uint64_t id : open) node_->OnClose(ConnectionId(id), cluster_->net.now());
  node_->Carry(generation);
  AfterNode();
}

SeatState::NodeView ClusterSeat::NodeSays() const {
  SeatState::NodeView says;
  says.whole = backup_node_ != nullptr && backup_node_->whole();
  if (primary_node_ == nullptr) return says;
  const bool too_soon = cluster_->fault == ClusterFault::kSyncedTooSoon && state_.linked();
  says.view = too_soon ? state_.view() : primary_node_->view();
  says.synced = too_soon || primary_node_->synced();
  says.unconfirmed = primary_node_->unconfirmed();
  return says;
}

void ClusterSeat::Report(v1::HeartbeatRequest* beat) {
  if (part_ != nullptr && part_->report().has_value()) {
    v1::CutReport* cut = beat->add_cut();
    *cut = *part_->report();
    cut->set_attempt(order_.attempt());
  }
  if (ready() && primary()) {
    v1::ServerLoad* load = beat->mutable_load();
    load->set_round(std::max(load->round(), node_->stats().round));
  }
  if (!cluster_->schedule.replicas) return;
  *beat->add_seat() = state_.Report(address_, NodeSays());
  const bool synced = beat->seat(beat->seat_size() - 1).synced();
  if (synced && !std::exchange(fresh_, true)) cluster_->truth.coverage.Add("backups joined");
}

// --- Cuts ------------------------------------------------------------------------------------------------------------

void ClusterSeat::TakeOrder(const v1::HeartbeatReply& news) {
  const bool wanted = state_.CutWanted(news);
  if (part_ != nullptr && (!wanted || order_.attempt() != news.cut().attempt())) {
    if (node_ != nullptr) node_->DropCut();
    part_.reset();
  }
  if (!wanted) return;
  if (part_ == nullptr) {
    order_ = news.cut();
    part_ = std::make_shared<ClusterPart>(storage_, order_.folder(), CutId{kRun, generation(), order_.number()},
                                          server_, tensors_, cluster_->job.ranks);
    BeginCut();
    After(absl::Milliseconds(1), &ClusterSeat::WritePart);
  } else if (cut_refused_) {
    BeginCut();
  }
}

void ClusterSeat::BeginCut() {
  const absl::Status begun = node_->BeginCut(Clock(order_.at()), part_);
  cut_refused_ = absl::IsFailedPrecondition(begun);  // busy with that of a backup: asked again
  if (!begun.ok() && !cut_refused_) part_->Fail(begun, absl::IsOutOfRange(begun));
}

void ClusterSeat::WritePart() {
  if (part_ == nullptr || part_->report().has_value()) return;
  part_->Step();
  node_->PumpCut();
  After(cluster_->dice->Between(absl::ZeroDuration(), absl::Milliseconds(12)), &ClusterSeat::WritePart);
}

// What a backup that joins is made of.
void ClusterSeat::Pump() {
  pumping_ = false;
  if (node_ == nullptr) return;
  node_->PumpCut();
  AfterNode();
}

}  // namespace descent::simulation
