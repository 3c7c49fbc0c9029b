#include "cli/job_arguments.h"

#include <filesystem>

#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/status_macros.h"
#include "common/job/job.h"
#include "common/saved_model/start_from.h"

namespace descent {

void JobArguments::AddTo(CLI::App* command) {
  command->add_option("job", file, "Job file: a JobSpec in protobuf text format")->required()->type_name("JOB");
  command
      ->add_option("--set", sets,
                   "Override a field, as optimizer.adam.beta1=0.8; may be repeated. Lists: model.mlp.hidden=256,128; "
                   "maps: data.train.csv.label_map[name]=1; groups: optimizer='{ sgd {} }'")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false)
      ->delimiter('\0');
  command->add_option("--servers", servers, "Number of servers (default: the job's cluster.servers, else 1)")
      ->type_name("N")
      ->check(CLI::Range(1u, 65536u));
  command->add_option("--workers", workers, "Number of worker processes (default: the job's cluster.workers, else 1)")
      ->type_name("M")
      ->check(CLI::Range(1u, 65536u));
}

absl::StatusOr<v1::JobSpec> JobArguments::Load() const {
  DESCENT_ASSIGN_OR_RETURN(v1::JobSpec job, ReadJobFile(file));
  std::error_code error;
  for (const std::string& set : sets) {
    const std::string before = job.data().root(), start = job.start_from();
    DESCENT_RETURN_IF_ERROR(OverrideJob(set, &job));
    const std::string root = job.data().root();
    if (root != before && !root.empty() && root[0] != '/') {
      job.mutable_data()->set_root(std::filesystem::absolute(root, error).lexically_normal().string());
    }
    if (job.start_from() != start && !job.start_from().empty()) {
      job.set_start_from(std::filesystem::absolute(job.start_from(), error).string());
    }
  }
  const std::filesystem::path folder = std::filesystem::absolute(file, error).parent_path();
  DESCENT_RETURN_IF_ERROR(ResolveJob(servers, workers, folder.string(), &job));
  DESCENT_RETURN_IF_ERROR(ResolveStartFrom(folder.string(), &job));
  if (job.has_data()) {
    job.mutable_data()->set_root(std::filesystem::path(job.data().root()).lexically_normal().string());
  }
  if (const absl::Status valid = ValidateJob(job); !valid.ok()) {
    const std::string message(valid.message());
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", absl::StrReplaceAll(message, {{"\n", absl::StrCat("\n", file, ": ")}})));
  }
  return job;
}

}  // namespace descent
