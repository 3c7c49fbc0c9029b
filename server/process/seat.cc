#include "server/process/seat.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "common/base/status_macros.h"
#include "common/control/messages.h"
#include "common/job/job.h"
#include "common/job/stopping_spec.h"
#include "common/saved_model/start_from.h"
#include "server/checkpoint/cut_reader.h"
#include "server/checkpoint/part_file.h"
#include "server/process/node_options.h"
#include "server/rpc/rpc_server.h"

namespace descent {

Seat::Seat(const SeatContext* context, ServerId server, ServerServices* services, std::string address)
    : context_(context), services_(services), address_(std::move(address)), state_(server, context->replicated) {}

Seat::Seat(const SeatContext* context, ServerId server, std::unique_ptr<ServerServices> services,
           std::unique_ptr<RpcServer> rpc, std::string address)
    : context_(context),
      own_services_(std::move(services)),
      rpc_(std::move(rpc)),
      services_(own_services_.get()),
      address_(std::move(address)),
      state_(server, context->replicated) {}

Seat::~Seat() {
  if (placing_.valid()) placing_.get().IgnoreError();
  RetireCut();
  services_->service()->Uninstall();
  services_->ForgetNode();
  if (rpc_ != nullptr) rpc_->Stop(absl::ZeroDuration());
}

absl::Status Seat::Place(const v1::HeartbeatReply& news, const v1::Seat& want) {
  DESCENT_ASSIGN_OR_RETURN(ServerNodeOptions options,
                           NodeOptionsOf(context_->job.job(), news.clocks_per_epoch(), context_->rate_changes));
  options.envelope.job = context_->job.job_fingerprint();
  options.envelope.run = RunId(context_->registration.run());
  options.envelope.generation = Generation(news.generation());
  options.envelope.map_epoch = news.map().epoch();
  if (options.backup_ranks > 0) {
    options.full_every = EvaluateEvery(context_->job.job().evaluation(), news.clocks_per_epoch());
  }
  if (LooksAtNorms(context_->job.job())) {
    options.scalars_before = EvaluateEvery(context_->job.job().evaluation(), news.clocks_per_epoch());
  }
  StoreOptions& store = options.store;
  DESCENT_ASSIGN_OR_RETURN(store.tensors, SpecsFromMessage(news.tensors()));
  DESCENT_ASSIGN_OR_RETURN(store.map, FromMessage(news.map(), store.tensors, store.geometry));
  store.self = server();
  store.history = std::max(store.history, HistoryFor(options));
  store.recorded_pushes = RecordedPushes(context_->job.job(), news.clocks());
  context_->log->Log(absl::StrCat("server ", server().value, want.primary() ? "" : ", backup",
                                  ": memory at most: ", BudgetText(PlanStore(store))));
  const bool joins = !want.primary() && !want.fresh();  // its primary sends what it holds
  if (news.has_restore() && !joins) {
    RestoredState& restored = options.restored.emplace();
    for (uint64_t clock : news.restore().clock()) restored.restart.push_back(Clock(clock));
  }
  if (!context_->job.job().start_from().empty() && !news.has_restore() && !joins) {
    DESCENT_ASSIGN_OR_RETURN(
        store.start,
        OpenStart(context_->job.job(), [log = context_->log](const std::string& note) { log->Log(note); }));
  }
  // What the generation before held goes first: there may be no room for both.
  services_->service()->Uninstall();
  services_->agent()->Forget();
  services_->ForgetNode();
  primary_node_ = nullptr;
  backup_node_ = nullptr;
  ServerNode::Output* const output = services_->service()->output();
  std::unique_ptr<ServerNode> node;
  if (!context_->replicated) {
    DESCENT_ASSIGN_OR_RETURN(node, ServerNode::Create(options, output));
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
    DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<PrimaryNode> made, PrimaryNode::Create(options, primary, output, make));
    primary_node_ = made.get();
    node = std::move(made);
  }
  if (news.has_restore() && !joins) DESCENT_RETURN_IF_ERROR(Restore(news.restore(), options, node.get()));
  tensors_ = store.tensors;
  services_->service()->Install(std::move(options), std::move(node));
  return absl::OkStatus();
}

