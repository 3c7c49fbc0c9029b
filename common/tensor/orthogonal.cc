#include "common/tensor/orthogonal.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace descent {
namespace {

double Dot(absl::Span<const double> a, absl::Span<const double> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// H_1 ... H_n D, H_k a reflection of the coordinates from k on, D signs that make the distribution uniform: the
// orthogonal factor of a normal [m x n] matrix's QR decomposition with a positive diagonal.
class Reflections {
 public:
  Reflections(const RandomStream& stream, size_t m, size_t n) : m_(m), n_(n) {
    vectors_.reserve(n * m - n * (n - 1) / 2);
    for (size_t k = 0; k < n; ++k) {
      begin_.push_back(vectors_.size());
      for (size_t j = k; j < m; ++j) vectors_.push_back(stream.Normal(vectors_.size()));
      const absl::Span<double> u = absl::MakeSpan(vectors_).subspan(begin_[k]);
      const double sign = u[0] < 0 ? -1 : 1;
      u[0] += sign * std::sqrt(Dot(u, u));
      squared_.push_back(Dot(u, u));
      sign_.push_back(-sign);
    }
  }

  // Row i of the product, its first n elements.
  void Row(size_t i, std::vector<double>* v) const {
    Unit(i, v);
    for (size_t k = 0; k < n_; ++k) Reflect(k, v);
    for (size_t k = 0; k < n_; ++k) (*v)[k] *= sign_[k];
  }
  // Column i, all m elements. Reflections behind i leave it as it is.
  void Column(size_t i, std::vector<double>* v) const {
    Unit(i, v);
    (*v)[i] = sign_[i];
    for (size_t k = i + 1; k-- > 0;) Reflect(k, v);
  }

 private:
  void Unit(size_t i, std::vector<double>* v) const {
    v->assign(m_, 0);
    (*v)[i] = 1;
  }
  void Reflect(size_t k, std::vector<double>* v) const {
    const absl::Span<const double> u = absl::MakeSpan(vectors_).subspan(begin_[k], m_ - k);
    const absl::Span<double> part = absl::MakeSpan(*v).subspan(k);
    const double factor = 2 * Dot(u, part) / squared_[k];
    for (size_t j = 0; j < part.size(); ++j) part[j] -= factor * u[j];
  }

  const size_t m_, n_;
  std::vector<double> vectors_;  // one behind the other
  std::vector<size_t> begin_;
  std::vector<double> squared_;
  std::vector<double> sign_;
};

}  // namespace

void OrthogonalElements(const RandomStream& stream, uint64_t rows, uint64_t columns, double scale, uint64_t begin,
                        absl::Span<float> out) {
  const Reflections reflections(stream, std::max(rows, columns), std::min(rows, columns));
  std::vector<double> row;
  for (size_t done = 0; done < out.size();) {
    const uint64_t i = (begin + done) / columns, from = (begin + done) % columns;
    if (rows >= columns) {
      reflections.Row(i, &row);
    } else {
      reflections.Column(i, &row);
    }
    for (uint64_t j = from; j < columns && done < out.size(); ++j) out[done++] = static_cast<float>(scale * row[j]);
  }
}

}  // namespace descent
