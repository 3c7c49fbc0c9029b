#include "cli/run_setup.h"

#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/job/job.h"

namespace descent {

namespace fs = std::filesystem;

absl::StatusOr<std::string> ProgramPath(const std::string& given, const char* name) {
  std::error_code error;
  const fs::path path =
      given.empty() ? fs::read_symlink("/proc/self/exe", error).parent_path() / name : fs::absolute(given, error);
  if (fs::is_directory(path, error) || access(path.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": there is no such program to start"));
  }
  return path.string();
}

std::string FreshRunPath(absl::string_view name) {
  std::error_code error;
  const std::string stem =
      absl::StrCat("runs/", name, "-", absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::LocalTimeZone()));
  std::string path = stem;
  for (int i = 2; fs::exists(path, error); ++i) path = absl::StrCat(stem, "-", i);
  return path;
}

absl::StatusOr<std::string> ClaimRunPath(const std::string& given, absl::string_view name, absl::string_view advice) {
  std::error_code error;
  const fs::path path = fs::absolute(given.empty() ? FreshRunPath(name) : given, error).lexically_normal();
  if (fs::exists(path, error) && !fs::is_directory(path, error)) {
    return absl::AlreadyExistsError(absl::StrCat("run directory ", path.string(), ": is not a folder"));
  }
  if (fs::exists(path, error) && !fs::is_empty(path, error)) {
    return absl::AlreadyExistsError(
        absl::StrCat("run directory ", path.string(), ": exists and is not empty; it is never overwritten", advice));
  }
  return path.string();
}

absl::StatusOr<std::string> MakeRunDirectory(const std::string& given, const v1::JobSpec& job) {
  DESCENT_ASSIGN_OR_RETURN(const std::string path,
                           ClaimRunPath(given, job.name(), " (a run in it goes on with --resume)"));
  DESCENT_RETURN_IF_ERROR(MakeDirs(path + "/logs"));
  DESCENT_RETURN_IF_ERROR(WriteFileAtomically(path + "/job.textproto", JobText(job)));
  return path;
}

SupervisorOptions OptionsOf(const v1::JobSpec& job, const std::string& run_dir, const std::string& server_binary,
                            const std::string& worker_binary) {
  SupervisorOptions options;
  options.server_binary = server_binary;
  options.worker_binary = worker_binary;
  options.run_dir = run_dir;
  options.servers = job.cluster().servers();
  options.workers = job.cluster().workers();
  options.start_timeout = absl::Seconds(job.cluster().start_timeout_seconds());
  options.save_timeout = absl::Seconds(job.cluster().stall_timeout_seconds());
  return options;
}

}  // namespace descent
