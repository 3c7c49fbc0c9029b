#include "common/numerics/fingerprint.h"

#include <Eigen/Core>
#include <bit>
#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/strings/str_cat.h"

namespace descent {
namespace {

// FNV-1a, 64 bit (Fowler, Noll, Vo).
class Hash {
 public:
  void Bytes(absl::string_view text) {
    for (char c : text) Byte(static_cast<unsigned char>(c));
  }
  void Number(uint64_t value) {
    for (int i = 0; i < 8; ++i) Byte(static_cast<unsigned char>(value >> (8 * i)));
  }
  void Floats(const float* values, size_t n) {
    for (size_t i = 0; i < n; ++i) Number(std::bit_cast<uint32_t>(values[i]));
  }
  uint64_t value() const { return state_; }

 private:
  void Byte(unsigned char byte) { state_ = (state_ ^ byte) * 0x100000001b3ull; }
  uint64_t state_ = 0xcbf29ce484222325ull;
};

// Values in [-2, 2) of a linear congruential generator: only their spread matters.
class Values {
 public:
  float Next() {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<float>(static_cast<double>(state_ >> 40) * (4.0 / (1 << 24)) - 2.0);
  }

 private:
  uint64_t state_ = 0x9e3779b97f4a7c15ull;
};

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix Fill(Eigen::Index rows, Eigen::Index columns, Values* values) {
  Matrix m(rows, columns);
  for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = values->Next();
  return m;
}

uint64_t Probe() {
  Values values;
  Hash hash;
  // Longer than a panel in depth, and with remainders in every direction.
  const Matrix a = Fill(37, 601, &values), b = Fill(601, 53, &values);
  Matrix c(37, 53);
  c.noalias() = a * b;
  hash.Floats(c.data(), static_cast<size_t>(c.size()));

  constexpr size_t kCount = 1000;
  std::vector<float> x(kCount), y(kCount), m(kCount, 0.0f), v(kCount, 0.0f);
  for (float& value : x) value = values.Next();
  double sum = 0;
  for (size_t i = 0; i < kCount; ++i) {
    y[i] = std::exp(x[i] * 8);
    hash.Number(std::bit_cast<uint32_t>(y[i]));
    hash.Number(std::bit_cast<uint32_t>(std::tanh(x[i])));
    hash.Number(std::bit_cast<uint64_t>(std::exp(static_cast<double>(x[i]))));
    hash.Number(std::bit_cast<uint64_t>(std::log1p(static_cast<double>(y[i]))));
    hash.Number(std::bit_cast<uint64_t>(std::cos(static_cast<double>(x[i]))));
    hash.Number(std::bit_cast<uint64_t>(std::pow(0.1, static_cast<double>(x[i]))));
    sum += y[i];
  }
  hash.Number(std::bit_cast<uint64_t>(sum));

  // Adam (Kingma & Ba 2015), three steps: contraction of a product and a sum would show.
  for (int step = 1; step <= 3; ++step) {
    const float c1 = 1 - std::pow(0.9f, static_cast<float>(step)), c2 = 1 - std::pow(0.999f, static_cast<float>(step));
    for (size_t i = 0; i < kCount; ++i) {
      const float g = x[i] * 0.37f + 0.01f * y[i];
      m[i] = 0.9f * m[i] + 0.1f * g;
      v[i] = 0.999f * v[i] + 0.001f * g * g;
      x[i] -= 0.01f * (m[i] / c1) / (std::sqrt(v[i] / c2) + 1e-8f);
    }
  }
  hash.Floats(x.data(), kCount);
  return hash.value();
}

}  // namespace

void FixEigenCacheSizes() { Eigen::setCpuCacheSizes(32 << 10, 1 << 20, 32 << 20); }

NumericsFingerprint ComputeNumericsFingerprint(absl::string_view profile) {
  FixEigenCacheSizes();
  NumericsFingerprint fingerprint;
#ifdef __clang__
  const absl::string_view compiler = "clang";
#else
  const absl::string_view compiler = "gcc";
#endif
  Hash build;
  build.Bytes(absl::StrCat(DESCENT_VERSION, "|", compiler, "|", __VERSION__, "|", DESCENT_BUILD_FLAGS));
  fingerprint.build = absl::StrCat("descent ", DESCENT_VERSION, ", ", compiler, " ", __VERSION__, ", ",
                                   absl::Hex(build.value(), absl::kZeroPad16));
  fingerprint.instruction_set = DESCENT_MARCH;
  fingerprint.probe = Probe();
  if (!profile.empty()) {
    Hash mixed;
    mixed.Number(fingerprint.probe);
    mixed.Bytes(profile);
    fingerprint.probe = mixed.value();
  }
  return fingerprint;
}

}  // namespace descent
