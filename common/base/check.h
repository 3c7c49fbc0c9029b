// DESCENT_CHECK: ends the process on a bug of our own, with place and text. Never for what comes from outside: that is
// an absl::Status.
#ifndef DESCENT_COMMON_BASE_CHECK_H_
#define DESCENT_COMMON_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

namespace descent::internal {
[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}
}  // namespace descent::internal

#define DESCENT_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::descent::internal::CheckFailed(__FILE__, __LINE__, #condition))

#endif  // DESCENT_COMMON_BASE_CHECK_H_
