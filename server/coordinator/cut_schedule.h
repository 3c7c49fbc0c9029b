// When a cut is taken, and how far it is: the coordinator's half of the checkpoint protocol. Pure: no I/O, no clock of
// its own; the same calls give the same answers. Thread-safety: none.
//
//   idle --due--> preparing --Prepared--> ordered --every server's part is in--> committing --Committed--> idle
//
// The owner makes the folder while it is preparing, passes the order on while it is ordered, and writes the manifest
// while it is committing. Under ROUND a cut is of one clock, so it is ordered ahead: of a clock that no server will
// have passed when the order reaches it. If one has, the cut is given up and the next is ordered further ahead.
//
// The same cut may be ordered again, and a report of the first order, whose part is gone, may come late: orders are
// counted, and a report counts for its own alone.
#ifndef DESCENT_SERVER_COORDINATOR_CUT_SCHEDULE_H_
#define DESCENT_SERVER_COORDINATOR_CUT_SCHEDULE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/ids.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

class CutSchedule {
 public:
  // Seeded bugs, for tests alone.
  enum class Fault : uint8_t {
    kNone,
    kAttemptKept,  // the same cut ordered again is the same order
  };
  struct Options {
    uint64_t every_rounds = 0;                    // 0: not by rounds
    absl::Duration every = absl::ZeroDuration();  // 0: not by time
    bool at_end = false;                          // and one where the run ends
    bool on_demand = false;                       // and where they are demanded
    bool apply_push = false;
    uint32_t servers = 1;
    absl::Duration reach = absl::Milliseconds(300);  // from a decision until every server has the order
    absl::Duration patience = absl::Seconds(120);    // for the parts of a cut
    Fault fault = Fault::kNone;
  };
  enum class Stage { kIdle, kPreparing, kOrdered, kCommitting };

  explicit CutSchedule(const Options& options) : options_(options) {}

  bool enabled() const {
    return options_.every_rounds > 0 || options_.every > absl::ZeroDuration() || at_end() || options_.on_demand;
  }
  bool at_end() const { return options_.at_end; }
  // A generation begins to run from cut `number` (0: from the beginning; ROUND: its clock).
  void Start(uint64_t number, absl::Time now);
  // No generation runs: whatever was under way is void.
  void Halt();
  // A cut at that clock, which no server passes any more, due or not; one that waits for a later clock is given up.
  void Demand(uint64_t clock, absl::Time now);
  // The same where nobody knows how far servers are, as of a run with backup ranks whose workers are gone: at that
  // clock or, of servers that have passed it, where they stand. Given up where they do not stand still, or at two
  // clocks.
  void DemandWhereServersStand(uint64_t clock, absl::Time now);
  // Servers have changed hands: a cut that lacks parts is given up, and what was demanded is tried again.
  void Disturbed(const std::string& why, absl::Time now);
  bool demand_met() const { return !demanded_.has_value(); }  // taken, or given up

  // How far the furthest server is and the last one, and the clock where the job ends. Decides whether a cut is due;
  // gives one up that takes too long.
  void Advance(uint64_t round, uint64_t end, absl::Time now, uint64_t last_round = UINT64_MAX);

  Stage stage() const { return stage_; }
  uint64_t number() const { return number_; }    // of the cut under way
  uint64_t attempt() const { return attempt_; }  // orders until then, of all numbers
  uint64_t at() const { return options_.apply_push ? 0 : number_; }
  // Of the last one that was committed in this generation, or that it began with.
  uint64_t last() const { return last_; }

  void Prepared(const absl::Status& status, absl::Time now);
  void Report(ServerId from, const v1::CutReport& report, absl::Time now);
  void Committed(const absl::Status& status, absl::Time now);
  const std::map<ServerId, v1::CutReport>& reports() const { return reports_; }
  // Per rank: where it would go on from the cut that is committing.
  std::vector<uint64_t> RestartClocks(uint32_t ranks) const;

  // Why the last one was given up, and how many in a row since the last that was committed; "" and 0: none since then.
  // One that came too late, or that a server's death disturbed, counts for neither.
  const std::string& last_trouble() const { return last_trouble_; }
  uint32_t failures() const { return failures_; }
  // Why cuts were given up, to be logged; empties the list.
  std::vector<std::string> DrainTroubles();

 private:
  struct Sample {
    absl::Time time;
    uint64_t round;
  };
  uint64_t Lead(absl::Time now) const;
  uint64_t Demanded() const;
  void Order(uint64_t number, absl::Time now);
  void GiveUp(std::string why, absl::Time now);
  void Failed(std::string why, absl::Time now);  // for a reason that may last
  void Works();

  const Options options_;
  Stage stage_ = Stage::kIdle;
  bool running_ = false;
  uint64_t last_ = 0;
  uint64_t tried_ = 0;  // the last number that was ordered
  uint64_t number_ = 0;
  uint64_t attempt_ = 0;
  absl::Time last_time_, since_, retry_at_ = absl::InfinitePast();
  uint64_t round_ = 0;
  uint64_t rounds_at_last_ = 0;  // PUSH: the round when the last cut was ordered
  uint32_t misses_ = 0;          // orders in a row that came too late
  std::deque<Sample> samples_;
  std::optional<uint64_t> demanded_;
  bool follows_ = false;     // what is demanded is where servers stand
  bool for_demand_ = false;  // the cut under way is the one demanded, not one that began before
  std::map<ServerId, v1::CutReport> reports_;
  std::vector<std::string> troubles_;
  std::string last_trouble_;
  uint32_t failures_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_CUT_SCHEDULE_H_
