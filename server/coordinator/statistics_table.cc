#include "server/coordinator/statistics_table.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/features/feature_statistics.h"
#include "common/features/label_shares.h"

namespace descent {
namespace {

constexpr uint32_t kMostPasses = 4096, kMostUnits = 1 << 20;
constexpr absl::Duration kPatience = absl::Seconds(5);  // with a unit, before somebody else is asked too
constexpr uint32_t kAskAgainMs = 20;
constexpr uint32_t kAhead = 16, kMostAhead = 256;  // units beyond the first that is lacking

v1::ShareStatisticsReply Refuse(const v1::ShareStatisticsRequest& request, const std::string& why) {
  v1::ShareStatisticsReply reply;
  reply.set_mismatch(absl::StrCat("the worker on host ", request.host(), " ", why));
  return reply;
}

}  // namespace

v1::ShareStatisticsReply StatisticsTable::Share(const v1::ShareStatisticsRequest& request, absl::Time now) {
  if (!data_.has_value()) {
    data_ = request.data();
    data_host_ = request.host();
  }
  if (request.data() != *data_) {
    return Refuse(request, absl::StrFormat("has other training data, of fingerprint %016x; expected %016x, as host %s",
                                           request.data(), *data_, data_host_));
  }
  if (request.pass() >= kMostPasses || request.units() == 0 || request.units() > kMostUnits) {
    return Refuse(request, absl::StrCat("asks for pass ", request.pass(), " over ", request.units(),
                                        " units; expected fewer than ", kMostPasses, " passes over 1 to ", kMostUnits));
  }
  Pass& pass = passes_[request.pass()];
  if (pass.handed_out.empty()) {
    pass.labels = request.labels();
    pass.handed_out.resize(request.units(), absl::InfinitePast());
    pass.waiting.resize(request.units());
  }
  if (pass.handed_out.size() != request.units() || pass.labels != request.labels()) {
    return Refuse(request, absl::StrCat("asks for pass ", request.pass(), " over ", request.units(),
                                        " units; expected ", pass.handed_out.size()));
  }
  if (request.has_unit()) {
    if (const std::string wrong = Take(request, &pass); !wrong.empty()) return Refuse(request, wrong);
  }
  v1::ShareStatisticsReply reply;
  if (pass.merged == pass.waiting.size()) {
    *reply.mutable_total() = pass.total;
  } else if (const std::optional<uint32_t> unit = HandOut(&pass, now); unit.has_value()) {
    reply.set_unit(*unit);
  } else {
    reply.set_next_ms(kAskAgainMs);
  }
  return reply;
}

// What is wrong with it; "": nothing.
std::string StatisticsTable::Take(const v1::ShareStatisticsRequest& request, Pass* pass) {
  const uint32_t unit = request.unit();
  if (unit >= pass->waiting.size()) {
    return absl::StrCat("sent statistics of unit ", unit, " of ", pass->waiting.size());
  }
  if (const absl::Status valid = CheckStatistics(request.statistics()); !valid.ok()) {
    return absl::StrCat("sent ", valid.message());
  }
  if (unit < pass->merged || pass->waiting[unit].has_value()) return "";  // computed twice
  pass->waiting[unit] = request.statistics();
  for (; pass->merged < pass->waiting.size() && pass->waiting[pass->merged].has_value(); ++pass->merged) {
    std::optional<v1::FeatureStatistics>& next = pass->waiting[pass->merged];
    if (pass->merged == 0) {
      pass->total = *next;
    } else if (const absl::Status merged = MergeStatistics(*next, &pass->total); !merged.ok()) {
      next.reset();
      pass->handed_out[pass->merged] = absl::InfinitePast();
      return absl::StrCat("sent ", merged.message());
    }
    if (!pass->labels) next.reset();
  }
  if (pass->labels && pass->merged == pass->waiting.size() && !pass->waiting.empty()) {
    std::vector<v1::FeatureStatistics> shares;
    for (std::optional<v1::FeatureStatistics>& share : pass->waiting) {
      if (share.has_value()) shares.push_back(*std::move(share));
    }
    warning_ = LabelSharesText(shares);
    for (auto& share : pass->waiting) share.reset();
  }
  return "";
}

std::optional<uint32_t> StatisticsTable::HandOut(Pass* pass, absl::Time now) {
  pass->next = std::max(pass->next, pass->merged);  // units may come that another coordinator has handed out
  // What waits for the unit before it takes memory: that one comes first.
  const bool overdue = pass->merged < pass->next && now - pass->handed_out[pass->merged] >= kPatience;
  if (!pass->labels && overdue && pass->next - pass->merged > kAhead) {
    pass->handed_out[pass->merged] = now;
    return pass->merged;
  }
  if (!pass->labels && pass->next - pass->merged > kMostAhead) return std::nullopt;
  if (pass->next < pass->waiting.size()) {
    pass->handed_out[pass->next] = now;
    return pass->next++;
  }
  std::optional<uint32_t> longest;
  for (uint32_t unit = pass->merged; unit < pass->waiting.size(); ++unit) {
    if (pass->waiting[unit].has_value() || now - pass->handed_out[unit] < kPatience) continue;
    if (!longest.has_value() || pass->handed_out[unit] < pass->handed_out[*longest]) longest = unit;
  }
  if (longest.has_value()) pass->handed_out[*longest] = now;
  return longest;
}

std::string StatisticsTable::ProgressText() const {
  for (const auto& [number, pass] : passes_) {
    if (pass.merged == pass.waiting.size()) continue;
    return absl::StrCat("statistics of the training data: ", pass.merged, " of ", pass.waiting.size(), " units");
  }
  return "";
}

std::string StatisticsTable::TakeWarning() { return std::exchange(warning_, ""); }

}  // namespace descent
