// L-BFGS, OWL-QN and Newton-CG on stores, as a cluster runs them: one round after another, the blocks on one server or
// on several. What they reach is held against minima in closed form and conditions of optimality.
#include "server/store/full_gradient_method.h"

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/store/block_store.h"
#include "server/store/rule_cases.h"
#include "server/store/slope_search.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

constexpr size_t kWeights = 50, kBiases = 3, kAll = kWeights + kBiases;

float Draw(uint64_t stream, uint64_t i) { return 2 * RandomStream(11, Purpose::kTest, stream, 0).Uniform(i) - 1; }

// The gradient of a mean loss at w, in float64, given as float32: what ranks push.
using Gradient = std::function<std::vector<double>(const std::vector<double>& w)>;

class Cluster {
 public:
  Cluster(const std::string& rule, uint32_t servers, double l2) {
    StoreOptions options;
    TensorSpec w, bias;
    w.name = "w";
    w.shape = {kWeights};
    bias.name = "bias";
    bias.shape = {kBiases};
    bias.decay = false;
    options.tensors = {w, bias};
    options.geometry.block_elements = 8;
    options.map = MakePartitionMap(options.tensors, options.geometry, servers);
    options.ranks = 1;
    options.rule = UpdateRule::Make(RuleCase(rule)).value();
    options.rate = [](Clock) { return 0.0f; };
    options.l2 = static_cast<float>(l2);
    for (uint32_t s = 0; s < servers; ++s) {
      options.self = ServerId(s);
      stores_.push_back(BlockStore::Create(options).value());
    }
  }

  std::vector<float> Read(bool base) const {
    std::vector<float> all(kAll);
    for (const auto& store : stores_) {
      for (BlockId id : store->dense_blocks()) {
        const Payload payload = (base ? store->ReadAverage(id, std::nullopt) : store->Read(id, std::nullopt)).value();
        payload.CopyTo(all.data() + Begin(id));
      }
    }
    return all;
  }
  std::vector<double> Base() const {
    const std::vector<float> base = Read(true);
    return {base.begin(), base.end()};
  }

  void Round(const Gradient& gradient) {
    const std::vector<float> trial = Read(false);
    const std::vector<double> g = gradient({trial.begin(), trial.end()});
    const std::vector<float> pushed(g.begin(), g.end());
    std::vector<BlockScalars> parts;
    for (const auto& store : stores_) {
      for (BlockId id : store->dense_blocks()) {
        const size_t n = Elements(id);
        std::shared_ptr<float[]> values(new float[n]);
        std::copy_n(pushed.begin() + static_cast<int64_t>(Begin(id)), n, values.get());
        Payload payload;
        payload.Append(values.get(), n * sizeof(float), values);
        ASSERT_TRUE(store->Hold(id, Rank(0), 1, payload).ok());
        parts.push_back(store->Measure(id, 1).value());
      }
    }
    std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    const ScalarTotals totals = AddInBlockOrder(Clock(round_), 2, parts);
    for (const auto& store : stores_) {
      store->Agree(totals);
      for (BlockId id : store->dense_blocks()) ASSERT_TRUE(store->Commit(id, 1, nullptr).ok());
    }
    ++round_;
  }

  std::vector<BlockExport> Export() const {
    std::vector<BlockExport> images;
    for (const auto& store : stores_) {
      for (BlockId id : store->dense_blocks()) images.push_back(store->Export(id, true).value());
    }
    return images;
  }
  absl::Status Install(const std::vector<BlockExport>& images) {
    for (const BlockExport& image : images) {
      for (const auto& store : stores_) {
        for (BlockId id : store->dense_blocks()) {
          if (!(id == image.id)) continue;
          if (absl::Status status = store->Install(image); !status.ok()) return status;
        }
      }
    }
    return absl::OkStatus();
  }

 private:
  static size_t Begin(BlockId id) { return id.tensor.value * kWeights + id.index * 8; }
  static size_t Elements(BlockId id) {
    return std::min<size_t>(8, (id.tensor.value == 0 ? kWeights : kBiases) - id.index * 8);
  }

  std::vector<std::unique_ptr<BlockStore>> stores_;
  uint64_t round_ = 0;
};

