// Why a job failed: of all that was reported, the first cause. Pure; a value.
#ifndef DESCENT_SERVER_COORDINATOR_FIRST_CAUSE_H_
#define DESCENT_SERVER_COORDINATOR_FIRST_CAUSE_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace descent {

// A process reports a failure as its own or as a peer's. The earliest of the own ones wins; without one the earliest
// report about a peer, if it is fresh enough to have to do with the failure; then what the coordinator saw itself.
class FirstCause {
 public:
  // `relevant`: how long before the failure a report about a peer may lie.
  explicit FirstCause(absl::Duration relevant) : relevant_(relevant) {}

  void Own(absl::Time when, absl::string_view text) { Earliest(when, text, &own_); }
  void Peer(absl::Time when, absl::string_view text) {
    if (!failed_at_.has_value() && peer_.has_value() && when - peer_->when > relevant_) peer_.reset();
    Earliest(when, text, &peer_);
  }
  // The coordinator's own detection; the first call counts.
  void Detected(absl::Time when, absl::string_view text) {
    if (detected_.has_value()) return;
    detected_ = Report{when, std::string(text)};
    if (!failed_at_.has_value()) failed_at_ = when;
    if (peer_.has_value() && when - peer_->when > relevant_) peer_.reset();
  }

  bool has_own() const { return own_.has_value(); }
  // "": nothing was reported.
  std::string Text() const {
    if (own_.has_value()) return own_->text;
    if (peer_.has_value() && failed_at_.has_value()) return peer_->text;
    if (detected_.has_value()) return detected_->text;
    return "";
  }

 private:
  struct Report {
    absl::Time when;
    std::string text;
  };
  static void Earliest(absl::Time when, absl::string_view text, std::optional<Report>* slot) {
    if (!slot->has_value() || when < (*slot)->when) *slot = Report{when, std::string(text)};
  }

  absl::Duration relevant_;
  std::optional<absl::Time> failed_at_;
  std::optional<Report> own_, peer_, detected_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_FIRST_CAUSE_H_
