// What a run on this machine needs before its processes start.
#ifndef DESCENT_CLI_RUN_SETUP_H_
#define DESCENT_CLI_RUN_SETUP_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cli/supervisor.h"
#include "descent/v1/job.pb.h"

namespace descent {

// The program given, else the one of this name beside this one. NOT_FOUND: it can't be started.
absl::StatusOr<std::string> ProgramPath(const std::string& given, const char* name);

// "runs/<name>-<time>", or that with a number behind it: a folder that is not there.
std::string FreshRunPath(absl::string_view name);

// The folder given, else a fresh one; absolute. ALREADY_EXISTS: it is there and not empty; `advice` is told then.
absl::StatusOr<std::string> ClaimRunPath(const std::string& given, absl::string_view name,
                                         absl::string_view advice = "");

// Likewise, and made, with logs/ and job.textproto in it.
absl::StatusOr<std::string> MakeRunDirectory(const std::string& given, const v1::JobSpec& job);

// For a new run of a resolved job in a run directory that is made.
SupervisorOptions OptionsOf(const v1::JobSpec& job, const std::string& run_dir, const std::string& server_binary,
                            const std::string& worker_binary);

}  // namespace descent

#endif  // DESCENT_CLI_RUN_SETUP_H_