// Logistic regression on 400 examples, of which the last three weights are biases of a third each.
struct Logistic {
  static constexpr size_t kRows = 400;
  static double X(size_t row, size_t i) {
    if (i >= kWeights) return row % kBiases == i - kWeights ? 1 : 0;
    return Draw(1 + row, i) * (i < 5 ? 10 : 1);  // some columns of another scale
  }
  static double Y(size_t row) { return X(row, 0) / 10 + X(row, 7) + 0.7 * Draw(0, row) > 0.2 ? 1 : 0; }
  static double Score(const std::vector<double>& w, size_t row) {
    double z = 0;
    for (size_t i = 0; i < kAll; ++i) z += w[i] * X(row, i);
    return z;
  }
  static std::vector<double> Gradient(const std::vector<double>& w) {
    std::vector<double> g(kAll);
    for (size_t row = 0; row < kRows; ++row) {
      const double d = (1 / (1 + std::exp(-Score(w, row))) - Y(row)) / kRows;
      for (size_t i = 0; i < kAll; ++i) g[i] += d * X(row, i);
    }
    return g;
  }
};

// The largest element by which 0 misses the subdifferential of mean loss + l1 |w| + l2/2 w^2, biases left out.
double Violation(const std::vector<double>& w, double l1, double l2) {
  const std::vector<double> g = Logistic::Gradient(w);
  double worst = 0;
  for (size_t i = 0; i < kAll; ++i) {
    const double penalty = i < kWeights ? l1 : 0, smooth = g[i] + (i < kWeights ? l2 * w[i] : 0);
    const double miss = w[i] > 0   ? std::abs(smooth + penalty)
                        : w[i] < 0 ? std::abs(smooth - penalty)
                                   : std::max(0.0, std::abs(smooth) - penalty);
    worst = std::max(worst, miss);
  }
  return worst;
}

constexpr double kL2 = 1e-3f, kL1 = 1e-2f;

TEST(FullGradientMethodTest, LogisticRegressionToTheOptimum) {
  struct Case {
    const char* rule;
    double l1;
    int rounds;
  };
  for (const Case& c : {Case{"lbfgs { history: 10 }", 0, 150}, Case{"lbfgs { history: 3 }", 0, 200},
                        Case{"lbfgs { history: 10 l1: 0.01 }", kL1, 200}, Case{"newton_cg {}", 0, 200},
                        Case{"newton_cg { max_products: 5 forcing: 0.1 }", 0, 300}}) {
    SCOPED_TRACE(c.rule);
    Cluster cluster(c.rule, 1, kL2);
    const double before = Violation(cluster.Base(), c.l1, kL2);
    for (int i = 0; i < c.rounds; ++i) cluster.Round(Logistic::Gradient);
    const std::vector<double> w = cluster.Base();
    EXPECT_GT(before, 0.1);
    EXPECT_LT(Violation(w, c.l1, kL2), 3e-6);
    const auto zeros = std::count(w.begin(), w.begin() + kWeights, 0.0);
    if (c.l1 > 0) {
      EXPECT_GT(zeros, 10);
      EXPECT_LT(zeros, 48);
    } else {
      EXPECT_EQ(zeros, 0);
    }
  }
}

// In as many rounds as BFGS needs gradients, not those of steepest descent.
TEST(FullGradientMethodTest, FewRounds) {
  for (const char* rule : {"lbfgs { history: 20 }", "newton_cg {}"}) {
    SCOPED_TRACE(rule);
    Cluster cluster(rule, 1, kL2);
    int rounds = 0;
    while (Violation(cluster.Base(), 0, kL2) > 1e-4 && rounds < 1000) {
      cluster.Round(Logistic::Gradient);
      ++rounds;
    }
    EXPECT_LT(rounds, 90);
  }
}

// min over w of sum (w_i - c_i)^2 / 2 + l1 |w_i|: the soft threshold.
TEST(FullGradientMethodTest, SoftThresholdByOwlQn) {
  Cluster cluster("lbfgs { l1: 0.25 }", 2, 0);
  const auto gradient = [](const std::vector<double>& w) {
    std::vector<double> g(kAll);
    for (size_t i = 0; i < kAll; ++i) g[i] = w[i] - Draw(3, i);
    return g;
  };
  for (int i = 0; i < 60; ++i) cluster.Round(gradient);
  const std::vector<double> w = cluster.Base();
  for (size_t i = 0; i < kAll; ++i) {
    const double c = Draw(3, i), l1 = i < kWeights ? 0.25 : 0;
    EXPECT_NEAR(w[i], std::copysign(std::max(0.0, std::abs(c) - l1), c), 1e-5) << i;
  }
}

