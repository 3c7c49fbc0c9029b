#include "server/store/update_rule.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "descent/v1/job.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/store/kernels.h"

namespace descent {
namespace {

using ::testing::HasSubstr;

v1::Optimizer Spec(const std::string& kind) {
  v1::Optimizer spec;
  if (kind == "sgd") spec.mutable_sgd();
  if (kind == "momentum") spec.mutable_momentum()->set_momentum(0.9);
  if (kind == "adagrad") spec.mutable_adagrad()->set_initial_accumulator(0.1);
  if (kind == "adam") spec.mutable_adam();
  return spec;
}

const std::vector<std::string>& Kinds() {
  static const std::vector<std::string>* const kinds =
      new std::vector<std::string>{"sgd", "momentum", "adagrad", "adam"};
  return *kinds;
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

// Written from the formulas of update_rule.h, in double throughout.
class Reference {
 public:
  Reference(std::string kind, double w) : kind_(std::move(kind)), w_(w), a_(kind_ == "adagrad" ? 0.1 : 0) {}
  void Step(int t, double rate, double scale, double l2, double g) {
    const double d = g * scale + l2 * w_;
    if (kind_ == "sgd") w_ -= rate * d;
    if (kind_ == "momentum") {
      a_ = 0.9 * a_ + d;
      w_ -= rate * a_;
    }
    if (kind_ == "adagrad") {
      a_ += d * d;
      w_ -= rate * d / (std::sqrt(a_) + 1e-10);
    }
    if (kind_ == "adam") {
      a_ = 0.9 * a_ + (1 - 0.9) * d;
      b_ = 0.999 * b_ + (1 - 0.999) * d * d;
      w_ -= rate * (a_ / (1 - std::pow(0.9, t))) / (std::sqrt(b_ / (1 - std::pow(0.999, t))) + 1e-8);
    }
  }
  double w() const { return w_; }

 private:
  std::string kind_;
  double w_, a_, b_ = 0;
};

TEST(UpdateRule, ThousandStepsAgreeWithFloat64) {
  constexpr size_t kElements = 37;
  for (const std::string& kind : Kinds()) {
    for (float l2 : {0.0f, 0.01f}) {
      auto rule = UpdateRule::Make(Spec(kind)).value();
      Model model = MakeModel(*rule, kElements);
      std::vector<Reference> reference;
      for (float w : model.w) reference.emplace_back(kind, w);
      std::vector<float> g(kElements);
      for (int t = 1; t <= 1000; ++t) {
        // A fixed gradient per element, of changing size: the parameters move far away from zero.
        for (size_t i = 0; i < kElements; ++i) g[i] = -std::fabs(Draw(2, i)) - 0.1f * Draw(100 + t, i) - 0.2f;
        const Step step{static_cast<uint64_t>(t), 0.01f, 0.25f, l2};
        rule->Apply(step, kElements, model.w.data(), model.w.data(), model.pointers().data(), g.data());
        for (size_t i = 0; i < kElements; ++i) reference[i].Step(t, 0.01f, 0.25, l2, g[i]);
      }
      for (size_t i = 0; i < kElements; ++i) {
        EXPECT_NEAR(model.w[i], reference[i].w(), 1e-5 * std::fabs(reference[i].w())) << kind << " l2 " << l2;
      }
    }
  }
}

TEST(UpdateRule, BitsDoNotDependOnCutAlignmentOrPlace) {
  constexpr size_t kElements = 45;
  for (const std::string& kind : Kinds()) {
    for (float l2 : {0.0f, 0.01f}) {
      auto rule = UpdateRule::Make(Spec(kind)).value();
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
  for (const std::string& kind : Kinds()) {
    for (float l2 : {0.0f, 0.01f}) {
      for (size_t dim : {1, 3, 8, 13, 16, 64}) {
        auto rule = UpdateRule::Make(Spec(kind)).value();
        constexpr size_t kRows = 11;
        const size_t stride = dim * (1 + rule->state_slots());
        Model model = MakeModel(*rule, kRows * dim);
        std::vector<float> rows(kRows * stride);
        std::vector<float*> pointers;
        for (size_t r = 0; r < kRows; ++r) {
          pointers.push_back(rows.data() + r * stride);
          for (size_t i = 0; i < dim; ++i) {
            if (r == 4) model.w[r * dim + i] = 0;  // at rest
            pointers[r][i] = model.w[r * dim + i];
            for (int s = 0; s < rule->state_slots(); ++s) pointers[r][(1 + s) * dim + i] = rule->initial_state(s);
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
  for (const std::string& kind : Kinds()) {
    auto rule = UpdateRule::Make(Spec(kind)).value();
    Model model = MakeModel(*rule, 5);
    std::vector<float> g(5, 1.0f);
    rule->Apply({1, 0.1f, 1, 0}, 5, model.w.data(), model.w.data(), model.pointers().data(), g.data());
    const Model before = model;
    std::fill(g.begin(), g.end(), 0.0f);
    rule->Apply({2, 0.1f, 1, 0}, 5, model.w.data(), model.w.data(), model.pointers().data(), g.data());
    EXPECT_EQ(rule->idle_without_gradient(), before.w == model.w && before.state == model.state) << kind;
  }
}

TEST(UpdateRule, RefusesByName) {
  v1::Optimizer spec;
  spec.mutable_momentum()->set_momentum(1);
  EXPECT_THAT(UpdateRule::Make(spec).status().message(),
              HasSubstr("optimizer.momentum.momentum: expected a number of [0, 1), got 1"));
  spec.mutable_adam()->set_beta2(-0.1);
  EXPECT_THAT(UpdateRule::Make(spec).status().message(), HasSubstr("optimizer.adam.beta2"));
  spec.mutable_adam()->set_beta2(0.9);
  spec.mutable_adam()->set_epsilon(1e-60);
  EXPECT_THAT(UpdateRule::Make(spec).status().message(), HasSubstr("optimizer.adam.epsilon"));
  spec.mutable_adagrad()->set_initial_accumulator(std::nan(""));
  EXPECT_THAT(UpdateRule::Make(spec).status().message(), HasSubstr("optimizer.adagrad.initial_accumulator"));
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
