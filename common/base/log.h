// A line of a process's log, on standard output: time of day, who, what. Thread-safe: one write per line.
#ifndef DESCENT_COMMON_BASE_LOG_H_
#define DESCENT_COMMON_BASE_LOG_H_

#include <cstdio>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace descent {

class Logger {
 public:
  // `who`: "server 0", "worker on host a".
  explicit Logger(std::string who) : who_(std::move(who)) {}
  void Log(absl::string_view text) const {
    const std::string line =
        absl::StrCat(absl::FormatTime("%H:%M:%E3S", absl::Now(), absl::LocalTimeZone()), " ", who_, ": ", text, "\n");
    std::fwrite(line.data(), 1, line.size(), stdout);
    std::fflush(stdout);
  }

 private:
  std::string who_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_BASE_LOG_H_
