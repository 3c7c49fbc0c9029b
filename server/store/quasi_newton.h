// L-BFGS (Nocedal 1980; Nocedal and Wright 2006, algorithm 7.4) and, with a penalty l1 ||w||_1, OWL-QN (Andrew and Gao
// 2007), for convex objectives.
//
// The two-loop recursion runs in the coordinates of its vectors, the last `history` steps s_j and differences of
// gradients y_j and the gradient, of which it needs inner products alone (Chen, Wang and Zhou 2014, "Large-scale L-BFGS
// using MapReduce"): a round has 6 history + 7 of them, the whole direction is one linear combination. How long a step
// is says SlopeSearch, for OWL-QN along the projected path, by pseudo-gradients: for a convex F and v in its
// subdifferential at the trial point x, F(x) <= F(base) + v (x - base).
//
// State vectors: the gradient at the base, the direction, s_0 ..., y_0 ....
#ifndef DESCENT_SERVER_STORE_QUASI_NEWTON_H_
#define DESCENT_SERVER_STORE_QUASI_NEWTON_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/store/full_gradient_method.h"
#include "server/store/slope_search.h"

namespace descent {

class QuasiNewton final : public FullGradientMethod {
 public:
  // history from 1 up, l1 from 0 up.
  QuasiNewton(size_t history, double l1);

  int state_slots() const override { return static_cast<int>(2 + 2 * history_); }
  size_t products() const override { return kOwn + 6 * history_; }
  void Measure(const Block& block, absl::Span<double> sums) const override;
  void Decide(absl::Span<const double> totals) override;
  bool taken() const override { return plan_.move == Move::kTake; }
  void Step(const Block& block, float* next) const override;
  double SquaredGradient(const Block& block) const override;
  std::string Save() const override;
  absl::Status Load(absl::string_view state) override;

 private:
  // Products: of s = trial - base, y = gradient - gradient at the base, v the (pseudo-)gradient at the trial point;
  // then six with each pair.
  enum Own : size_t { kSV, kSBase, kSS, kSY, kYY, kVV, kYV, kOwn };
  enum class Move : uint8_t {
    kStay,     // the next trial point is the base
    kRetry,    // another size along the same direction
    kRestart,  // the steepest descent from the base
    kTake,     // the trial point becomes the base, from which another direction leads
  };
  struct Plan {
    Move move = Move::kStay;
    std::optional<size_t> pair;                    // kTake: where s and y are kept
    double of_gradient = 0;                        // kTake: the direction
    std::vector<double> of_steps, of_differences;  // of the pairs
  };

  double l1(const Block& block) const { return block.decayed ? l1_ : 0; }
  void Take(absl::Span<const double> totals);
  // plan_'s coefficients; false: they lead nowhere.
  bool Combine();
  void BeginSteepest(double squared_gradient);
  double& at(std::vector<double>& matrix, size_t i, size_t j) const { return matrix[i * history_ + j]; }
  // Of all that Decide has learned, f(double&).
  template <typename F>
  void ForEachNumber(F&& f);

  const size_t history_;
  const double l1_;

  double begun_ = 0;             // 1: the base has a gradient
  double done_ = 0;              // 1: no step from the base is of use
  double pairs_ = 0;             // kept, the newest before next_
  double next_ = 0;              // the pair to be written next
  double squared_gradient_ = 0;  // at the base
  SlopeSearch search_;
  std::vector<double> ss_, sy_, yy_;  // [i * history + j]: s_i s_j, s_i y_j, y_i y_j
  std::vector<double> sv_, yv_;       // with the base's gradient
  Plan plan_;                         // of the round in progress
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_QUASI_NEWTON_H_
