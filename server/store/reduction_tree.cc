#include "server/store/reduction_tree.h"

#include <algorithm>

#include "common/base/check.h"

namespace descent {

ReductionTree::ReductionTree(uint32_t ranks) : ranks_(ranks) { DESCENT_CHECK(ranks > 0); }

bool ReductionTree::Aligned(Rank first, uint32_t span) {
  return span != 0 && (span & (span - 1)) == 0 && (first.value & (span - 1)) == 0;
}

ReductionTree::Cell ReductionTree::TakeCell() {
  if (free_.empty()) return cells_++;
  const Cell cell = free_.back();
  free_.pop_back();
  return cell;
}

ReductionTree::Arrival ReductionTree::Insert(Rank rank, uint32_t width) {
  DESCENT_CHECK(Aligned(rank, width) && rank.value < ranks_);
  Arrival arrival;
  Node node{rank.value, width, 0};
  // Nodes of one tree are nested or disjoint. `at` is the first that ends behind the beginning of the new one.
  auto at = std::upper_bound(nodes_.begin(), nodes_.end(), node.first,
                             [](uint64_t first, const Node& other) { return first < other.first; });
  if (at != nodes_.begin() && std::prev(at)->first + std::prev(at)->span > node.first) --at;
  if (at != nodes_.end() && at->first <= node.first && at->first + at->span >= node.first + node.span &&
      at->span > node.span) {
    arrival.covered = true;
    return arrival;
  }
  // Where the ranks end inside a node, a narrower node may have been raised to the same place.
  const auto first_inside = at;
  while (at != nodes_.end() && at->first < node.first + node.span) {
    arrival.replaced.push_back(at->cell);
    free_.push_back(at->cell);
    ++at;
  }
  at = nodes_.erase(first_inside, at);

  bool placed = false;
  while (node.span < ranks_) {
    const uint64_t sibling = node.first ^ node.span;
    const uint64_t parent = std::min(node.first, sibling);
    if (sibling < ranks_) {
      auto other = nodes_.end();
      if (sibling < node.first) {
        if (at != nodes_.begin()) other = std::prev(at);
      } else {
        other = at;
      }
      if (other == nodes_.end() || other->first != sibling || other->span != node.span) break;
      arrival.folds.push_back(other->cell);
      if (placed) {
        free_.push_back(other->cell);
      } else {
        node.cell = other->cell;
        placed = true;
      }
      at = nodes_.erase(other);
    }
    node.first = parent;
    node.span *= 2;
  }
  if (!placed) node.cell = TakeCell();
  arrival.cell = node.cell;
  nodes_.insert(at, node);
  return arrival;
}

ReductionTree::Cell ReductionTree::CloseRange(size_t begin, size_t end, uint64_t first, uint64_t span,
                                              std::vector<Fold>* folds) {
  if (end - begin == 1) return nodes_[begin].cell;
  const uint64_t half = span / 2;
  size_t middle = begin;
  while (middle < end && nodes_[middle].first < first + half) ++middle;
  if (middle == begin) return CloseRange(begin, end, first + half, half, folds);
  if (middle == end) return CloseRange(begin, end, first, half, folds);
  const Cell left = CloseRange(begin, middle, first, half, folds);
  const Cell right = CloseRange(middle, end, first + half, half, folds);
  folds->push_back({left, right});
  free_.push_back(right);
  return left;
}

std::vector<ReductionTree::Fold> ReductionTree::Close() {
  std::vector<Fold> folds;
  if (nodes_.empty()) return folds;
  uint64_t span = 1;
  while (span < ranks_) span *= 2;
  const Cell root = CloseRange(0, nodes_.size(), 0, span, &folds);
  nodes_.assign(1, Node{0, span, root});
  return folds;
}

std::optional<ReductionTree::Cell> ReductionTree::root() const {
  if (nodes_.empty()) return std::nullopt;
  DESCENT_CHECK(nodes_.size() == 1);
  return nodes_[0].cell;
}

void ReductionTree::Clear() {
  for (const Node& node : nodes_) free_.push_back(node.cell);
  nodes_.clear();
}

}  // namespace descent
