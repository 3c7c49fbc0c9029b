// Elementary functions written so that a loop over them vectorises and an element's bits depend on that element alone:
// no libm (whose variants differ by processor), no contraction, no special first or last elements. Not installed.
//
// Exp and Tanh of a float follow Cephes' expf.c and tanhf.c (S. L. Moshier, netlib.org/cephes): range reduction by
// ln 2 in two parts, minimax polynomials; at most 2 ulp off, as the tests show. The double forms serve the gradient
// checker, never a trained parameter, and call libm. NaN in gives NaN out everywhere: a bad gradient must stay visible.
#ifndef DESCENT_WORKER_MODELS_INTERNAL_ELEMENTWISE_H_
#define DESCENT_WORKER_MODELS_INTERNAL_ELEMENTWISE_H_

#include <bit>
#include <cmath>
#include <cstdint>

namespace descent::internal {

// Below -87.33 the result stays at the smallest normal number, above 88.37 at about 2.4e38: never 0, never Inf.
inline float Exp(float x) {
  x = x < -87.33f ? -87.33f : x;
  x = x > 88.37f ? 88.37f : x;
  // 1.5 * 2^23: adding it rounds to the nearest integer, which is then also in the low bits.
  constexpr float kShift = 12582912.0f;
  const float shifted = x * 1.44269504088896341f + kShift;
  const float n = shifted - kShift;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float value = (p * (r * r) + r) + 1.0f;
  const float scale = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) + 127u) << 23);
  return value * scale;
}
inline double Exp(double x) { return std::exp(x); }

inline float Tanh(float x) {
  const float a = std::fabs(x);
  const float s = x * x;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const float small = p * s * x + x;
  const float large = std::copysign(1.0f - 2.0f / (Exp(2.0f * a) + 1.0f), x);
  return a < 0.625f ? small : large;
}
inline double Tanh(double x) { return std::tanh(x); }

template <typename T>
inline T Sigmoid(T z) {
  const T e = Exp(-std::fabs(z));
  const T top = z < T(0) ? e : T(1);
  return top / (T(1) + e);
}

// log(1 + u), 0 <= u <= 1, as 2 atanh(u / (2 + u)) by its series; s <= 1/3 makes the 18th term < 2^-53.
inline double LogOnePlus(double u) {
  const double s = u / (2.0 + u);
  const double q = s * s;
  double sum = 1.0 / 35;
  for (int k = 33; k >= 1; k -= 2) sum = sum * q + 1.0 / k;
  return 2.0 * s * sum;
}

// log(x) for a normal positive x: exponent, and the same series on a mantissa in [sqrt(1/2), sqrt(2)). NaN and Inf give
// NaN or Inf.
inline double Log(double x) {
  if (!(x <= 1.7976931348623157e308)) return x;
  int exponent;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double q = s * s;
  double sum = 1.0 / 23;
  for (int k = 21; k >= 1; k -= 2) sum = sum * q + 1.0 / k;
  // ln 2 in two parts: the product with the upper one is exact.
  return exponent * 6.93147180369123816490e-01 + (2.0 * s * sum + exponent * 1.90821492927058770002e-10);
}

}  // namespace descent::internal

#endif  // DESCENT_WORKER_MODELS_INTERNAL_ELEMENTWISE_H_
