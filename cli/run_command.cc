// descent run JOB: a whole cluster on this machine.
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/commands.h"
#include "cli/display.h"
#include "cli/job_arguments.h"
#include "cli/supervisor.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/job/job.h"

namespace descent {
namespace {

namespace fs = std::filesystem;

struct RunArguments {
  JobArguments job;
  std::string run_dir, server_binary, worker_binary;
  uint32_t base_port = 0;
  bool plain = false;
};

// The binary given, else the one beside this program.
absl::StatusOr<std::string> Binary(const std::string& given, const char* name) {
  std::error_code error;
  const fs::path path =
      given.empty() ? fs::read_symlink("/proc/self/exe", error).parent_path() / name : fs::absolute(given, error);
  if (fs::is_directory(path, error) || access(path.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": there is no such program to start"));
  }
  return path.string();
}

// Made, with logs/ and job.textproto in it. ALREADY_EXISTS: it is there and not empty.
absl::StatusOr<std::string> MakeRunDirectory(const std::string& given, const v1::JobSpec& job) {
  std::error_code error;
  fs::path path(given);
  if (given.empty()) {
    const std::string stem =
        absl::StrCat("runs/", job.name(), "-", absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::LocalTimeZone()));
    path = stem;
    for (int i = 2; fs::exists(path, error); ++i) path = absl::StrCat(stem, "-", i);
  }
  path = fs::absolute(path, error).lexically_normal();
  if (fs::exists(path, error) && !fs::is_directory(path, error)) {
    return absl::AlreadyExistsError(absl::StrCat("run directory ", path.string(), ": is not a folder"));
  }
  if (fs::exists(path, error) && !fs::is_empty(path, error)) {
    return absl::AlreadyExistsError(
        absl::StrCat("run directory ", path.string(), ": exists and is not empty; it is never overwritten"));
  }
  DESCENT_RETURN_IF_ERROR(MakeDirs((path / "logs").string()));
  DESCENT_RETURN_IF_ERROR(WriteFileAtomically((path / "job.textproto").string(), JobText(job)));
  return path.string();
}

int Run(const RunArguments& arguments) {
  const auto job = arguments.job.Load();
  if (!job.ok()) return Complain(job.status(), 2);
  const auto server = Binary(arguments.server_binary, "descent_server");
  if (!server.ok()) return Complain(server.status(), 2);
  const auto worker = Binary(arguments.worker_binary, "descent_worker");
  if (!worker.ok()) return Complain(worker.status(), 2);
  if (arguments.base_port != 0 && arguments.base_port + job->cluster().servers() - 1 > 65535) {
    return Complain(absl::InvalidArgumentError(absl::StrCat("--base-port ", arguments.base_port, ": no room for ",
                                                            job->cluster().servers(), " ports up to 65535")),
                    2);
  }
  const auto run_dir = MakeRunDirectory(arguments.run_dir, *job);
  if (!run_dir.ok()) return Complain(run_dir.status(), 2);

  SupervisorOptions options;
  options.server_binary = *server;
  options.worker_binary = *worker;
  options.run_dir = *run_dir;
  options.servers = job->cluster().servers();
  options.workers = job->cluster().workers();
  options.base_port = arguments.base_port;
  options.start_timeout = absl::Seconds(job->cluster().start_timeout_seconds());
  options.save_timeout = absl::Seconds(job->cluster().stall_timeout_seconds());

  Display display = Display::StandardOutput(arguments.plain);
  std::string first =
      absl::StrCat("job ", job->name(), ": ", v1::Mode_Name(job->consistency().mode()), ", ", job->ranks(), " ranks");
  if (job->data().has_train()) {
    absl::StrAppend(&first, " x batch ", job->batch_size(), " = ", uint64_t{job->ranks()} * job->batch_size(),
                    " examples a round");
  }
  display.Message(first);
  display.Message(absl::StrCat("run directory ", *run_dir));
  return Supervisor(std::move(options), ConnectToCluster, &display).Run();
}

}  // namespace

void AddRunCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand(
      "run", "Train on a whole cluster on this machine. Ctrl-C saves the model and stops; a second one stops at once");
  auto arguments = std::make_shared<RunArguments>();
  arguments->job.AddTo(command);
  command
      ->add_option("--run-dir", arguments->run_dir,
                   "Where the run's files go (default: runs/<name>-<time>); must be new")
      ->type_name("DIR");
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
