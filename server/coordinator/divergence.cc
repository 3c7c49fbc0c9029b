#include "server/coordinator/divergence.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace descent {
namespace {

std::string Text(double value) { return absl::StrFormat("%.6g", value); }

}  // namespace

std::string DivergenceBounds::Broken(std::optional<double> value, std::optional<double> least) const {
  if (!given_ || !value.has_value()) return "";
  if (!std::isfinite(*value)) return absl::StrCat(spec_.metric(), " is ", Text(*value));
  if (spec_.has_loss_above() && *value > spec_.loss_above()) {
    return absl::StrCat(spec_.metric(), " is ", Text(*value), ", above ", Text(spec_.loss_above()));
  }
  // Times a least value of 0 or below nothing is said.
  if (spec_.has_jump_factor() && least.has_value() && *least > 0 && *value > spec_.jump_factor() * *least) {
    return absl::StrCat(spec_.metric(), " has jumped to ", Text(*value), ", more than ", Text(spec_.jump_factor()),
                        " times its least value ", Text(*least));
  }
  return "";
}

std::optional<Rollback> DivergenceBounds::Next(const v1::SteeringState& state, double factor) const {
  if (!rolls_back() || state.rollbacks() >= spec_.max_rollbacks()) return std::nullopt;
  return Rollback{state.within(), factor * spec_.rate_factor(), state.rollbacks() + 1};
}

std::string DivergenceBounds::RollbackText(const Rollback& rollback) const {
  return absl::StrCat("back to ", rollback.to == 0 ? "the beginning" : absl::StrCat("clock ", rollback.to),
                      " with the rate at ", Text(rollback.factor), " of the schedule's; rollback ", rollback.count,
                      " of ", spec_.max_rollbacks());
}

std::string DivergenceBounds::EndText() const {
  if (!rolls_back()) return "";
  return absl::StrCat(" after ", spec_.max_rollbacks(), spec_.max_rollbacks() == 1 ? " rollback" : " rollbacks");
}

}  // namespace descent
