// Early return on a status that is not OK.
#ifndef DESCENT_COMMON_BASE_STATUS_MACROS_H_
#define DESCENT_COMMON_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define DESCENT_RETURN_IF_ERROR(expression)                                                         \
  do {                                                                                              \
    if (absl::Status descent_status_ = (expression); !descent_status_.ok()) return descent_status_; \
  } while (false)

#define DESCENT_CONCAT_INNER_(a, b) a##b
#define DESCENT_CONCAT_(a, b) DESCENT_CONCAT_INNER_(a, b)
#define DESCENT_ASSIGN_OR_RETURN(lhs, expression) \
  DESCENT_ASSIGN_OR_RETURN_IMPL_(DESCENT_CONCAT_(descent_statusor_, __LINE__), lhs, expression)
#define DESCENT_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expression) \
  auto tmp = (expression);                                   \
  if (!tmp.ok()) return tmp.status();                        \
  lhs = std::move(tmp).value()

#endif  // DESCENT_COMMON_BASE_STATUS_MACROS_H_
