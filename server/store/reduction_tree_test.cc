#include "server/store/reduction_tree.h"

#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include "common/random/philox.h"
#include "gtest/gtest.h"

namespace descent {
namespace {

// The definition, as plain recursion.
std::optional<float> Sum(const std::map<uint32_t, float>& leaves, uint64_t first, uint64_t span) {
  if (span == 1) {
    auto it = leaves.find(static_cast<uint32_t>(first));
    return it == leaves.end() ? std::nullopt : std::optional<float>(it->second);
  }
  const auto left = Sum(leaves, first, span / 2);
  const auto right = Sum(leaves, first + span / 2, span / 2);
  if (left.has_value() && right.has_value()) return *left + *right;
  return left.has_value() ? left : right;
}

uint64_t Width(uint32_t ranks) {
  uint64_t width = 1;
  while (width < ranks) width *= 2;
  return width;
}

// The tree with floats in its cells.
class Adder {
 public:
  explicit Adder(uint32_t ranks) : tree(ranks) {}
  void Insert(uint32_t first, uint32_t span, float value) {
    const ReductionTree::Arrival arrival = tree.Insert(Rank(first), span);
    if (arrival.covered) return;
    for (auto cell : arrival.replaced) {
      ASSERT_TRUE(cells.at(cell).has_value());
      cells[cell].reset();
    }
    if (arrival.cell >= cells.size()) cells.resize(arrival.cell + 1);
    if (arrival.folds.empty()) {
      ASSERT_FALSE(cells[arrival.cell].has_value());
      cells[arrival.cell] = value;
      return;
    }
    ASSERT_EQ(arrival.cell, arrival.folds[0]);
    cells[arrival.cell] = cells[arrival.cell].value() + value;
    for (size_t i = 1; i < arrival.folds.size(); ++i) {
      cells[arrival.cell] = *cells[arrival.cell] + cells[arrival.folds[i]].value();
      cells[arrival.folds[i]].reset();
    }
  }
  std::optional<float> Close() {
    for (const ReductionTree::Fold& fold : tree.Close()) {
      cells[fold.into] = cells[fold.into].value() + cells[fold.from].value();
      cells[fold.from].reset();
    }
    size_t full = 0;
    for (const auto& cell : cells) full += cell.has_value();
    EXPECT_EQ(full, tree.held());
    const auto root = tree.root();
    return root.has_value() ? cells[*root] : std::nullopt;
  }
  ReductionTree tree;
  std::vector<std::optional<float>> cells;
};

TEST(ReductionTree, AnyOrderAndAnySpansGiveTheBitsOfThePlainSum) {
  const RandomStream random(1, Purpose::kTest, 0, 0);
  uint64_t draw = 0;
  for (uint32_t ranks = 1; ranks <= 21; ++ranks) {
    for (int trial = 0; trial < 200; ++trial) {
      std::map<uint32_t, float> leaves;
      for (uint32_t r = 0; r < ranks; ++r) {
        if (random.Below(draw++, 8) != 0) leaves[r] = static_cast<float>(random.Normal(draw++));
      }
      // Spans: each leaf alone, or inside a wider node, and some of them twice (sent by two workers).
      struct Piece {
        uint32_t first, span;
      };
      std::vector<Piece> pieces;
      for (const auto& [r, value] : leaves) {
        const uint32_t span = 1u << random.Below(draw++, 4);
        if (random.Below(draw++, 3) == 0) pieces.push_back({r, 1});
        pieces.push_back({r & ~(span - 1), span});
      }
      for (size_t i = pieces.size(); i > 1; --i) std::swap(pieces[i - 1], pieces[random.Below(draw++, i)]);
      Adder adder(ranks);
      for (int round = 0; round < 2; ++round) {
        for (const Piece& piece : pieces) {
          adder.Insert(piece.first, piece.span, Sum(leaves, piece.first, piece.span).value());
          ASSERT_LE(adder.tree.held(), (ranks + 1) / 2);
        }
        const auto got = adder.Close();
        const auto want = Sum(leaves, 0, Width(ranks));
        ASSERT_EQ(got.has_value(), want.has_value());
        if (want.has_value()) {
          ASSERT_EQ(0, std::memcmp(&*got, &*want, sizeof(float))) << ranks << " ranks";
        }
        adder.tree.Clear();
        for (auto& cell : adder.cells) cell.reset();
      }
    }
  }
}

TEST(ReductionTree, KnowsNodes) {
  EXPECT_TRUE(ReductionTree::Aligned(Rank(4), 4));
  EXPECT_FALSE(ReductionTree::Aligned(Rank(2), 4));
  EXPECT_FALSE(ReductionTree::Aligned(Rank(0), 3));
  EXPECT_FALSE(ReductionTree::Aligned(Rank(0), 0));
  ReductionTree tree(3);
  EXPECT_TRUE(tree.Whole(Rank(0), 4));
  EXPECT_FALSE(tree.Whole(Rank(0), 2));
  EXPECT_FALSE(tree.Whole(Rank(2), 2));
}

TEST(ReductionTree, FoldsSiblingsOnArrival) {
  ReductionTree tree(4);
  tree.Insert(Rank(0), 1);
  tree.Insert(Rank(3), 1);
  EXPECT_EQ(tree.held(), 2u);
  tree.Insert(Rank(2), 1);
  EXPECT_EQ(tree.held(), 2u);
  EXPECT_EQ(tree.Insert(Rank(1), 1).folds.size(), 2u);
  EXPECT_EQ(tree.held(), 1u);
  EXPECT_TRUE(tree.Insert(Rank(2), 2).covered);
}

}  // namespace
}  // namespace descent
