#include "cli/tune_plot.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace descent {
namespace {

constexpr double kWidth = 330, kHeight = 280;  // of a panel, with its margins
constexpr double kLeft = 64, kRight = 14, kTop = 26, kBottom = 44;
constexpr double kLogarithmicFrom = 20;

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

// Of numbers, or of names side by side.
class Axis {
 public:
  explicit Axis(std::vector<double> values) {
    low_ = std::numeric_limits<double>::infinity();
    high_ = -low_;
    for (const double value : values) {
      low_ = std::min(low_, value);
      high_ = std::max(high_, value);
    }
    if (values.empty()) low_ = 0, high_ = 1;
    logarithmic_ = low_ > 0 && high_ > kLogarithmicFrom * low_;
    if (low_ == high_) {
      const double half = low_ == 0 ? 1 : std::fabs(low_) / 2;
      low_ -= half;
      high_ += half;
    }
    Ticks();
    // Some room, so that no point is on the edge.
    const double room = 0.05 * (Scaled(high_) - Scaled(low_));
    begin_ = Scaled(low_) - room;
    end_ = Scaled(high_) + room;
  }
  explicit Axis(const std::vector<std::string>& names) : begin_(-0.5), end_(static_cast<double>(names.size()) - 0.5) {
    for (size_t i = 0; i < names.size(); ++i) ticks_.emplace_back(static_cast<double>(i), names[i]);
  }

  // From 0 to 1 along the axis.
  double Place(double value) const { return (Scaled(value) - begin_) / (end_ - begin_); }
  const std::vector<std::pair<double, std::string>>& ticks() const { return ticks_; }

 private:
  double Scaled(double value) const { return logarithmic_ ? std::log10(value) : value; }

  void Ticks() {
    if (logarithmic_) {
      const int first = static_cast<int>(std::ceil(std::log10(low_) - 1e-9));
      const int last = static_cast<int>(std::floor(std::log10(high_) + 1e-9));
      const int step = std::max(1, (last - first) / 6 + 1);
      for (int power = first; power <= last; power += step) {
        ticks_.emplace_back(std::pow(10.0, power), absl::StrFormat("%g", std::pow(10.0, power)));
      }
      if (ticks_.size() > 1) return;
      ticks_ = {{low_, absl::StrFormat("%.3g", low_)}, {high_, absl::StrFormat("%.3g", high_)}};
      return;
    }
    // 1, 2 or 5 times a power of ten apart, some five of them.
    const double rough = (high_ - low_) / 5;
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    const double ratio = rough / power;
    const double step = power * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
    for (double i = std::ceil(low_ / step - 1e-9); i * step <= high_ + 1e-9 * step && ticks_.size() < 20; ++i) {
      ticks_.emplace_back(i * step, absl::StrFormat("%.4g", i * step + 0.0));  // not "-0"
    }
  }

  double low_ = 0, high_ = 1;
  bool logarithmic_ = false;
  double begin_ = 0, end_ = 1;
  std::vector<std::pair<double, std::string>> ticks_;
};

struct Across {
  Axis axis;
  std::vector<double> values;  // one for each trial
};

Across AcrossOf(const std::vector<Trial>& trials, size_t field) {
  std::vector<double> numbers;
  for (const Trial& trial : trials) {
    double number;
    if (absl::SimpleAtod(trial.fields[field].second, &number) && std::isfinite(number)) numbers.push_back(number);
  }
  if (numbers.size() == trials.size()) return {Axis(numbers), numbers};
  std::vector<std::string> names;
  for (const Trial& trial : trials) names.push_back(trial.fields[field].second);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::vector<double> places;
  for (const Trial& trial : trials) {
    places.push_back(
        static_cast<double>(std::lower_bound(names.begin(), names.end(), trial.fields[field].second) - names.begin()));
  }
  return {Axis(names), places};
}

void Text(double x, double y, absl::string_view anchor, absl::string_view text, std::string* out) {
  absl::StrAppendFormat(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, Escaped(text));
}

void Line(double x1, double y1, double x2, double y2, absl::string_view colour, std::string* out) {
  absl::StrAppendFormat(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2,
                        colour);
}

void Panel(const std::vector<Trial>& trials, size_t field, const TuneMetric& metric, const Axis& up, double left,
           std::string* out) {
  const Across across = AcrossOf(trials, field);
  const double x0 = left + kLeft, x1 = left + kWidth - kRight, y0 = kHeight - kBottom, y1 = kTop;
  const auto x = [&](double value) { return x0 + across.axis.Place(value) * (x1 - x0); };
  const auto y = [&](double value) { return y0 - up.Place(value) * (y0 - y1); };
  for (const auto& [value, name] : across.axis.ticks()) {
    Line(x(value), y0, x(value), y1, "#e4e4e4", out);
    Text(x(value), y0 + 15, "middle", name, out);
  }
  for (const auto& [value, name] : up.ticks()) {
    Line(x0, y(value), x1, y(value), "#e4e4e4", out);
    Text(x0 - 6, y(value) + 4, "end", name, out);
  }
  Line(x0, y0, x1, y0, "#333333", out);
  Line(x0, y0, x0, y1, "#333333", out);
  Text((x0 + x1) / 2, kHeight - 8, "middle", trials[0].fields[field].first, out);
  Text(x0 - 6, kTop - 10, "start", metric.name, out);
  for (size_t i = trials.size(); i-- > 0;) {  // the best on top
    const double at = x(across.values[i]);
    if (trials[i].result == "finished" && trials[i].value.has_value()) {
      absl::StrAppendFormat(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", at, y(*trials[i].value),
                            i == 0 ? "#d55e00" : "#0072b2");
      if (i == 0) {
        absl::StrAppendFormat(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"8\" fill=\"none\" stroke=\"#d55e00\"/>\n", at,
                              y(*trials[i].value));
      }
    } else {
      Line(at - 4, y1 - 4, at + 4, y1 + 4, "#888888", out);
      Line(at - 4, y1 + 4, at + 4, y1 - 4, "#888888", out);
    }
  }
}

}  // namespace

std::string TunePlot(const std::vector<Trial>& ranked, const TuneMetric& metric) {
  std::vector<double> values;
  for (const Trial& trial : ranked) {
    if (trial.result == "finished" && trial.value.has_value()) values.push_back(*trial.value);
  }
  const Axis up(values);
  const size_t panels = ranked.empty() ? 0 : ranked[0].fields.size();
  const double width = kWidth * static_cast<double>(std::max<size_t>(panels, 1));
  std::string out = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" font-family=\"sans-serif\" "
      "font-size=\"11\" fill=\"#333333\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      width, kHeight);
  for (size_t field = 0; field < panels; ++field) {
    Panel(ranked, field, metric, up, kWidth * static_cast<double>(field), &out);
  }
  return out + "</svg>\n";
}

}  // namespace descent
