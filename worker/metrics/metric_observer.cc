#include "worker/metrics/metric_observer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/metrics/score_curve.h"
#include "worker/models/internal/elementwise.h"

namespace descent {
namespace {

// A probability that float32 can't tell from 0 is no proof: as in scikit-learn, logarithms are taken of at least the
// type's epsilon.
constexpr double kLeastProbability = 0x1p-23;

double LogLoss(double probability) { return -internal::Log(std::clamp(probability, kLeastProbability, 1.0)); }

}  // namespace

MetricObserver::MetricObserver(const v1::Evaluation& evaluation, const Prediction& prediction, uint64_t rows)
    : evaluation_(evaluation),
      prediction_(prediction),
      confusion_(WantsConfusion(evaluation)),
      scores_(WantsScores(evaluation)),
      binned_(rows > evaluation.exact_scores()),
      top_(Wants(evaluation, v1::TOP_K)),
      log_loss_(Wants(evaluation, v1::LOG_LOSS)),
      calibration_(Wants(evaluation, v1::CALIBRATION)) {
  Clear();
}

void MetricObserver::Clear() {
  state_.Clear();
  if (confusion_) state_.mutable_confusion()->Resize(static_cast<int>(prediction_.classes * prediction_.classes), 0);
  if (top_) state_.mutable_top()->Resize(evaluation_.top_k_size(), 0);
  if (scores_ && binned_) {
    state_.mutable_positive_bin()->Resize(kScoreBins, 0);
    state_.mutable_negative_bin()->Resize(kScoreBins, 0);
  }
  if (calibration_) {
    const int bins = static_cast<int>(evaluation_.calibration_bins());
    state_.mutable_reliability_count()->Resize(bins, 0);
    state_.mutable_reliability_confidence()->Resize(bins, 0);
    state_.mutable_reliability_hits()->Resize(bins, 0);
  }
}

v1::MetricState MetricObserver::Take() {
  v1::MetricState taken = std::move(state_);
  Clear();
  return taken;
}

void MetricObserver::Add(absl::Span<const float> labels, absl::Span<const float> outputs) {
  if (labels.empty()) return;
  const size_t n = outputs.size() / labels.size();
  DESCENT_CHECK(n > 0 && n * labels.size() == outputs.size());
  for (size_t i = 0; i < labels.size(); ++i) {
    state_.set_examples(state_.examples() + 1);
    if (prediction_.classifier) {
      AddClass(static_cast<uint32_t>(labels[i]), outputs.data() + i * n, n);
    } else {
      AddNumber(labels[i], outputs[i * n]);
    }
  }
}

void MetricObserver::AddNumber(float label, float predicted) {
  const double y = label, error = static_cast<double>(predicted) - y;
  state_.set_absolute_error(state_.absolute_error() + std::fabs(error));
  state_.set_square_error(state_.square_error() + error * error);
  // Welford, 1962.
  const double before = y - state_.label_mean();
  state_.set_label_mean(state_.label_mean() + before / static_cast<double>(state_.examples()));
  state_.set_label_scatter(state_.label_scatter() + before * (y - state_.label_mean()));
}

void MetricObserver::AddClass(uint32_t label, const float* outputs, size_t n) {
  DESCENT_CHECK(label < prediction_.classes);
  const uint32_t likeliest =
      n == 1 ? (outputs[0] > 0.5f ? 1 : 0) : static_cast<uint32_t>(std::max_element(outputs, outputs + n) - outputs);
  const float score = n == 1 ? outputs[0] : outputs[1];  // of class 1, of two classes
  if (confusion_) {
    const uint32_t predicted =
        evaluation_.has_threshold() ? (static_cast<double>(score) >= evaluation_.threshold() ? 1 : 0) : likeliest;
    ++(*state_.mutable_confusion())[static_cast<int>(label * prediction_.classes + predicted)];
  }
  if (top_) {
    // Of equally likely classes the first comes first.
    uint32_t place = n == 1 && likeliest != label ? 1 : 0;
    for (uint32_t k = 0; n > 1 && k < n; ++k) {
      place += outputs[k] > outputs[label] || (outputs[k] == outputs[label] && k < label);
    }
    for (int i = 0; i < evaluation_.top_k_size(); ++i) {
      if (place < evaluation_.top_k(i)) ++(*state_.mutable_top())[i];
    }
  }
  if (scores_ && binned_) {
    auto* bins = label == 1 ? state_.mutable_positive_bin() : state_.mutable_negative_bin();
    ++(*bins)[static_cast<int>(ScoreBin(score))];
  } else if (scores_) {
    (label == 1 ? state_.mutable_positive() : state_.mutable_negative())->Add(std::isfinite(score) ? score : 0);
  }
  if (log_loss_) {
    const double of_label = n > 1 ? outputs[label] : label == 1 ? outputs[0] : 1.0 - static_cast<double>(outputs[0]);
    state_.set_log_loss(state_.log_loss() + LogLoss(of_label));
  }
  // Of two classes: how often what is said of class 1 comes true; of more, how often the likeliest is right.
  if (calibration_ && prediction_.classes == 2) AddConfidence(score, label == 1);
  if (calibration_ && prediction_.classes > 2) AddConfidence(outputs[likeliest], likeliest == label);
}

void MetricObserver::AddConfidence(float confidence, bool came_true) {
  const int bins = state_.reliability_count_size();
  // A bin has its upper limit, not its lower (Guo et al., 2017, section 2).
  const double at = std::ceil(static_cast<double>(confidence) * bins) - 1;
  const int bin = at > 0 ? static_cast<int>(std::min(at, static_cast<double>(bins - 1))) : 0;
  ++(*state_.mutable_reliability_count())[bin];
  (*state_.mutable_reliability_confidence())[bin] += confidence;
  (*state_.mutable_reliability_hits())[bin] += came_true ? 1 : 0;
}

}  // namespace descent