absl::Status Seat::Restore(const v1::RestorePoint& from, const ServerNodeOptions& options, ServerNode* node) {
  const absl::Time begin = absl::Now();
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<CutReader> cut,
                           CutReader::Open(context_->storage.get(), from.folder()));
  const auto mine = [&](BlockId id) { return options.store.map.server(id) == options.store.self; };
  uint64_t bytes = 0;
  const auto install = [&](const v1::CutRecord& record, const Payload& payload) {
    bytes += payload.size();
    const std::vector<uint64_t> marks(record.mark().begin(), record.mark().end());
    return node->Install(ImageOf(record, payload), marks);
  };
  // The coordinator has read and verified all of it.
  DESCENT_RETURN_IF_ERROR(cut->ForEach(mine, install, CutReader::Extent::kWanted));
  DESCENT_RETURN_IF_ERROR(node->FinishRestore());
  context_->log->Log(absl::StrCat("restored ", bytes, " bytes of cut ", from.folder(), " in ",
                                  absl::FormatDuration(absl::Trunc(absl::Now() - begin, absl::Milliseconds(1)))));
  return absl::OkStatus();
}

void Seat::Rest() {
  if (placing_.valid()) {  // it reads what the next registration writes
    placing_.get().IgnoreError();
    state_.Void();
  }
  if (cut_ != nullptr) {
    services_->service()->Post([](ServerNode* node) {
      if (node != nullptr) node->DropCut();
    });
  }
  RetireCut();
}

void Seat::Carry(Generation generation) {
  Rest();
  state_.Carry(generation);
  services_->service()->Carry(generation);
}

void Seat::Tend(const v1::HeartbeatReply& news, const v1::Seat& want) {
  std::erase_if(links_, [](const auto& link) { return link.use_count() == 1; });
  if (state_.ready() && news.generation() != state_.generation()) {
    context_->log->Log(absl::StrCat("generation ", news.generation(), " begins"));
  }
  state_.Hear(news, want);
  TakeOrder(news);
  const SeatState::Duty duty = state_.Tend(news, want, placing_.valid());
  if (duty.place) {
    RetireCut();
    placing_ = std::async(std::launch::async, [this, news, want] { return Place(news, want); });
  }
  if (duty.promote) Promote();
  if (duty.alone.has_value()) {
    services_->service()->Post([this, view = *duty.alone](ServerNode*) { primary_node_->GoAlone(view); });
  }
  if (duty.backup) SetBackup(want);
}

bool Seat::AwaitPlaced(absl::Time deadline) {
  return placing_.wait_for(absl::ToChronoMilliseconds(std::max(absl::ZeroDuration(), deadline - absl::Now()))) ==
         std::future_status::ready;
}

absl::Status Seat::Poll() {
  if (*promotion_failed_) return absl::InternalError("a backup was promoted that does not hold its primary's state");
  if (!placing_.valid() || !AwaitPlaced(absl::InfinitePast())) return absl::OkStatus();
  DESCENT_RETURN_IF_ERROR(placing_.get());
  state_.Placed();
  return absl::OkStatus();
}

void Seat::Promote() {
  context_->log->Log(absl::StrCat("server ", server().value, ": promoted, at ", address_));
  services_->service()->Post([this, log = context_->log, failed = promotion_failed_](ServerNode*) {
    const absl::Status promoted = backup_node_->Promote();
    if (promoted.ok()) return;
    log->Log(absl::StrCat("not promoted: ", promoted.message()));
    *failed = true;
  });
}

void Seat::SetBackup(const v1::Seat& want) {
  ReplicaLinkOptions options;
  options.address = want.backup_address();
  options.view = state_.view();
  options.trouble = [log = context_->log, server = server()](const absl::Status& trouble) {
    log->Log(absl::StrCat("server ", server.value, ", link to its backup: ", trouble.message()));
  };
  links_.push_back(MakeReplicaLink(std::move(options), services_->service()));
  services_->service()->Post([this, link = links_.back(), view = state_.view(), fresh = want.fresh()](ServerNode*) {
    primary_node_->SetBackup(view, link, fresh);
  });
}

void Seat::RetireCut() {
  if (cut_ != nullptr) {
    cut_->Abandon(absl::CancelledError("the order was taken back"));
    retired_.push_back(std::move(cut_));
  }
  std::erase_if(retired_, [](const auto& writer) { return writer->result().has_value(); });
}

