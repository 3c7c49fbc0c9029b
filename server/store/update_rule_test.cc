#include "server/store/update_rule.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "gtest/gtest.h"
#include "server/store/kernels.h"
#include "server/store/rule_cases.h"

namespace descent {
namespace {

std::vector<std::string> Rules() {
  std::vector<std::string> rules = AllRules();
  rules.insert(rules.end(), LayerwiseRules().begin(), LayerwiseRules().end());
  return rules;
}

float Draw(uint64_t stream, uint64_t i) { return 2 * RandomStream(7, Purpose::kTest, stream, 0).Uniform(i) - 1; }

struct Model {
  std::vector<float> w;
  std::vector<std::vector<float>> state;
  std::vector<float*> pointers(size_t offset = 0) {
    std::vector<float*> out;
    for (auto& s : state) out.push_back(s.data() + offset);
    return out;
  }
};

Model MakeModel(const UpdateRule& rule, size_t n) {
  Model model;
  for (size_t i = 0; i < n; ++i) model.w.push_back(1 + Draw(1, i) / 2);
  for (int s = 0; s < rule.state_slots(); ++s) model.state.emplace_back(n, rule.initial_state(s));
  return model;
}

TEST(UpdateRule, BitsDoNotDependOnCutAlignmentOrPlace) {
  constexpr size_t kElements = 45;
  for (const std::string& kind : Rules()) {
    for (float l2 : {0.0f, 0.01f}) {
      auto rule = UpdateRule::Make(RuleCase(kind)).value();
      const Step step{3, 0.1f, 0.3f, l2};
      std::vector<float> g(kElements);
      for (size_t i = 0; i < kElements; ++i) g[i] = Draw(3, i);
      Model whole = MakeModel(*rule, kElements);
      rule->Apply(step, kElements, whole.w.data(), whole.w.data(), whole.pointers().data(), g.data());
      std::vector<char> bytes(kElements * sizeof(float) + 8);
      for (size_t shift = 0; shift < 8; ++shift) {
        std::memcpy(bytes.data() + shift, g.data(), kElements * sizeof(float));
        const auto* moved = reinterpret_cast<const float*>(bytes.data() + shift);
        for (size_t cut = 0; cut <= kElements; ++cut) {
          Model model = MakeModel(*rule, kElements);
          std::vector<float> out(kElements);
          rule->Apply(step, cut, model.w.data(), out.data(), model.pointers().data(), moved);
          rule->Apply(step, kElements - cut, model.w.data() + cut, out.data() + cut, model.pointers(cut).data(),
                      reinterpret_cast<const float*>(bytes.data() + shift + cut * sizeof(float)));
          ASSERT_EQ(0, std::memcmp(out.data(), whole.w.data(), kElements * sizeof(float))) << kind << " cut " << cut;
          for (size_t s = 0; s < model.state.size(); ++s) ASSERT_EQ(model.state[s], whole.state[s]);
        }
      }
      Model model = MakeModel(*rule, kElements);
      rule->Apply(step, kElements, model.w.data(), g.data(), model.pointers().data(), g.data());
      EXPECT_EQ(0, std::memcmp(g.data(), whole.w.data(), kElements * sizeof(float))) << kind << ": out is g";
    }
  }
}

TEST(UpdateRule, RowsAndReplayHaveTheBitsOfApply) {
  for (const std::string& kind : Rules()) {
    for (float l2 : {0.0f, 0.01f}) {
      for (size_t dim : {1, 3, 8, 13, 16, 64}) {
        auto rule = UpdateRule::Make(RuleCase(kind)).value();
        constexpr size_t kRows = 11;
        const size_t stride = dim * (1 + rule->state_slots());
        Model model = MakeModel(*rule, kRows * dim);
        std::vector<float> rows(kRows * stride);
        std::vector<float*> pointers;
        for (size_t r = 0; r < kRows; ++r) {
          pointers.push_back(rows.data() + r * stride);
          for (size_t i = 0; i < dim; ++i) {
            if (r == 4) model.w[r * dim + i] = 0;  // at rest
            if (r == 5) {                          // at 0, and yet its state moves
              model.w[r * dim + i] = 0;
              for (auto& state : model.state) state[r * dim + i] = 0.25f;
            }
            pointers[r][i] = model.w[r * dim + i];
            for (int s = 0; s < rule->state_slots(); ++s) pointers[r][(1 + s) * dim + i] = model.state[s][r * dim + i];
          }
        }
        std::vector<float> g(kRows * dim);
        std::vector<Step> missed;
        for (uint64_t t = 1; t <= 20; ++t) missed.push_back({t, 0.1f / t, 0.5f, l2});
        std::vector<uint32_t> first;
        for (uint32_t r = 0; r < kRows; ++r) first.push_back(2 * (r * 7 % kRows));  // in no order; one missed nothing
        for (size_t r = 0; r < kRows; ++r) {
          for (size_t k = first[r]; k < missed.size(); ++k) {
            rule->Apply(missed[k], dim, model.w.data() + r * dim, model.w.data() + r * dim,
                        model.pointers(r * dim).data(), g.data());
          }
        }
        std::vector<StepFactors> factors;
        for (const Step& step : missed) factors.push_back(rule->Prepare(step));
        rule->Replay(factors, dim, kRows, pointers.data(), first.data());
        for (size_t i = 0; i < g.size(); ++i) g[i] = Draw(5, i);
        const Step step{21, 0.1f, 0.5f, l2};
        rule->Apply(step, g.size(), model.w.data(), model.w.data(), model.pointers().data(), g.data());
        rule->ApplyRows(step, dim, kRows, pointers.data(), g.data());
        for (size_t r = 0; r < kRows; ++r) {
          ASSERT_EQ(0, std::memcmp(pointers[r], model.w.data() + r * dim, dim * sizeof(float))) << kind << dim << r;
          for (int s = 0; s < rule->state_slots(); ++s) {
            ASSERT_EQ(0,
                      std::memcmp(pointers[r] + (1 + s) * dim, model.state[s].data() + r * dim, dim * sizeof(float)));
          }
        }
      }
    }
  }
}

TEST(UpdateRule, IdleMeansIdle) {
  for (const std::string& kind : Rules()) {
    auto rule = UpdateRule::Make(RuleCase(kind)).value();
    Model model = MakeModel(*rule, 5);
    std::vector<float> g(5, 1.0f);
    rule->Apply({1, 0.1f, 1, 0}, 5, model.w.data(), model.w.data(), model.pointers().data(), g.data());
    model.w.assign(5, 1.5f);  // outside of every box
    const Model before = model;
    std::fill(g.begin(), g.end(), 0.0f);
    rule->Apply({2, 0.1f, 1, 0}, 5, model.w.data(), model.w.data(), model.pointers().data(), g.data());
    EXPECT_EQ(rule->idle_without_gradient(), before.w == model.w && before.state == model.state) << kind;
  }
}

TEST(UpdateRule, TensorsThatAreNotDecayedHaveNoPenalty) {
  const auto after_a_step = [](const UpdateRule& rule) {
    Model model = MakeModel(rule, 5);
    const std::vector<float> g(5, 1.0f);
    rule.Apply({1, 0.1f, 1, 0}, 5, model.w.data(), model.w.data(), model.pointers().data(), g.data());
    return model.w;
  };
  for (const std::string& kind : ProximalRules()) {
    const auto rule = UpdateRule::Make(RuleCase(kind)).value();
    v1::Optimizer plain = RuleCase(kind);
    plain.clear_proximal();
    EXPECT_TRUE(rule->proximal());
    EXPECT_FALSE(rule->unpenalized().proximal());
    EXPECT_EQ(after_a_step(rule->unpenalized()), after_a_step(*UpdateRule::Make(plain).value())) << kind;
    EXPECT_NE(after_a_step(*rule), after_a_step(rule->unpenalized())) << kind;
  }
  const auto ftrl = UpdateRule::Make(RuleCase("ftrl { l1: 0.02 l2: 0.1 }")).value();
  EXPECT_EQ(after_a_step(ftrl->unpenalized()), after_a_step(*UpdateRule::Make(RuleCase("ftrl {}")).value()));
  EXPECT_NE(after_a_step(*ftrl), after_a_step(ftrl->unpenalized()));
}

TEST(UpdateRule, RefusesByName) {
  const auto error = [](const std::string& spec) {
    const absl::Status status = UpdateRule::Make(RuleCase(spec)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << spec;
    return std::string(status.message());
  };
  EXPECT_EQ(error("momentum { momentum: 1 }"), "optimizer.momentum.momentum: 1 is not from 0 to below 1");
  EXPECT_EQ(error("momentum { momentum: 0.999999999999 }"),
            "optimizer.momentum.momentum: 1 is 1 in float32, and not below");
  EXPECT_EQ(error("adam { beta2: -0.1 epsilon: 1e-60 }"),
            "optimizer.adam.beta2: -0.1 is not from 0 to below 1\noptimizer.adam.epsilon: 1e-60 is beyond float32");
  EXPECT_EQ(error("adagrad { initial_accumulator: nan }"),
            "optimizer.adagrad.initial_accumulator: nan is not a finite number");
  EXPECT_EQ(UpdateRule::Make(v1::Optimizer()).value()->state_slots(), 0);
}

TEST(Kernels, SquareSumDoesNotDependOnCutOrAlignment) {
  constexpr size_t kElements = 61;
  std::vector<float> x(kElements);
  for (size_t i = 0; i < kElements; ++i) x[i] = Draw(6, i);
  SquareSum whole;
  whole.Add(0, kElements, x.data(), 0.7f);
  double plain = 0;
  for (float v : x) plain += double{v * 0.7f} * double{v * 0.7f};
  EXPECT_NEAR(whole.sum(), plain, 1e-12 * plain);
  std::vector<char> bytes(kElements * sizeof(float) + 8);
  for (size_t shift = 0; shift < 8; ++shift) {
    std::memcpy(bytes.data() + shift, x.data(), kElements * sizeof(float));
    for (size_t cut = 0; cut <= kElements; ++cut) {
      SquareSum sum;
      sum.Add(0, cut, reinterpret_cast<const float*>(bytes.data() + shift), 0.7f);
      sum.Add(cut, kElements - cut, reinterpret_cast<const float*>(bytes.data() + shift + 4 * cut), 0.7f);
      ASSERT_EQ(sum.sum(), whole.sum());
    }
  }
}

TEST(Kernels, AllFiniteSeesEveryPlace) {
  for (float bad : {std::nanf(""), -std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    for (size_t at = 0; at < 40; ++at) {
      std::vector<float> x(40, -3.0e38f);
      EXPECT_TRUE(AllFinite(40, x.data()));
      x[at] = bad;
      EXPECT_FALSE(AllFinite(40, x.data()));
    }
  }
}

}  // namespace
}  // namespace descent
