// descent run JOB: a whole cluster on this machine.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/commands.h"
#include "cli/display.h"
#include "cli/job_arguments.h"
#include "cli/run_setup.h"
#include "cli/supervisor.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/job/local_training_spec.h"

namespace descent {
namespace {

namespace fs = std::filesystem;

struct RunArguments {
  JobArguments job;
  std::string run_dir, server_binary, worker_binary;
  uint32_t base_port = 0;
  uint32_t max_restarts = RestartBudget::Options().most;
  bool resume = false;
  bool plain = false;
};

// The lines of the job that decide what is trained.
std::vector<std::string> Deciding(v1::JobSpec job) {
  job.clear_cluster();
  job.clear_limits();
  job.clear_checkpoint();
  if (job.has_data()) {
    job.mutable_data()->clear_root();
    job.mutable_data()->clear_cache_bytes();
    job.mutable_data()->clear_cache_dir();
  }
  return absl::StrSplit(JobText(job), '\n');
}

// What a run that goes on takes from its beginning where neither the job file nor the command line says otherwise: how
// many servers and workers, and the ranks, whose default would follow the workers.
void TakeDefaults(const v1::JobSpec& before, JobArguments* arguments) {
  const auto now = ReadJobFile(arguments->file);
  if (!now.ok()) return;  // Load says so
  if (now->ranks() == 0) arguments->sets.insert(arguments->sets.begin(), absl::StrCat("ranks=", before.ranks()));
  if (arguments->servers == 0 && now->cluster().servers() == 0) arguments->servers = before.cluster().servers();
  if (arguments->workers == 0 && now->cluster().workers() == 0) arguments->workers = before.cluster().workers();
}

// The folder of a run that is to go on, and its job: NOT_FOUND, there is none; FAILED_PRECONDITION, it is another job.
absl::StatusOr<std::string> RunDirectoryToResume(const std::string& given, JobArguments* arguments) {
  std::error_code error;
  const fs::path path = fs::absolute(given, error).lexically_normal();
  const std::string file = (path / "job.textproto").string();
  if (!fs::is_regular_file(file, error)) {
    return absl::NotFoundError(
        absl::StrCat("run directory ", path.string(), ": holds no run to resume (no job.textproto)"));
  }
  const absl::StatusOr<std::string> summary = ReadFile((path / "summary.json").string());
  if (summary.ok() && absl::StrContains(*summary, "\"result\": \"FINISHED\"")) {
    return absl::FailedPreconditionError(
        absl::StrCat("run directory ", path.string(), ": the run has reached its end, there is nothing to go on with"));
  }
  DESCENT_ASSIGN_OR_RETURN(const v1::JobSpec before, ReadJobFile(file));
  TakeDefaults(before, arguments);
  DESCENT_ASSIGN_OR_RETURN(const v1::JobSpec now, arguments->Load());
  if (JobFingerprint(now) != JobFingerprint(before)) {
    const std::vector<std::string> ours = Deciding(now), theirs = Deciding(before);
    const auto [a, b] = std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end());
    return absl::FailedPreconditionError(
        absl::StrCat(arguments->file, ": not the job that ", path.string(), " began with: expected '",
                     b == theirs.end() ? "" : absl::StripAsciiWhitespace(*b), "', got '",
                     a == ours.end() ? "" : absl::StripAsciiWhitespace(*a), "'"));
  }
  DESCENT_RETURN_IF_ERROR(MakeDirs((path / "logs").string()));
  if (now.checkpoint().path() != before.checkpoint().path()) {
    return absl::FailedPreconditionError(absl::StrCat("checkpoint.path: '", now.checkpoint().path(),
                                                      "', but the run's ", "checkpoints are in '",
                                                      before.checkpoint().path(), "'"));
  }
  // A run without a summary has not ended: that is what its coordinator goes by. Of the one before, the model stays
  // until there is another.
  if (summary.ok()) fs::rename(path / "summary.json", path / "summary.before.json", error);
  return path.string();
}

int Run(RunArguments arguments) {
  std::string resumed;
  if (arguments.resume) {
    const auto there = RunDirectoryToResume(arguments.run_dir, &arguments.job);
    if (!there.ok()) return Complain(there.status(), 2);
    resumed = *there;
  }
  const auto job = arguments.job.Load();
  if (!job.ok()) return Complain(job.status(), 2);
  const auto server = ProgramPath(arguments.server_binary, "descent_server");
  if (!server.ok()) return Complain(server.status(), 2);
  const auto worker = ProgramPath(arguments.worker_binary, "descent_worker");
  if (!worker.ok()) return Complain(worker.status(), 2);
  if (arguments.base_port != 0 && arguments.base_port + job->cluster().servers() - 1 > 65535) {
    return Complain(absl::InvalidArgumentError(absl::StrCat("--base-port ", arguments.base_port, ": no room for ",
                                                            job->cluster().servers(), " ports up to 65535")),
                    2);
  }
  const auto run_dir = arguments.resume ? resumed : MakeRunDirectory(arguments.run_dir, *job);
  if (!run_dir.ok()) return Complain(run_dir.status(), 2);

  // What does not decide what is trained may be said anew: where the data are, limits, timeouts.
  if (arguments.resume) {
    const absl::Status said = WriteFileAtomically((fs::path(*run_dir) / "job.textproto").string(), JobText(*job));
    if (!said.ok()) return Complain(said, 1);
  }

  SupervisorOptions options = OptionsOf(*job, *run_dir, *server, *worker);
  options.resume = arguments.resume;
  options.restarts.most = arguments.max_restarts;
  options.base_port = arguments.base_port;

  Display display = Display::StandardOutput(arguments.plain);
  std::string first =
      absl::StrCat("job ", job->name(), ": ", v1::Mode_Name(job->consistency().mode()), ", ", job->ranks(), " ranks");
  if (job->data().has_train()) {
    if (TakesFullGradient(job->optimizer())) {
      absl::StrAppend(&first, ", all examples in each round");
    } else {
      if (job->has_local_training()) absl::StrAppend(&first, " x ", job->local_training().steps(), " steps");
      absl::StrAppend(&first, " x batch ", job->batch_size(), " = ", job->ranks() * RowsPerClock(*job),
                      " examples a round");
    }
  }
  display.Message(first);
  display.Message(absl::StrCat(arguments.resume ? "resuming run directory " : "run directory ", *run_dir));
  return Supervisor(std::move(options), ConnectToCluster, &display).Run();
}

}  // namespace

void AddRunCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand(
      "run", "Train on a whole cluster on this machine. Ctrl-C saves the model and stops; a second one stops at once");
  auto arguments = std::make_shared<RunArguments>();
  arguments->job.AddTo(command);
  auto* run_dir =
      command
          ->add_option("--run-dir", arguments->run_dir,
                       "Where the run's files go (default: runs/<name>-<time>); must be new, but for --resume")
          ->type_name("DIR");
  command
      ->add_flag("--resume", arguments->resume,
                 "Go on with the run in --run-dir from its last checkpoint; servers and workers may be more or fewer")
      ->needs(run_dir);
  command
      ->add_option("--max-restarts", arguments->max_restarts,
                   "How many times in all to start processes again that crashed")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--worker-binary", arguments->worker_binary, "A worker with models of your own")
      ->type_name("PATH");
  command->add_option("--server-binary", arguments->server_binary, "Instead of the descent_server beside this program")
      ->type_name("PATH");
  command->add_option("--base-port", arguments->base_port, "Server i listens on P + i (default: any free port)")
      ->type_name("P")
      ->check(CLI::Range(1u, 65535u));
  command->add_flag("--plain", arguments->plain, "Plain lines, on a terminal too");
  command->callback([arguments, exit_status] { *exit_status = Run(*arguments); });
}

}  // namespace descent
