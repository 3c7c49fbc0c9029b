#include "cli/tune_space.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/random/philox.h"

namespace descent {
namespace {

constexpr uint32_t kDefaultTrials = 10;

struct Field {
  std::string path;
  std::vector<std::string> values;  // of a grid
};

struct Interval {
  std::string path;
  double low = 0, high = 0;
  bool whole = false;
  bool logarithmic = false;
};

absl::Status Bad(absl::string_view flag, absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", text, ": ", why));
}

// The first '=' outside of brackets and braces, as --set finds it.
absl::StatusOr<std::pair<std::string, std::string>> Split(absl::string_view flag, absl::string_view text) {
  bool inside = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '[') inside = true;
    if (text[i] == ']') inside = false;
    if (text[i] != '=' || inside) continue;
    const absl::string_view path = absl::StripAsciiWhitespace(text.substr(0, i));
    if (path.empty()) break;
    return std::make_pair(std::string(path), std::string(text.substr(i + 1)));
  }
  return Bad(flag, text, "expected path=values");
}

absl::StatusOr<Field> GridOf(const std::string& text) {
  DESCENT_ASSIGN_OR_RETURN(const auto parts, Split("--grid", text));
  const char separator = absl::StrContains(parts.second, '|') ? '|' : ',';
  Field field{parts.first, {}};
  for (const absl::string_view value : absl::StrSplit(parts.second, separator)) {
    if (absl::StripAsciiWhitespace(value).empty()) return Bad("--grid", text, "a value is missing");
    field.values.emplace_back(absl::StripAsciiWhitespace(value));
  }
  return field;
}

bool WrittenWhole(absl::string_view text) {
  int64_t ignored;
  return absl::SimpleAtoi(text, &ignored);
}

absl::StatusOr<Interval> IntervalOf(absl::string_view flag, const std::string& text, bool logarithmic) {
  DESCENT_ASSIGN_OR_RETURN(const auto parts, Split(flag, text));
  const std::vector<std::string> ends = absl::StrSplit(parts.second, absl::MaxSplits("..", 1));
  Interval out{parts.first};
  out.logarithmic = logarithmic;
  if (ends.size() != 2 || !absl::SimpleAtod(ends[0], &out.low) || !absl::SimpleAtod(ends[1], &out.high) ||
      !std::isfinite(out.low) || !std::isfinite(out.high)) {
    return Bad(flag, text, "expected path=LOW..HIGH, two numbers");
  }
  if (!(out.low < out.high)) return Bad(flag, text, "the first number is not below the second");
  if (logarithmic && !(out.low > 0)) return Bad(flag, text, "has no logarithm: expected numbers above 0");
  out.whole = WrittenWhole(ends[0]) && WrittenWhole(ends[1]);
  if (out.whole && !(std::fabs(out.low) <= 1e15 && std::fabs(out.high) <= 1e15)) {
    return Bad(flag, text, "expected whole numbers up to 1e15");
  }
  return out;
}

std::string Written(const Interval& interval, double value) {
  if (interval.whole) return absl::StrFormat("%d", static_cast<int64_t>(value));
  const std::string text = absl::StrFormat("%.6g", value);
  double rounded;
  const bool within = absl::SimpleAtod(text, &rounded) && rounded >= interval.low && rounded <= interval.high;
  return within ? text : absl::StrFormat("%.17g", value);
}

// `share` of the way from low to high, in [0, 1].
double Within(const Interval& interval, double share) {
  if (!interval.logarithmic) return interval.low + share * (interval.high - interval.low);
  return interval.low * std::pow(interval.high / interval.low, share);
}

std::string Drawn(const Interval& interval, const RandomStream& stream, uint64_t index) {
  const double share = static_cast<double>(stream.Bits64(index) >> 11) * 0x1p-53;
  if (!interval.whole) return Written(interval, Within(interval, share));
  // Each whole number from low to high, both included.
  Interval wider = interval;
  if (interval.logarithmic) {
    wider.high += 1;
    return Written(interval, std::floor(std::min(Within(wider, share), interval.high)));
  }
  const auto count = static_cast<uint64_t>(interval.high - interval.low) + 1;
  return Written(interval, interval.low + static_cast<double>(stream.Below(index, count)));
}

// Equal ratios; whole numbers are rounded, and told once.
Field Values(const Interval& interval, uint32_t count) {
  Field field{interval.path, {}};
  for (uint32_t i = 0; i < count; ++i) {
    const double value = Within(interval, count == 1 ? 0 : static_cast<double>(i) / (count - 1));
    std::string text = Written(interval, interval.whole ? std::round(value) : value);
    if (field.values.empty() || field.values.back() != text) field.values.push_back(std::move(text));
  }
  return field;
}

}  // namespace

absl::StatusOr<std::vector<TrialFields>> TrialsOf(const TuneSpace& space) {
  std::vector<Field> grid;
  for (const std::string& text : space.grid) {
    DESCENT_ASSIGN_OR_RETURN(Field field, GridOf(text));
    grid.push_back(std::move(field));
  }
  const uint32_t trials = space.trials == 0 ? kDefaultTrials : space.trials;
  for (const std::string& text : space.range) {
    DESCENT_ASSIGN_OR_RETURN(const Interval interval, IntervalOf("--range", text, /*logarithmic=*/true));
    grid.push_back(Values(interval, trials));
  }
  std::vector<Interval> drawn;
  for (const std::string& text : space.random) {
    DESCENT_ASSIGN_OR_RETURN(const Interval interval, IntervalOf("--random", text, /*logarithmic=*/false));
    drawn.push_back(interval);
  }
  for (const std::string& text : space.random_log) {
    DESCENT_ASSIGN_OR_RETURN(const Interval interval, IntervalOf("--random-log", text, /*logarithmic=*/true));
    drawn.push_back(interval);
  }
  if (grid.empty() && drawn.empty()) {
    return absl::InvalidArgumentError("nothing to try: --grid, --range, --random or --random-log names a field");
  }
  if (!drawn.empty() && !space.range.empty()) {
    return absl::InvalidArgumentError("--range does not go with --random or --random-log: --trials would be of both");
  }
  if (drawn.empty() && space.range.empty() && space.trials != 0) {
    return absl::InvalidArgumentError("--trials is of --range, --random or --random-log: a grid is tried as a whole");
  }

  uint64_t points = 1;
  for (const Field& field : grid) {
    points *= field.values.size();
    if (points > kMostTrials) {
      return absl::InvalidArgumentError(absl::StrCat("the grid has more than ", kMostTrials, " points"));
    }
  }
  const uint64_t count = drawn.empty() ? points : trials;
  if (count > kMostTrials) {
    return absl::InvalidArgumentError(absl::StrCat("--trials ", count, ": at most ", kMostTrials));
  }
  std::vector<TrialFields> out(count);
  for (uint64_t i = 0; i < count; ++i) {
    // The last field of the grid changes fastest.
    uint64_t rest = i % points, stride = points;
    for (const Field& field : grid) {
      stride /= field.values.size();
      out[i].emplace_back(field.path, field.values[rest / stride]);
      rest %= stride;
    }
    for (size_t f = 0; f < drawn.size(); ++f) {
      const RandomStream stream(space.seed, Purpose::kTuning, f, 0);
      out[i].emplace_back(drawn[f].path, Drawn(drawn[f], stream, i));
    }
  }
  return out;
}

}  // namespace descent
