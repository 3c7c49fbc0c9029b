// The numbers that a method has learned, as bytes of a cut: little-endian doubles. Stateless.
#ifndef DESCENT_SERVER_STORE_METHOD_STATE_H_
#define DESCENT_SERVER_STORE_METHOD_STATE_H_

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace descent {

// `visit(f)` calls f(double&) for each number, always in the same order.
template <typename Visit>
std::string SaveNumbers(Visit&& visit) {
  std::string out;
  visit([&](double& number) { out.append(reinterpret_cast<const char*>(&number), sizeof(number)); });
  return out;
}

// INVALID_ARGUMENT: not as many, or some that are none; numbers may have changed.
template <typename Visit>
absl::Status LoadNumbers(absl::string_view name, absl::string_view bytes, Visit&& visit) {
  size_t count = 0;
  bool good = true;
  visit([&](double& number) {
    if ((count + 1) * sizeof(number) <= bytes.size()) {
      std::memcpy(&number, bytes.data() + count * sizeof(number), sizeof(number));
      good &= std::isfinite(number);
    }
    ++count;
  });
  if (good && count * sizeof(double) == bytes.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the state of ", name, ": expected ", count, " finite numbers in ",
                                                 count * sizeof(double), " bytes, got ", bytes.size(), " bytes",
                                                 good ? "" : ", some of them not finite"));
}

}  // namespace descent

#endif  // DESCENT_SERVER_STORE_METHOD_STATE_H_
