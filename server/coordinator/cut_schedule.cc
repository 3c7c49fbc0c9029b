#include "server/coordinator/cut_schedule.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace descent {
namespace {

constexpr absl::Duration kSpan = absl::Seconds(1);   // the pace of rounds is taken over this
constexpr absl::Duration kRetry = absl::Seconds(1);  // after a cut that failed
constexpr uint32_t kMostMisses = 10;
constexpr absl::Duration kStandStill = absl::Seconds(5);  // for a server to reach the clock where another one stands

}  // namespace

void CutSchedule::Start(uint64_t number, absl::Time now) {
  Halt();
  running_ = true;
  last_ = tried_ = number;
  round_ = rounds_at_last_ = options_.apply_push ? 0 : number;
  last_time_ = now;
  retry_at_ = absl::InfinitePast();
}

void CutSchedule::Halt() {
  running_ = false;
  stage_ = Stage::kIdle;
  misses_ = 0;
  samples_.clear();
  demanded_.reset();
  reports_.clear();
  Works();
}

void CutSchedule::Works() {
  last_trouble_.clear();
  failures_ = 0;
}

void CutSchedule::Demand(uint64_t clock, absl::Time now) {
  if (!running_) return;
  demanded_ = clock;
  follows_ = false;
  if (options_.apply_push || stage_ == Stage::kIdle || number_ <= clock) return;
  GiveUp(absl::StrCat("the run stops at clock ", clock), now);
  demanded_ = clock;
  retry_at_ = now;
}

void CutSchedule::DemandWhereServersStand(uint64_t clock, absl::Time now) {
  Demand(options_.apply_push ? clock : std::max(clock, round_), now);
  follows_ = !options_.apply_push;
}

uint64_t CutSchedule::Demanded() const { return follows_ ? std::max(*demanded_, round_) : *demanded_; }

void CutSchedule::Disturbed(const std::string& why, absl::Time now) {
  if (stage_ != Stage::kPreparing && stage_ != Stage::kOrdered) return;
  const std::optional<uint64_t> demanded = demanded_;
  GiveUp(why, now);
  demanded_ = demanded;
  retry_at_ = now;
}

// Rounds that may go by while an order travels.
uint64_t CutSchedule::Lead(absl::Time now) const {
  double pace = 0;
  if (!samples_.empty() && now > samples_.front().time) {
    pace = static_cast<double>(round_ - samples_.front().round) / absl::ToDoubleSeconds(now - samples_.front().time);
  }
  return static_cast<uint64_t>(pace * absl::ToDoubleSeconds(options_.reach)) * (uint64_t{1} << misses_) + 1;
}

void CutSchedule::Order(uint64_t number, absl::Time now) {
  if (options_.fault != Fault::kAttemptKept || number != number_) ++attempt_;
  number_ = tried_ = number;
  stage_ = Stage::kPreparing;
  for_demand_ = false;
  since_ = now;
  rounds_at_last_ = round_;
  reports_.clear();
}

