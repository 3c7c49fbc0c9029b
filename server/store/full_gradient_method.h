// Methods that take the gradient of all data at a point of their own choice, and choose the next by inner products over
// all parameters: L-BFGS and OWL-QN (quasi_newton.h), Newton-CG (newton_cg.h).
//
// A round brings the gradient g of the objective at the newest version, the *trial* point. Every server adds up the
// products of its blocks (Measure, in double); their totals, the same on all servers, decide what the trial was worth
// (Decide); then each block makes its part of the next trial point (Step). The *base* is the last trial that was taken,
// or the first point: it is what is evaluated and saved, and BlockStore keeps it where averages are kept.
//
// So that any number of servers takes the same steps: products are summed within a block in an order fixed by the
// elements' indices, over blocks in (tensor, block) order, and all decisions are functions of totals alone.
//
// Thread-safety: none; of one store.
#ifndef DESCENT_SERVER_STORE_FULL_GRADIENT_METHOD_H_
#define DESCENT_SERVER_STORE_FULL_GRADIENT_METHOD_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace descent {

class FullGradientMethod {
 public:
  // What a method sees of a block: n numbers each. `trial` and `base` are not written.
  struct Block {
    size_t n = 0;
    bool decayed = false;  // penalties count here
    const float* trial = nullptr;
    const float* base = nullptr;
    const float* gradient = nullptr;  // of mean loss + l2/2 ||w||^2 at `trial`
    float* const* state = nullptr;    // state_slots() vectors, which begin at 0
  };

  virtual ~FullGradientMethod() = default;

  virtual int state_slots() const = 0;
  // How many products a block adds up.
  virtual size_t products() const = 0;
  // Adds the block's to sums[0, products()).
  virtual void Measure(const Block& block, absl::Span<double> sums) const = 0;
  // Once a round. `totals`: products() of them; where the round had no data: none, and nothing changes.
  virtual void Decide(absl::Span<const double> totals) = 0;
  // After Decide: whether the trial point of the round becomes the base.
  virtual bool taken() const = 0;
  // After Decide: next[i], i < n, is the next trial point; the state goes along.
  virtual void Step(const Block& block, float* next) const = 0;
  // The squared norm of the block's (pseudo-)gradient at the trial point: 0 at the optimum.
  virtual double SquaredGradient(const Block& block) const = 0;

  // What Decide has learned, for a cut. INVALID_ARGUMENT: not of this method and its sizes.
  virtual std::string Save() const = 0;
  virtual absl::Status Load(absl::string_view state) = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_FULL_GRADIENT_METHOD_H_
