#include "worker/models/gradient_check.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/random/philox.h"
#include "common/tensor/initial_value.h"
#include "worker/models/internal/aligned_buffer.h"

namespace descent {
namespace {

using internal::AlignedBuffer;

// A derivative at one point, and whether there is one.
struct Derivative {
  double value = 0;
  bool kink = false;
};

// The loss as a function of one coordinate.
template <typename T>
class Coordinate {
 public:
  Coordinate(const std::function<double()>& loss, T* x) : loss_(loss), x_(x), at_(*x) {}
  ~Coordinate() { *x_ = at_; }
  T at() const { return at_; }
  double Loss(T x) {
    *x_ = x;
    return loss_();
  }

 private:
  const std::function<double()>& loss_;
  T* const x_;
  const T at_;
};

// Ridders' table of central differences, beginning at step h.
template <typename T>
Derivative Extrapolate(Coordinate<T>* f, double h, double here, double noise, double scale, double tolerance) {
  constexpr int kSteps = std::is_same_v<T, double> ? 6 : 3;
  double table[kSteps][kSteps];
  double best_error = std::numeric_limits<double>::infinity();
  Derivative result;
  double first_gap = 0, last_gap = 0;
  for (int i = 0; i < kSteps; ++i, h /= 2) {
    // The step as it is after rounding.
    const T up = static_cast<T>(f->at() + h), down = static_cast<T>(f->at() - h);
    const double up_step = static_cast<double>(up) - static_cast<double>(f->at());
    const double down_step = static_cast<double>(f->at()) - static_cast<double>(down);
    const double above = f->Loss(up), below = f->Loss(down);
    table[0][i] = (above - below) / (up_step + down_step);
    const double one_sided_gap = std::fabs((above - here) / up_step - (here - below) / down_step);
    if (i == 0) first_gap = one_sided_gap;
    last_gap = one_sided_gap - 4 * noise / h;
    double factor = 4;
    for (int j = 1; j <= i; ++j, factor *= 4) {
      table[j][i] = (table[j - 1][i] * factor - table[j - 1][i - 1]) / (factor - 1);
      const double error =
          std::max(std::fabs(table[j][i] - table[j - 1][i]), std::fabs(table[j][i] - table[j - 1][i - 1]));
      if (error < best_error) {
        best_error = error;
        result.value = table[j][i];
      }
    }
  }
  // A kink within the steps keeps the table from converging. One at the point itself does not, but there the gap
  // between the two sides stays, while on a smooth loss it shrinks with h.
  const double allowed = tolerance * std::max(scale, std::fabs(result.value));
  result.kink = best_error > allowed || (last_gap > 0.5 * first_gap && last_gap > allowed);
  return result;
}

}  // namespace

template <typename T>
GradientCheckReport CheckGradient(Model<T>* model, const Batch& batch, absl::Span<const std::vector<T>> parameters,
                                  const GradientCheckOptions& options) {
  constexpr bool kDouble = std::is_same_v<T, double>;
  const double tolerance = options.tolerance > 0 ? options.tolerance : (kDouble ? 1e-6 : 2e-2);
  const double step = options.step > 0 ? options.step : (kDouble ? 1e-3 : 1e-2);
  const double floor = options.floor > 0 ? options.floor : (kDouble ? 1e-3 : 5e-2);
  const auto& specs = model->tensors();
  DESCENT_CHECK(parameters.size() == specs.size());
  std::vector<AlignedBuffer<T>> values(specs.size()), gradients(specs.size());
  std::vector<const T*> value_pointers;
  std::vector<T*> gradient_pointers;
  for (size_t i = 0; i < specs.size(); ++i) {
    values[i].Resize(parameters[i].size());
    gradients[i].Resize(parameters[i].size());
    std::copy(parameters[i].begin(), parameters[i].end(), values[i].data());
    // What Gradient leaves unwritten must not pass for a gradient.
    std::fill_n(gradients[i].data(), gradients[i].size(), std::numeric_limits<T>::quiet_NaN());
    value_pointers.push_back(values[i].data());
    gradient_pointers.push_back(gradients[i].data());
  }
  GradientCheckReport report;
  const BatchResult with_gradient = model->Gradient(batch, value_pointers, absl::MakeConstSpan(gradient_pointers));
  std::vector<AlignedBuffer<T>> unused(specs.size());
  std::vector<T*> unused_pointers;
  for (size_t i = 0; i < specs.size(); ++i) {
    unused[i].Resize(parameters[i].size());
    unused_pointers.push_back(unused[i].data());
  }
  const std::function<double()> loss = [&] {
    return options.loss_of_gradient ? model->Gradient(batch, value_pointers, absl::MakeConstSpan(unused_pointers)).loss
                                    : model->Evaluate(batch, value_pointers).loss;
  };
  const double here = loss();
  const double epsilon = std::numeric_limits<T>::epsilon();
  const double noise = epsilon * std::max(1.0, std::fabs(here));
  if (!(std::fabs(with_gradient.loss - here) <= 8 * noise)) {
    report.message = absl::StrCat("Gradient says the loss is ", with_gradient.loss, ", Evaluate says ", here);
    return report;
  }
  const auto has_gradient = [&](size_t i) { return specs[i].role != TensorRole::kStatistic; };
  double greatest = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto& gradient = gradients[i];
    if (!has_gradient(i)) continue;
    for (size_t j = 0; j < gradient.size(); ++j) greatest = std::max(greatest, std::fabs(double{gradient[j]}));
  }
  const double scale = std::max({floor * greatest, noise / step, std::numeric_limits<double>::min()});
  std::string worst_where;
  bool finite = true;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (!has_gradient(i)) continue;
    const uint64_t n = parameters[i].size();
    const uint64_t count = std::min<uint64_t>(n, options.coordinates);
    for (uint64_t c = 0; c < count; ++c) {
      const uint64_t j =
          static_cast<uint64_t>(static_cast<double>(c) * static_cast<double>(n) / static_cast<double>(count));
      const double analytic = gradients[i][j];
      if (!std::isfinite(analytic)) {
        if (finite) report.message = absl::StrCat(specs[i].name, "[", j, "]: gradient is ", analytic);
        finite = false;
        continue;
      }
      Coordinate<T> f(loss, values[i].data() + j);
      double h = step * std::max(1.0, std::fabs(double{values[i][j]}));
      Derivative d;
      // Smaller steps may leave out a kink that lies near, not at, the point.
      for (int tries = 0; tries < (kDouble ? 3 : 1); ++tries, h /= 16) {
        d = Extrapolate(&f, h, here, noise, scale, tolerance);
        if (!d.kink) break;
      }
      if (d.kink) {
        ++report.skipped;
        continue;
      }
      ++report.checked;
      const double error = std::fabs(analytic - d.value) / std::max({scale, std::fabs(analytic), std::fabs(d.value)});
      if (error > report.worst) {
        report.worst = error;
        worst_where = absl::StrCat(specs[i].name, "[", j, "]: gradient is ", analytic, ", differences give ", d.value);
      }
    }
  }
  if (!finite) return report;
  const uint64_t all = report.checked + report.skipped;
  if (report.worst > tolerance) {
    report.message = absl::StrCat(worst_where, ", relative error ", report.worst, " where ", tolerance, " is allowed");
  } else if (static_cast<double>(report.skipped) > options.most_skipped * static_cast<double>(all)) {
    report.message = absl::StrCat(report.skipped, " of ", all, " coordinates lie at a kink: too many to tell");
  } else {
    report.ok = true;
  }
  return report;
}

