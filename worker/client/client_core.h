// What a parameter client has outstanding, and when it asks again: a pure machine without threads, I/O, clocks or
// payload bytes. Each ticket has one leg per server it concerns; a leg is a push in some messages, a pull in some
// chunks, a question for expected clocks, or several of these. Every such unit has a deadline of its own, because an
// answer to one proves nothing about another: a server that tells us for whom it holds our pull may be waiting for a
// push of ours that got lost.
//
// Late answers. A request is sent under a new id each time; answers under an older id of the same ticket still count
// (what they say stays true), answers to finished tickets do not.
//
// Thread-safety: none. The same calls give the same actions.
#ifndef DESCENT_WORKER_CLIENT_CLIENT_CORE_H_
#define DESCENT_WORKER_CLIENT_CLIENT_CORE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/wire/frame.h"

namespace descent {

// Ways to be wrong, for the simulator's tests of itself. All false in a real client.
struct ClientFaults {
  bool never_resend = false;
  bool count_parts_twice = false;  // a part that comes twice stands for another one
  bool done_on_any_ack = false;    // an acknowledgement of a part of a push is taken for the whole
};

class ClientCore {
 public:
  using Ticket = uint64_t;
  static constexpr uint32_t kNone = ~uint32_t{0};

  struct Options {
    Envelope envelope;
    uint32_t servers = 1;
    absl::Duration resend_after;
    ClientFaults faults;
    bool backup_ranks = false;  // a rank may be left behind: ParameterClient::Wait tells what follows
  };

  struct PushIdentity {
    Rank rank;
    uint32_t span = 1;
    Clock clock;
  };
  struct PullItem {
    BlockId id;
    uint32_t chunk = 0;
  };
  struct LegSpec {
    ServerId server;
    std::vector<uint64_t> push_bytes;  // one entry per push message
    uint32_t chunks = 0;               // pull requests; one without items is a question whether the clock may begin
    std::vector<PullItem> items;       // ascending by id
    bool piggyback = false;            // chunk 0 may ride on push message 0
  };
  struct TicketSpec {
    std::optional<PushIdentity> push;
    std::vector<Rank> expected_of;  // asked on every leg
    std::vector<LegSpec> legs;
  };

  // A request to build and send.
  struct Send {
    ServerId server;
    uint64_t request = 0;
    Ticket ticket = 0;
    uint32_t leg = 0;
    uint32_t push = kNone;  // message
    uint32_t chunk = kNone;
    std::vector<uint32_t> items;  // of the chunk, those still missing
    bool whole_chunk = false;     // all of them are
    bool expected = false;
  };
  struct Actions {
    std::vector<Send> send;
    std::vector<uint32_t> accepted;  // OnReply: per part of the reply (dense, then sparse) its item, or kNone
    std::vector<Ticket> finished;
  };
  struct Place {
    Ticket ticket = 0;
    uint32_t leg = 0;
  };
  struct Stats {
    uint64_t resends = 0, duplicates = 0, too_early = 0, late_replies = 0;
  };

  explicit ClientCore(Options options);

  Ticket Begin(TicketSpec spec, absl::Time now, Actions* out);
  // A ticket that ends as it begins.
  Ticket BeginFailed(absl::Status status, Actions* out);
  void OnOpen(ServerId server, absl::Time now, Actions* out);
  void OnClosed(ServerId server);
  // To whom a reply belongs; nullopt: to nobody any more.
  std::optional<Place> Find(ServerId server, uint64_t request) const;
  // Reads all of the reply but its payload, which the caller has checked against what was asked for.
  void OnReply(ServerId server, const Reply& reply, absl::Time now, Actions* out);
  void OnTimer(absl::Time now, Actions* out);
  absl::Time next_timer() const { return next_timer_; }  // not later than the earliest deadline

  void Fail(Ticket ticket, absl::Status status, Actions* out);
  void Cancel(Actions* out);
  bool finished(Ticket ticket) const;
  bool known(Ticket ticket) const { return tickets_.contains(ticket); }
  const absl::Status& status(Ticket ticket) const;
  // Per rank asked for, the least over all servers; of a finished ticket.
  std::vector<Clock> expected(Ticket ticket) const;
  void Forget(Ticket ticket);

  // What the ticket lacks and whom the servers wait for, as last told: one line.
  std::string Describe(Ticket ticket, absl::Time now) const;
  const std::optional<WaitingNotice>& last_waiting() const { return last_waiting_; }
  const Stats& stats() const { return stats_; }
  size_t unfinished() const { return unfinished_; }

 private:
  struct Unit {
    uint64_t request = 0;  // the latest
    absl::Time deadline = absl::InfiniteFuture();
    uint32_t tries = 0;
    uint32_t too_early = 0;
    bool done = false;
    bool blocked = false;  // waits for an earlier clock of its ranks
  };
  struct Leg {
    LegSpec spec;
    std::vector<Unit> push;
    std::vector<Unit> chunk;
    Unit query;
    bool push_done = true;
    bool too_late = false;  // of the push
    uint64_t push_bytes = 0;
    std::vector<bool> received;
    std::vector<uint32_t> missing;  // per chunk
    std::vector<Clock> expected;
    std::optional<WaitingNotice> notice;
    absl::Time notice_at;
    bool done() const;
  };
  struct TicketState {
    std::optional<PushIdentity> push;
    std::vector<Rank> expected_of;
    std::vector<Leg> legs;
    std::vector<uint64_t> requests;
    bool finished = false;
    std::string passed;  // a server is past the clock of the pull: its text
    absl::Status status;
  };
  struct RequestState {
    Place place;
    ServerId server;
    uint32_t push = kNone;
    uint32_t chunk = kNone;
  };

  void SendLeg(Ticket id, TicketState& ticket, uint32_t leg, absl::Time now, Actions* out);
  void SendUnit(Ticket id, TicketState& ticket, uint32_t leg, uint32_t push, uint32_t chunk, bool query, absl::Time now,
                Actions* out);
  void Arm(Unit& unit, ServerId server, absl::Time now);
  void OnAck(Ticket id, TicketState& ticket, uint32_t leg, const RequestState& request, uint64_t request_id,
             const PushAck& ack, absl::Time now, Actions* out);
  void OnTooEarly(Ticket id, TicketState& ticket, uint32_t leg, uint32_t push, absl::Time now, Actions* out);
  void FinishPush(TicketState& ticket, uint32_t leg, absl::Time now, Actions* out);
  void FinishIfDone(Ticket id, TicketState& ticket, Actions* out);
  void Finish(Ticket id, TicketState& ticket, absl::Status status, Actions* out);

  const Options options_;
  std::vector<bool> open_;
  std::vector<uint64_t> unacknowledged_bytes_;  // per server
  std::map<Ticket, TicketState> tickets_;       // ordered, so that resends go out oldest first
  absl::flat_hash_map<uint64_t, RequestState> requests_;
  Ticket next_ticket_ = 1;
  uint64_t next_request_ = 1;
  size_t unfinished_ = 0;
  bool cancelled_ = false;
  absl::Time next_timer_ = absl::InfiniteFuture();
  std::optional<WaitingNotice> last_waiting_;
  Stats stats_;
};

}  // namespace descent

#endif  // DESCENT_WORKER_CLIENT_CLIENT_CORE_H_
