// The order in which the contributions of a round are added: a fixed binary tree over rank numbers, whatever the order
// of arrival. Leaf r is rank r; the node of `span` ranks from `first` is left + right; a child without a contribution
// is skipped. Bookkeeping only: the values lie with the caller, in cells that the tree numbers.
//
// Adding two floats commutes to the bit, so it does not matter which of two siblings is added into which.
//
// Thread-safety: none. Pure.
#ifndef DESCENT_SERVER_STORE_REDUCTION_TREE_H_
#define DESCENT_SERVER_STORE_REDUCTION_TREE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "common/base/ids.h"

namespace descent {

class ReductionTree {
 public:
  using Cell = uint32_t;

  // What the caller does with an arriving value, in this order.
  struct Arrival {
    bool covered = false;                   // a node held already contains these ranks: drop the value
    absl::InlinedVector<Cell, 4> replaced;  // cells of ranks that this value contains: empty them
    absl::InlinedVector<Cell, 8> folds;     // none: put the value into `cell`. Else add the value into folds[0], then
                                            // each further one into folds[0], and empty that further one
    Cell cell = 0;                          // where the result lies
  };
  struct Fold {
    Cell into = 0;
    Cell from = 0;  // empty afterwards
  };

  explicit ReductionTree(uint32_t ranks);

  // A span is a node of the tree: a power of two, `first` a multiple of it and below the number of ranks. It may reach
  // past the last rank.
  static bool Aligned(Rank first, uint32_t span);
  Arrival Insert(Rank first, uint32_t span);

  // Whether one contribution of these ranks is all that a round can have.
  bool Whole(Rank first, uint32_t span) const { return first.value == 0 && span >= ranks_; }

  // The additions that are left when no more contributions come, in order. Afterwards root() holds all.
  std::vector<Fold> Close();
  // The only cell held; none if nothing is held. Call after Close.
  std::optional<Cell> root() const;

  size_t held() const { return nodes_.size(); }  // at most ceil(ranks / 2), and 1 for 1 rank
  bool empty() const { return nodes_.empty(); }
  void Clear();

 private:
  struct Node {
    uint64_t first = 0;
    uint64_t span = 1;
    Cell cell = 0;
  };
  Cell CloseRange(size_t begin, size_t end, uint64_t first, uint64_t span, std::vector<Fold>* folds);
  Cell TakeCell();

  uint64_t ranks_;
  std::vector<Node> nodes_;  // ascending, disjoint
  std::vector<Cell> free_;
  Cell cells_ = 0;
};

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_REDUCTION_TREE_H_