void Seat::TakeOrder(const v1::HeartbeatReply& news) {
  const bool wanted = state_.CutWanted(news);
  if (cut_ != nullptr && (!wanted || order_.attempt() != news.cut().attempt())) {
    // Taken back, or done. A node that still waits for its clock is told.
    cut_->Abandon(absl::CancelledError("the order was taken back"));
    services_->service()->Post([](ServerNode* node) {
      if (node != nullptr) node->DropCut();
    });
    RetireCut();
  }
  // While a disk hangs no further cut is begun: what it would hold is not bounded.
  if (!retired_.empty()) RetireCut();
  if (!wanted || !retired_.empty()) return;
  if (cut_ == nullptr) {
    order_ = news.cut();
    const CutId id{RunId(context_->registration.run()), Generation(state_.generation()), order_.number()};
    cut_ = std::make_shared<CutWriter>(context_->storage.get(), order_.folder(), id, server(), tensors_,
                                       context_->job.job().ranks());
    cut_refused_ = std::make_shared<std::atomic<bool>>(false);
    BeginCut();
  } else if (cut_refused_->exchange(false)) {
    BeginCut();
  }
}

void Seat::BeginCut() {
  services_->service()->Post([cut = cut_, refused = cut_refused_, at = Clock(order_.at())](ServerNode* node) {
    if (node == nullptr) {
      cut->Abandon(absl::UnavailableError("there are no blocks"));
      return;
    }
    const absl::Status begun = node->BeginCut(at, cut);
    if (absl::IsFailedPrecondition(begun)) {
      *refused = true;
    } else if (!begun.ok()) {
      cut->Abandon(begun, absl::IsOutOfRange(begun));
    }
  });
}

Seat::Answer Seat::Ask(absl::Duration patience) {
  // Asked of the owning thread; an answer that takes longer than a beat is left for the next one.
  struct Box {
    Mutex mu;
    CondVar done;
    bool there ABSL_GUARDED_BY(mu) = false;
    Answer answer ABSL_GUARDED_BY(mu);
  };
  auto box = std::make_shared<Box>();
  services_->service()->Post([this, box](ServerNode* node) {
    Answer answer;
    if (node != nullptr) {
      v1::ServerLoad& load = answer.load;
      const ServerNodeStats& stats = node->stats();
      load.set_bytes_in(stats.payload_bytes_in);
      load.set_bytes_out(stats.payload_bytes_out);
      load.set_parameter_bytes(node->store().parameter_bytes());
      load.set_held_bytes(node->store().held_bytes());
      load.set_round(stats.round);
      load.set_duplicates(stats.duplicates);
      load.set_fenced(stats.fenced);
      load.set_held_pulls(stats.held_pulls);
      load.set_lead(stats.largest_lead);
      load.set_steps(node->store().counts().steps);
      load.set_clipped(node->store().counts().clipped);
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
      answer.replicas.whole = backup_node_ != nullptr && backup_node_->whole();
      if (primary_node_ != nullptr) {
        answer.replicas.view = primary_node_->view();
        answer.replicas.synced = primary_node_->synced();
        answer.replicas.unconfirmed = primary_node_->unconfirmed();
      }
    }
    MutexLock lock(&box->mu);
    box->answer = std::move(answer);
    box->there = true;
    box->done.SignalAll();
  });
  MutexLock lock(&box->mu);
  const absl::Time deadline = absl::Now() + patience;
  while (!box->there && absl::Now() < deadline) box->done.WaitUntil(&box->mu, deadline);
  return box->answer;
}

void Seat::Report(v1::HeartbeatRequest* beat, absl::Duration patience) {
  if (cut_ != nullptr) {
    if (std::optional<v1::CutReport> report = cut_->result(); report.has_value()) {
      report->set_attempt(order_.attempt());
      *beat->add_cut() = *std::move(report);
    }
  }
  Answer answer;
  if (state_.ready()) answer = Ask(patience);
  if (state_.ready() && primary()) {
    v1::ServerLoad* load = beat->mutable_load();
    const uint64_t round = std::max(load->round(), answer.load.round());
    answer.load.set_round(0);
    load->set_bytes_in(load->bytes_in() + answer.load.bytes_in());
    load->set_bytes_out(load->bytes_out() + answer.load.bytes_out());
    load->set_parameter_bytes(load->parameter_bytes() + answer.load.parameter_bytes());
    load->set_held_bytes(load->held_bytes() + answer.load.held_bytes());
    load->set_duplicates(load->duplicates() + answer.load.duplicates());
    load->set_fenced(load->fenced() + answer.load.fenced());
    load->set_held_pulls(load->held_pulls() + answer.load.held_pulls());
    load->set_lead(std::max(load->lead(), answer.load.lead()));
    load->set_steps(load->steps() + answer.load.steps());
    load->set_clipped(load->clipped() + answer.load.clipped());
    load->mutable_waited()->MergeFrom(answer.load.waited());
    load->set_round(round);
  }
  if (context_->replicated) *beat->add_seat() = state_.Report(address_, answer.replicas);
}

}  // namespace descent
