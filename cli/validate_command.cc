// descent validate JOB: the job checked, and printed as resolved.
#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/job_arguments.h"
#include "common/job/job.h"

namespace descent {

void AddValidateCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand("validate", "Check a job file and print it as resolved");
  auto arguments = std::make_shared<JobArguments>();
  arguments->AddTo(command);
  command->callback([arguments, exit_status] {
    const auto job = arguments->Load();
    if (!job.ok()) {
      *exit_status = Complain(job.status(), 2);
      return;
    }
    std::fputs(JobText(*job).c_str(), stdout);
  });
}

}  // namespace descent
