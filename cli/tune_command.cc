// descent tune JOB: short trials of a job with other values of some fields, one after the other.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "cli/commands.h"
#include "cli/display.h"
#include "cli/job_arguments.h"
#include "cli/run_setup.h"
#include "cli/supervisor.h"
#include "cli/tune_plot.h"
#include "cli/tune_report.h"
#include "cli/tune_space.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"

namespace descent {
namespace {

struct TuneArguments {
  JobArguments job;
  TuneSpace space;
  std::string metric, out, server_binary, worker_binary;
  uint64_t rounds = 0;
  double epochs = 0;
};

// Blocks the signals that stop a run while it lives: one that comes between two trials waits, and is taken.
class HeldSignals {
 public:
  HeldSignals() {
    sigemptyset(&stops_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&stops_, signal);
    pthread_sigmask(SIG_BLOCK, &stops_, &before_);
  }
  ~HeldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  // 0: none has come.
  int Take() const {
    const timespec now = {};
    return std::max(0, sigtimedwait(&stops_, nullptr, &now));
  }

 private:
  sigset_t stops_, before_;
};

struct Planned {
  Trial trial;
  v1::JobSpec job;
};

// The jobs of all trials, each valid: a field that can't be set is told before anything runs.
absl::StatusOr<std::vector<Planned>> Plan(const TuneArguments& arguments, const std::string& folder) {
  DESCENT_ASSIGN_OR_RETURN(const std::vector<TrialFields> trials, TrialsOf(arguments.space));
  std::vector<Planned> out;
  for (const TrialFields& fields : trials) {
    JobArguments job = arguments.job;
    if (arguments.rounds > 0) job.sets.push_back(absl::StrCat("rounds=", arguments.rounds));
    if (arguments.epochs > 0) job.sets.push_back(absl::StrCat("epochs=", arguments.epochs));
    for (const auto& [path, value] : fields) job.sets.push_back(absl::StrCat(path, "=", value));
    absl::StatusOr<v1::JobSpec> loaded = job.Load();
    if (!loaded.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("trial ", FieldsText(fields, /*flags=*/false), ": ", loaded.status().message()));
    }
    Planned planned;
    planned.trial.number = static_cast<uint32_t>(out.size() + 1);
    planned.trial.fields = fields;
    planned.trial.run_dir = absl::StrFormat("%s/trial-%03d", folder, planned.trial.number);
    planned.job = *std::move(loaded);
    out.push_back(std::move(planned));
  }
  return out;
}

// Runs one to its end. Exit status as that of `descent run`.
absl::StatusOr<int> RunTrial(const TuneArguments& arguments, const std::string& metric, Planned* planned) {
  DESCENT_ASSIGN_OR_RETURN(const std::string server, ProgramPath(arguments.server_binary, "descent_server"));
  DESCENT_ASSIGN_OR_RETURN(const std::string worker, ProgramPath(arguments.worker_binary, "descent_worker"));
  Trial* trial = &planned->trial;
  DESCENT_ASSIGN_OR_RETURN(trial->run_dir, MakeRunDirectory(trial->run_dir, planned->job));
  Display::Options quiet;
  quiet.write = [](absl::string_view) {};
  Display display(std::move(quiet));
  const absl::Time began = absl::Now();
  const int status =
      Supervisor(OptionsOf(planned->job, trial->run_dir, server, worker), ConnectToCluster, &display).Run();
  trial->seconds = absl::ToDoubleSeconds(absl::Now() - began);
  trial->result = status == 0 ? "finished" : status == 1 ? "failed" : "stopped";
  if (const auto summary = ReadFile(trial->run_dir + "/summary.json"); summary.ok()) {
    ReadSummary(*summary, metric, trial);
  }
  return status;
}

absl::Status WriteTrials(const std::string& folder, const std::vector<Trial>& trials, const TuneMetric& metric) {
  std::string lines;
  for (const Trial& trial : trials) lines += TrialLine(trial, metric);
  DESCENT_RETURN_IF_ERROR(WriteFileAtomically(folder + "/trials.jsonl", lines));
  return WriteFileAtomically(folder + "/trials.svg", TunePlot(Ranked(trials, metric), metric));
}

void Say(absl::string_view line) {
  std::printf("%s\n", std::string(line).c_str());
  std::fflush(stdout);
}

void Conclude(const std::string& folder, const std::vector<Trial>& trials, const TuneMetric& metric) {
  const std::vector<Trial> ranked = Ranked(trials, metric);
  Say("");
  for (const std::string& line : TuneTable(ranked, metric)) Say(line);
  Say("");
  if (ranked[0].result == "finished" && ranked[0].value.has_value()) {
    Say(absl::StrFormat("best %s %.6g: %s", metric.name, *ranked[0].value,
                        FieldsText(ranked[0].fields, /*flags=*/true)));
  } else {
    Say(absl::StrCat("no trial has a value of ", metric.name));
  }
  Say(absl::StrCat("trials ", folder, "/trials.jsonl, plot ", folder, "/trials.svg"));
}

int Tune(const TuneArguments& arguments) {
  const HeldSignals signals;
  const auto base = arguments.job.Load();
  if (!base.ok()) return Complain(base.status(), 2);
  const auto folder = ClaimRunPath(arguments.out, absl::StrCat(base->name(), "-tune"));
  if (!folder.ok()) return Complain(folder.status(), 2);
  auto plan = Plan(arguments, *folder);
  if (!plan.ok()) return Complain(plan.status(), 2);
  const auto metric = MetricOf((*plan)[0].job, arguments.metric);
  if (!metric.ok()) return Complain(metric.status(), 2);
  if (const absl::Status made = MakeDirs(*folder); !made.ok()) return Complain(made, 2);

  Say(absl::StrCat("job ", base->name(), ": ", plan->size(), " trials, compared by ", metric->name, " (",
                   metric->more_is_better ? "more" : "less", " is better), in ", *folder));
  std::vector<Trial> done;
  int stopped = 0;
  for (Planned& planned : *plan) {
    stopped = signals.Take();
    if (stopped != 0) {
      stopped += 128;
      break;
    }
    const auto status = RunTrial(arguments, metric->name, &planned);
    if (!status.ok()) return Complain(status.status(), 1);
    done.push_back(planned.trial);
    const Trial& trial = done.back();
    std::string line = absl::StrCat("trial ", trial.number, ": ", FieldsText(trial.fields, /*flags=*/false), ": ");
    if (trial.result == "finished" && trial.value.has_value()) {
      absl::StrAppendFormat(&line, "%s %.6g", metric->name, *trial.value);
    } else {
      absl::StrAppend(&line, trial.result, trial.cause.empty() ? "" : ", ", trial.cause);
    }
    Say(absl::StrFormat("%s (%.1f s)", line, trial.seconds));
    // After each, so that nothing is lost with this process.
    if (const absl::Status written = WriteTrials(*folder, done, *metric); !written.ok()) return Complain(written, 1);
    if (*status > 1) {
      stopped = *status;
      break;
    }
  }
  if (!done.empty()) Conclude(*folder, done, *metric);
  if (stopped != 0) return stopped;
  for (const Trial& trial : done) {
    if (trial.result == "finished") return 0;
  }
  return 1;
}

}  // namespace

void AddTuneCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand(
      "tune",
      "Try values of some fields in short trials, one after the other: a table, trials.jsonl and a plot. Ctrl-C stops "
      "the trial under way and tells what there is");
  auto arguments = std::make_shared<TuneArguments>();
  arguments->job.AddTo(command);
  const auto fields = [&](const char* flag, std::vector<std::string>* values, const char* help, const char* type) {
    return command->add_option(flag, *values, help)->type_name(type)->allow_extra_args(false)->delimiter('\0');
  };
  fields("--grid", &arguments->space.grid,
         "Every combination of these values; may be repeated. With a | anywhere, that is between values",
         "PATH=VALUE,VALUE...");
  fields("--range", &arguments->space.range,
         "A range test: --trials values with equal ratios, as learning_rate.constant=1e-5..1", "PATH=LOW..HIGH");
  fields("--random", &arguments->space.random,
         "In each trial a value drawn uniformly, as optimizer.adam.beta1=0.8..0.99; may be repeated. Whole numbers "
         "between whole ones",
         "PATH=LOW..HIGH");
  fields("--random-log", &arguments->space.random_log, "Likewise with a uniform logarithm", "PATH=LOW..HIGH");
  command->add_option("--trials", arguments->space.trials, "Values of a range, or how often to draw (default: 10)")
      ->type_name("N")
      ->check(CLI::Range(1u, kMostTrials));
  command->add_option("--seed", arguments->space.seed, "Of what is drawn; the job's own seed stays as it is")
      ->type_name("S")
      ->capture_default_str();
  auto* rounds = command->add_option("--rounds", arguments->rounds, "Length of a trial (default: the job's)")
                     ->type_name("N")
                     ->check(CLI::PositiveNumber);
  command->add_option("--epochs", arguments->epochs, "The same in epochs")
      ->type_name("E")
      ->check(CLI::PositiveNumber)
      ->excludes(rounds);
  command
      ->add_option("--metric", arguments->metric,
                   "What trials are compared by, as summary.json names it (default: loss, else objective, else "
                   "training_loss)")
      ->type_name("NAME");
  command
      ->add_option("--out", arguments->out,
                   "Where trials.jsonl, trials.svg and the trials' run directories go (default: "
                   "runs/<name>-tune-<time>); must be new")
      ->type_name("DIR");
  command->add_option("--worker-binary", arguments->worker_binary, "A worker with models of your own")
      ->type_name("PATH");
  command->add_option("--server-binary", arguments->server_binary, "Instead of the descent_server beside this program")
      ->type_name("PATH");
  command->callback([arguments, exit_status] { *exit_status = Tune(*arguments); });
}

}  // namespace descent