void CutSchedule::Advance(uint64_t round, uint64_t end, absl::Time now, uint64_t last_round) {
  if (!running_) return;
  round_ = std::max(round_, round);
  if (samples_.empty() || now - samples_.back().time >= kSpan / 8) samples_.push_back({now, round_});
  while (samples_.size() > 2 && now - samples_[1].time >= kSpan) samples_.pop_front();

  if (stage_ == Stage::kOrdered) {
    // An order ahead waits for its clock as long as it takes.
    if (!options_.apply_push && round_ < number_) since_ = now;
    if (for_demand_ && follows_ && last_round < number_ && now - since_ > kStandStill) {
      GiveUp(absl::StrCat("servers stand at clocks ", last_round, " and ", round_), now);
      return;
    }
    if (now - since_ > options_.patience) {
      Failed(absl::StrCat(reports_.size(), " of ", options_.servers, " parts came within ",
                          absl::FormatDuration(options_.patience)),
             now);
    }
  }
  if (stage_ != Stage::kIdle || now < retry_at_) return;
  if (demanded_.has_value()) {
    if (!options_.apply_push && Demanded() == last_) {
      demanded_.reset();  // there is one
    } else {
      Order(options_.apply_push ? tried_ + 1 : Demanded(), now);
      for_demand_ = true;
    }
    return;
  }
  const bool by_time = options_.every > absl::ZeroDuration() && now - last_time_ >= options_.every;
  if (options_.apply_push) {
    const bool by_rounds = options_.every_rounds > 0 && round_ >= rounds_at_last_ + options_.every_rounds;
    if ((by_time || by_rounds) && round_ < end) Order(tried_ + 1, now);
    return;
  }
  const uint64_t soonest = std::max(round_ + Lead(now), tried_ + 1);
  uint64_t clock = end;
  if (options_.every_rounds > 0) {
    const uint64_t k = options_.every_rounds;
    clock = std::min(clock, (soonest + k - 1) / k * k);
  }
  if (by_time) clock = std::min(clock, soonest);
  if (clock < end) Order(clock, now);
}

void CutSchedule::Prepared(const absl::Status& status, absl::Time now) {
  if (stage_ != Stage::kPreparing) return;
  if (!status.ok()) {
    Failed(absl::StrCat("its folder could not be made: ", status.message()), now);
    return;
  }
  stage_ = Stage::kOrdered;
  since_ = now;
}

void CutSchedule::Report(ServerId from, const v1::CutReport& report, absl::Time now) {
  if (stage_ != Stage::kOrdered || report.number() != number_) return;
  if (report.attempt() != attempt_) return;
  if (!report.failure().empty()) {
    const uint32_t misses = report.past() ? std::min(misses_ + 1, kMostMisses) : misses_;
    std::string why = absl::StrCat("server ", from.value, ": ", report.failure());
    if (report.past()) {
      const std::optional<uint64_t> again = follows_ && misses < kMostMisses ? demanded_ : std::nullopt;
      GiveUp(std::move(why), now);
      if (again.has_value()) demanded_ = again;
      retry_at_ = now;
    } else {
      Failed(std::move(why), now);
    }
    misses_ = misses;
    return;
  }
  reports_[from] = report;
  if (reports_.size() == options_.servers) stage_ = Stage::kCommitting;
}

void CutSchedule::Committed(const absl::Status& status, absl::Time now) {
  if (stage_ != Stage::kCommitting) return;
  if (!status.ok()) {
    Failed(std::string(status.message()), now);
    return;
  }
  stage_ = Stage::kIdle;
  last_ = number_;
  last_time_ = now;
  misses_ = 0;
  if (for_demand_) demanded_.reset();
  reports_.clear();
  Works();
}

void CutSchedule::Failed(std::string why, absl::Time now) {
  last_trouble_ = why;
  ++failures_;
  GiveUp(std::move(why), now);
}

void CutSchedule::GiveUp(std::string why, absl::Time now) {
  troubles_.push_back(absl::StrCat("cut ", number_, " is given up: ", why));
  stage_ = Stage::kIdle;
  retry_at_ = now + kRetry;
  misses_ = 0;
  if (std::exchange(for_demand_, false)) demanded_.reset();
  reports_.clear();
}

std::vector<uint64_t> CutSchedule::RestartClocks(uint32_t ranks) const {
  if (!options_.apply_push) return std::vector<uint64_t>(ranks, number_);
  std::vector<uint64_t> clocks(ranks, UINT64_MAX);
  for (const auto& [server, report] : reports_) {
    for (int r = 0; r < report.least_mark_size() && r < static_cast<int>(ranks); ++r) {
      clocks[r] = std::min<uint64_t>(clocks[r], report.least_mark(r));
    }
  }
  for (uint64_t& clock : clocks) clock = clock == UINT64_MAX ? 0 : clock;
  return clocks;
}

std::vector<std::string> CutSchedule::DrainTroubles() { return std::exchange(troubles_, {}); }

}  // namespace descent