TEST(FullGradientMethodTest, SameBitsOnAnyNumberOfServersAndAfterARestore) {
  for (const char* rule : {"lbfgs { history: 4 }", "lbfgs { history: 4 l1: 0.01 }", "newton_cg {}"}) {
    SCOPED_TRACE(rule);
    Cluster one(rule, 1, kL2), three(rule, 3, kL2);
    for (int i = 0; i < 40; ++i) {
      one.Round(Logistic::Gradient);
      three.Round(Logistic::Gradient);
      ASSERT_EQ(one.Read(false), three.Read(false)) << "round " << i;
      ASSERT_EQ(one.Read(true), three.Read(true)) << "round " << i;
      if (i % 7 != 3) continue;
      Cluster restored(rule, 2, kL2), further(rule, 1, kL2);
      ASSERT_TRUE(restored.Install(three.Export()).ok());
      ASSERT_TRUE(further.Install(three.Export()).ok());
      for (int k = 0; k < 6; ++k) {
        restored.Round(Logistic::Gradient);
        further.Round(Logistic::Gradient);
      }
      ASSERT_EQ(restored.Read(false), further.Read(false));
      Cluster straight(rule, 1, kL2);
      for (int k = 0; k < i + 7; ++k) straight.Round(Logistic::Gradient);
      ASSERT_EQ(restored.Read(false), straight.Read(false)) << "restored after round " << i;
    }
  }
}

TEST(FullGradientMethodTest, AtTheOptimumItStays) {
  for (const char* rule : {"lbfgs {}", "newton_cg {}"}) {
    SCOPED_TRACE(rule);
    Cluster cluster(rule, 2, kL2);
    for (int i = 0; i < 600; ++i) cluster.Round(Logistic::Gradient);
    const std::vector<double> w = cluster.Base();
    for (int i = 0; i < 50; ++i) cluster.Round(Logistic::Gradient);
    const std::vector<double> later = cluster.Base();
    for (size_t i = 0; i < kAll; ++i) EXPECT_NEAR(w[i], later[i], 1e-4);
    EXPECT_LT(Violation(later, 0, kL2), 3e-6);
  }
}

TEST(FullGradientMethodTest, AStateThatIsNotItsOwnIsRefused) {
  Cluster cluster("lbfgs { history: 4 }", 1, 0);
  for (int i = 0; i < 5; ++i) cluster.Round(Logistic::Gradient);
  std::vector<BlockExport> images = cluster.Export();
  for (const auto& [change, message] : std::vector<std::pair<std::function<void(std::string*)>, std::string>>{
           {[](std::string* s) { s->pop_back(); }, "expected 67 finite numbers in 536 bytes, got 535 bytes"},
           {[](std::string* s) { s->clear(); }, "got 0 bytes"},
           {[](std::string* s) { s->replace(s->size() - 8, 8, std::string("\0\0\0\0\0\0\xf8\x7f", 8)); },
            "some of them not finite"}}) {
    Cluster other("lbfgs { history: 4 }", 1, 0);
    std::vector<BlockExport> bad = images;
    change(&bad[0].method);
    const absl::Status status = other.Install(bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(message));
  }
}

// phi(a) = cosh(a - 3): sizes too small and too large end between.
TEST(SlopeSearchTest, FindsASizeWithinTheBounds) {
  const auto slope = [](double a) { return std::sinh(a - 3); };
  for (double first : {1e-3, 0.1, 1.0, 2.9, 5.0, 9.0, 50.0}) {
    SlopeSearch search;
    search.Begin(first);
    SlopeSearch::Verdict verdict = SlopeSearch::Verdict::kAgain;
    int tries = 0;
    while (verdict == SlopeSearch::Verdict::kAgain) {
      verdict = search.Take(slope(search.size()) / slope(0));
      ++tries;
    }
    EXPECT_EQ(verdict, SlopeSearch::Verdict::kTaken) << first;
    const double ratio = slope(search.size()) / slope(0);
    EXPECT_TRUE(ratio >= -0.5 && ratio <= 0.9) << first << " " << ratio;
    EXPECT_LE(tries, 18) << first;
  }
}

TEST(SlopeSearchTest, GivesUpWhereNoSizeFits) {
  SlopeSearch search;
  search.Begin(1);
  int tries = 0;
  while (search.Take(1) == SlopeSearch::Verdict::kAgain) ASSERT_LT(++tries, 50);  // a straight line has no end
  search.Begin(1);
  EXPECT_EQ(search.Take(std::nan("")), SlopeSearch::Verdict::kGivenUp);
}

}  // namespace
}  // namespace descent
