#include "server/coordinator/gradient_histograms.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace descent {
namespace {

constexpr size_t kZero = 0, kBelow = 1, kFirst = 2;

// The lower edges of the thirds, and where the last one ends.
const std::array<double, 2 * NormHistogram::kThirds + 1>& Edges() {
  static const auto* const edges = [] {
    auto* const all = new std::array<double, 2 * NormHistogram::kThirds + 1>;
    for (int k = -NormHistogram::kThirds; k <= NormHistogram::kThirds; ++k) {
      (*all)[static_cast<size_t>(k + NormHistogram::kThirds)] = std::pow(10.0, k / 3.0);
    }
    return all;
  }();
  return *edges;
}

}  // namespace

size_t NormHistogram::BucketOf(double norm) {
  if (norm == 0) return kZero;
  const auto& edges = Edges();
  const auto above = std::upper_bound(edges.begin(), edges.end(), norm);
  return kBelow + static_cast<size_t>(above - edges.begin());
}

std::string NormHistogram::NameOf(size_t bucket) {
  if (bucket == kZero) return "0";
  if (bucket == kBelow) return "<1e-12";
  return absl::StrFormat("%.3g", Edges()[bucket - kFirst]);
}

std::vector<std::pair<std::string, uint64_t>> NormHistogram::Hit() const {
  std::vector<std::pair<std::string, uint64_t>> hit;
  for (size_t bucket = 0; bucket < counts_.size(); ++bucket) {
    if (counts_[bucket] > 0) hit.emplace_back(NameOf(bucket), counts_[bucket]);
  }
  return hit;
}

std::vector<GradientWindow> GradientHistograms::Add(uint64_t clock, absl::Span<const double> squares) {
  std::vector<GradientWindow> closed;
  const uint64_t window = clock / every_;
  if (window < window_) return closed;
  if (window > window_) {
    if (open_.has_value()) closed.push_back(*std::exchange(open_, std::nullopt));
    window_ = window;
  }
  if (!open_.has_value()) open_.emplace().tensors.resize(squares.size());
  ++open_->rounds;
  open_->clock = std::max(open_->clock, clock + 1);
  for (size_t t = 0; t < open_->tensors.size() && t < squares.size(); ++t) {
    open_->tensors[t].Add(std::sqrt(squares[t]));
  }
  if (open_->rounds == every_) {
    closed.push_back(*std::exchange(open_, std::nullopt));
    ++window_;
  }
  return closed;
}

std::optional<GradientWindow> GradientHistograms::Close() { return std::exchange(open_, std::nullopt); }

}  // namespace descent
