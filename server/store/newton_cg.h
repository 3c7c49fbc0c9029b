// Newton's method with conjugate gradients (Nocedal and Wright 2006, algorithm 7.1), for convex objectives. Products of
// the Hessian H at the base and a vector p are differences of gradients (their section 7.1, "Hessian-free Newton
// methods"):
//
//   H p = (g(base + e p) - g(base)) / e,   e = (1 + ||base||) / (256 ||p||)
//
// (1/256 is about the cube root of float32's precision: gradients are sums over many examples, whose errors are above
// it). So the cluster computes nothing but gradients: a round brings either a product, or the gradient at the end of a
// Newton step, whose size SlopeSearch finds.
//
// State vectors: the gradient at the base, the step so far, its residual r = -g - H d, and p.
#ifndef DESCENT_SERVER_STORE_NEWTON_CG_H_
#define DESCENT_SERVER_STORE_NEWTON_CG_H_

#include <cstdint>
#include <string>

#include "server/store/full_gradient_method.h"
#include "server/store/slope_search.h"

namespace descent {

class NewtonCg final : public FullGradientMethod {
 public:
  // max_products from 1 up; forcing within (0, 1).
  NewtonCg(uint32_t max_products, double forcing) : max_products_(max_products), forcing_(forcing) {}

  int state_slots() const override { return 4; }
  size_t products() const override { return kProducts; }
  void Measure(const Block& block, absl::Span<double> sums) const override;
  void Decide(absl::Span<const double> totals) override;
  bool taken() const override { return move_ == Move::kTake; }
  void Step(const Block& block, float* next) const override;
  double SquaredGradient(const Block& block) const override;
  std::string Save() const override;
  absl::Status Load(absl::string_view state) override;

 private:
  // Of s = trial - base, the gradients g at the trial point and b at the base, h = g - b, x the trial point.
  enum Products : size_t { kSG, kSB, kGG, kXX, kPH, kRH, kHH, kRR, kPP, kRP, kProducts };
  enum class Move : uint8_t {
    kStay,     // the next trial point is the base
    kRetry,    // another size along the step
    kProduct,  // conjugate gradients go on
    kSolved,   // the last of them: the step is tried
    kTake,     // the trial point becomes the base
  };

  void Product(absl::Span<const double> totals);
  // e for a p with that square.
  double Reach(double squared) const;
  template <typename F>
  void ForEachNumber(F&& f);

  const uint32_t max_products_;
  const double forcing_;

  double begun_ = 0, done_ = 0;
  double searching_ = 0;  // 1: the trial point is the end of a step; 0: it is to give a product
  double count_ = 0;      // products of this step
  double reach_ = 0;      // e of the trial point
  double squared_base_ = 0, squared_gradient_ = 0;  // at the base
  SlopeSearch search_;
  // Of the round in progress.
  Move move_ = Move::kStay;
  double along_ = 0, beta_ = 0;  // d += along p; p = r + beta p
  double product_reach_ = 1;     // e that its product was made with
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_NEWTON_CG_H_
