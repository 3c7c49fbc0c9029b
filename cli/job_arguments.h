// From a command line to a resolved, valid job.
#ifndef DESCENT_CLI_JOB_ARGUMENTS_H_
#define DESCENT_CLI_JOB_ARGUMENTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "absl/status/statusor.h"
#include "descent/v1/job.pb.h"

namespace descent {

struct JobArguments {
  std::string file;
  std::vector<std::string> sets;
  uint32_t servers = 0, workers = 0;  // 0: what the job says

  void AddTo(CLI::App* command);
  // Read, overridden, resolved, validated. A relative data.root or start_from starts at the job file's folder, one
  // given by
  // --set at the folder the command is run in. Errors are a line each, the file in front.
  absl::StatusOr<v1::JobSpec> Load() const;
};

}  // namespace descent

#endif  // DESCENT_CLI_JOB_ARGUMENTS_H_