template <typename T>
GradientCheckReport CheckGradientAtRandom(Model<T>* model, const Batch& batch, uint64_t seed, double spread,
                                          const GradientCheckOptions& options) {
  std::vector<std::vector<T>> parameters;
  const auto& specs = model->tensors();
  for (uint32_t i = 0; i < specs.size(); ++i) {
    const TensorSpec& spec = specs[i];
    std::vector<float> initial;
    if (spec.sparse) {
      initial.resize(batch.keys.size() * spec.dim());
      for (size_t k = 0; k < batch.keys.size(); ++k) {
        InitialRow(seed, TensorId(i), spec.initializer, batch.keys[k],
                   absl::MakeSpan(initial).subspan(k * spec.dim(), spec.dim()));
      }
    } else {
      initial.resize(spec.elements());
      InitialDense(seed, TensorId(i), spec, 0, absl::MakeSpan(initial));
    }
    const RandomStream stream(seed, Purpose::kTest, 0, i);
    std::vector<T> values(initial.begin(), initial.end());
    for (size_t j = 0; j < values.size(); ++j) values[j] += static_cast<T>(spread * stream.Normal(j));
    parameters.push_back(std::move(values));
  }
  return CheckGradient<T>(model, batch, parameters, options);
}

template GradientCheckReport CheckGradient(Model<float>*, const Batch&, absl::Span<const std::vector<float>>,
                                           const GradientCheckOptions&);
template GradientCheckReport CheckGradient(Model<double>*, const Batch&, absl::Span<const std::vector<double>>,
                                           const GradientCheckOptions&);
template GradientCheckReport CheckGradientAtRandom(Model<float>*, const Batch&, uint64_t, double,
                                                   const GradientCheckOptions&);
template GradientCheckReport CheckGradientAtRandom(Model<double>*, const Batch&, uint64_t, double,
                                                   const GradientCheckOptions&);

}  // namespace descent
