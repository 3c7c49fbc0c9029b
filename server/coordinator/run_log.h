// What the coordinator has to say to people, kept until its owner prints it. Pure; a value. Thread-safety: none.
#ifndef DESCENT_SERVER_COORDINATOR_RUN_LOG_H_
#define DESCENT_SERVER_COORDINATOR_RUN_LOG_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace descent {

struct LogLine {
  enum class Level { kInfo, kWarning, kError };
  absl::Time time;
  Level level = Level::kInfo;
  std::string text;
};

class RunLog {
 public:
  // Of the lines to come.
  void SetTime(absl::Time now) { now_ = now; }
  void Info(std::string text) { Add(LogLine::Level::kInfo, std::move(text)); }
  void Warning(std::string text) { Add(LogLine::Level::kWarning, std::move(text)); }
  void Error(std::string text) { Add(LogLine::Level::kError, std::move(text)); }
  void Add(LogLine::Level level, std::string text) { lines_.push_back(LogLine{now_, level, std::move(text)}); }

  std::vector<LogLine> Drain() { return std::exchange(lines_, {}); }

 private:
  absl::Time now_;
  std::vector<LogLine> lines_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_COORDINATOR_RUN_LOG_H_
