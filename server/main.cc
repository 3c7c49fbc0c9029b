// One server of a Descent cluster. With --job it is the first one and hosts the coordinator; with --coordinator it
// joins.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/stop_signals.h"
#include "common/base/time_source.h"
#include "common/control/control_client.h"
#include "common/files/file.h"
#include "common/job/job.h"
#include "common/net/endpoint.h"
#include "common/net/process_settings.h"
#include "common/saved_model/start_from.h"
#include "server/process/coordinator_runner.h"
#include "server/process/local_address.h"
#include "server/process/run_directory.h"
#include "server/process/server_member.h"
#include "server/rpc/rpc_server.h"

namespace descent {
namespace {

struct Flags {
  std::string job;
  std::vector<std::string> set;
  uint32_t servers = 0;
  uint32_t peers = 0;
  uint32_t workers = 0;
  std::string run_dir;
  std::string coordinator;
  std::string bind;
  std::string advertise;
  std::string port_file;
  uint64_t memory_bytes = 0;
  std::string numerics_profile;
  double wait_seconds = 600;
  bool no_reflection = false;
  bool no_local_sockets = false;
  bool resume = false;
  std::string checkpoint_dir;
};

constexpr int kUsage = 2;

int Complain(const absl::Status& status, int code) {
  std::fprintf(stderr, "descent_server: %s\n", std::string(status.message()).c_str());
  return code;
}

bool IsWildcard(const std::string& host) { return host.empty() || host == "0.0.0.0" || host == "::"; }

std::string HostName() {
  char name[256] = "unknown";
  gethostname(name, sizeof name - 1);
  return name;
}

absl::StatusOr<v1::JobSpec> LoadJob(const Flags& flags) {
  DESCENT_ASSIGN_OR_RETURN(v1::JobSpec job, ReadJobFile(flags.job));
  for (const std::string& assignment : flags.set) DESCENT_RETURN_IF_ERROR(OverrideJob(assignment, &job));
  uint32_t servers = flags.servers > 0 ? flags.servers : job.cluster().servers();
  if (flags.peers > 0) servers = flags.peers + 1;
  const uint32_t workers = flags.workers > 0 ? flags.workers : job.cluster().workers();
  const size_t slash = flags.job.rfind('/');
  const std::string job_dir = slash == std::string::npos ? "." : flags.job.substr(0, slash);
  DESCENT_RETURN_IF_ERROR(ResolveJob(std::max(1u, servers), std::max(1u, workers), job_dir, &job));
  DESCENT_RETURN_IF_ERROR(ResolveStartFrom(job_dir, &job));
  DESCENT_RETURN_IF_ERROR(ValidateJob(job));
  return job;
}

// Where to bind when nothing was said: the first server on loopback, others where the coordinator can reach them.
absl::StatusOr<Endpoint> BindEndpoint(const Flags& flags) {
  if (!flags.bind.empty()) return ParseEndpoint(flags.bind, Endpoint{"0.0.0.0", 0});
  if (flags.coordinator.empty()) return Endpoint{"127.0.0.1", 7000};
  DESCENT_ASSIGN_OR_RETURN(std::string host, LocalAddressTowards(flags.coordinator));
  return Endpoint{std::move(host), 0};
}

absl::StatusOr<std::string> Advertised(const Flags& flags, const Endpoint& bind, uint16_t port) {
  if (!flags.advertise.empty()) {
    DESCENT_ASSIGN_OR_RETURN(const Endpoint given, ParseEndpoint(flags.advertise, Endpoint{"", port}));
    return given.ToString();
  }
  if (!IsWildcard(bind.host)) return Endpoint{bind.host, port}.ToString();
  // Any address outside tells which of this host's addresses others see (TEST-NET-1, RFC 5737; nothing is sent).
  const std::string peer = flags.coordinator.empty() ? "192.0.2.1:9" : flags.coordinator;
  absl::StatusOr<std::string> host = LocalAddressTowards(peer);
  return Endpoint{host.ok() ? *host : "127.0.0.1", port}.ToString();
}

// Names this run among all: runs that meet on one address must not be mistaken for each other.
RunId NewRunId() {
  std::random_device device;
  return RunId((uint64_t{device()} << 32) | device());
}

struct Beginning {
  v1::JobSpec job;
  RunId run;
  bool resumed = false;
  std::optional<RunDirectory::Resumed::End> end;
  std::unique_ptr<RunDirectory> directory;
};

// A new run, or with --resume the one in the run directory if there is one: so one command serves for the first start
// and for every restart.
absl::StatusOr<Beginning> Begin(const Flags& flags) {
  Beginning out;
  if (flags.resume) {
    if (flags.run_dir.empty()) return absl::InvalidArgumentError("--resume needs --run-dir");
    absl::StatusOr<RunDirectory::Resumed> resumed = RunDirectory::Resume(flags.run_dir);
    if (resumed.ok()) {
      out.job = std::move(resumed->job);
      out.run = resumed->run;
      out.resumed = true;
      out.end = std::move(resumed->end);
      out.directory = std::move(resumed->directory);
      if (flags.servers > 0) out.job.mutable_cluster()->set_servers(flags.servers);
      if (flags.peers > 0) out.job.mutable_cluster()->set_servers(flags.peers + 1);
      if (flags.workers > 0) out.job.mutable_cluster()->set_workers(flags.workers);
      return out;
    }
    if (!absl::IsNotFound(resumed.status())) return resumed.status();
  }
  DESCENT_ASSIGN_OR_RETURN(out.job, LoadJob(flags));
  out.run = NewRunId();
  const std::string run_dir =
      !flags.run_dir.empty() ? flags.run_dir
                             : absl::StrCat("runs/", out.job.name(),
                                            absl::FormatTime("-%Y%m%d-%H%M%S", absl::Now(), absl::LocalTimeZone()));
  DESCENT_ASSIGN_OR_RETURN(out.directory, RunDirectory::Create(run_dir, out.job, out.run));
  return out;
}

// The run is over and its summary written: tells whoever has not heard, for as long as it takes them to ask again, and
// ends as the run did; a stop is well by now, since somebody asked for it and its model is saved.
int TellEnd(const Flags& flags, const Beginning& run, const Logger& log, const RealTimeSource& time) {
  CoordinatorOptions options;
  options.job = run.job;
  options.job_fingerprint = JobFingerprint(run.job);
  options.run = run.run;
  options.end = {run.end->phase, run.end->cause};
  absl::StatusOr<std::unique_ptr<Coordinator>> coordinator = Coordinator::Create(std::move(options), time.Now());
  if (!coordinator.ok()) return Complain(coordinator.status(), kUsage);
  absl::StatusOr<Endpoint> bind = BindEndpoint(flags);
  if (!bind.ok()) return Complain(bind.status(), kUsage);
  CoordinatorHost host(*std::move(coordinator), &time);
  ServerServices parameters;
  absl::StatusOr<std::unique_ptr<RpcServer>> rpc =
      RpcServer::Start({*bind, !flags.no_reflection}, parameters.service(), {host.service()});
  if (!rpc.ok()) return Complain(rpc.status(), 1);
  if (!flags.port_file.empty()) {
    const absl::StatusOr<std::string> address = Advertised(flags, *bind, (*rpc)->port());
    if (address.ok()) WriteFileAtomically(flags.port_file, *address + "\n").IgnoreError();
  }
  log.Log(absl::StrCat("the run has ended before: ", v1::Phase_Name(run.end->phase),
                       run.end->phase == v1::FAILED ? absl::StrCat(", ", run.end->cause) : "",
                       "; whoever asks is told, for 5 s"));
  absl::SleepFor(absl::Seconds(5));
  (*rpc)->Stop(absl::Milliseconds(200));
  return run.end->phase == v1::FAILED ? 1 : 0;
}

int Serve(const Flags& flags, StopSignals* signals) {
  const RealTimeSource time;
  const bool first = !flags.job.empty();
  const Logger log(first ? "coordinator" : absl::StrCat("server ", getpid()));

  std::unique_ptr<CoordinatorRunner> runner;
  if (first) {
    absl::StatusOr<Beginning> beginning = Begin(flags);
    if (!beginning.ok()) return Complain(beginning.status(), kUsage);
    if (beginning->end.has_value()) return TellEnd(flags, *beginning, log, time);
    log.Log(absl::StrCat(beginning->resumed ? "going on with the run in " : "run directory ",
                         beginning->directory->path()));
    absl::StatusOr<std::unique_ptr<CoordinatorRunner>> made = CoordinatorRunner::Create(
        beginning->job, beginning->run, beginning->resumed, std::move(beginning->directory), &log, &time);
    if (!made.ok()) return Complain(made.status(), kUsage);
    runner = std::move(*made);
  }

  absl::StatusOr<Endpoint> bind = BindEndpoint(flags);
  if (!bind.ok()) return Complain(bind.status(), absl::IsInvalidArgument(bind.status()) ? kUsage : 1);
  ServerMemberOptions member_options;
  member_options.host = HostName();
  member_options.memory_bytes = flags.memory_bytes;
  member_options.numerics_profile = flags.numerics_profile;
  member_options.wait = absl::Seconds(flags.wait_seconds);
  member_options.checkpoint_dir = flags.checkpoint_dir;

  // The member needs its address, which needs the port, which needs the service bound: so bind first.
  std::unique_ptr<ControlClient> control;
  ControlClientOptions control_options;
  control_options.progress = [&log](const std::string& line) { log.Log(line); };
  std::vector<grpc::Service*> services;
  if (first) services = runner->services();
  ServerServices parameters;
  absl::StatusOr<std::unique_ptr<RpcServer>> rpc =
      RpcServer::Start({*bind, !flags.no_reflection}, parameters.service(), services);
  if (!rpc.ok()) return Complain(rpc.status(), 1);
  absl::StatusOr<std::string> address = Advertised(flags, *bind, (*rpc)->port());
  if (!address.ok()) return Complain(address.status(), kUsage);
  member_options.local_sockets = !flags.no_local_sockets;
  if (member_options.local_sockets) {
    if (absl::Status local = (*rpc)->ServeLocally(*address); !local.ok()) log.Log(local.message());
  }
  member_options.address = *address;
  member_options.find_address = [&flags, bind = *bind, port = (*rpc)->port()] { return Advertised(flags, bind, port); };
  member_options.replica_bind = *bind;
  if (absl::StatusOr<Endpoint> reached = ParseEndpoint(*address, Endpoint{"127.0.0.1", 0}); reached.ok()) {
    member_options.replica_host = reached->host;
  }
  // Its own coordinator is reached where it is bound, whatever others call it.
  control_options.address = first
                                ? Endpoint{IsWildcard(bind->host) ? "127.0.0.1" : bind->host, (*rpc)->port()}.ToString()
                                : flags.coordinator;
  member_options.coordinator = control_options.address;
  control = ControlClient::Create(control_options);
  ServerMember member(member_options, control.get(), &parameters, &log);
  (*rpc)->SetHealthy(true);
  if (!flags.port_file.empty()) {
    if (absl::Status written = WriteFileAtomically(flags.port_file, *address + "\n"); !written.ok()) {
      return Complain(written, 1);
    }
  }
  log.Log(absl::StrCat("serving at ", *address));

  signals->Start([&](int signal) {
    log.Log(absl::StrCat("signal ", signal, ": stopping the run"));
    if (first) {
      runner->Stop(signal);
    } else if (!control->Stop(signal, false).ok()) {
      control->Cancel();  // there is no run to stop
    }
  });

  v1::Phase phase = v1::FAILED;
  std::thread coordinating;
  if (first) coordinating = std::thread([&] { phase = runner->Run(); });
  absl::StatusOr<v1::Phase> ended = member.Run();
  if (!ended.ok() && first) {
    // A coordinator whose own server could not take part fails the run: the others must hear of it.
    v1::FailureReport report;
    report.set_role("server");
    report.set_host(member_options.host);
    report.set_pid(static_cast<uint64_t>(getpid()));
    report.set_own(true);
    report.set_cause(std::string(ended.status().message()));
    report.set_unix_seconds(absl::ToDoubleSeconds(time.Now() - absl::UnixEpoch()));
    runner->host().With([&](Coordinator& c, absl::Time now) { c.ReportFailure(report, now); });
  }
  if (!ended.ok()) log.Log(absl::StrCat("failed: ", ended.status().message()));
  if (first) {
    coordinating.join();
  } else if (ended.ok()) {
    phase = *ended;
  }
  signals->Stop();
  (*rpc)->SetHealthy(false);
  (*rpc)->Stop(absl::Milliseconds(200));
  if (!ended.ok()) return 1;
  switch (phase) {
    case v1::FINISHED:
      return 0;
    case v1::STOPPED:
      return 128 + (first && runner->stop_signal() > 0 ? runner->stop_signal() : SIGTERM);
    default:
      return 1;
  }
}

}  // namespace
}  // namespace descent

int main(int argc, char** argv) {
  descent::TuneProcess();
  descent::StopSignals signals;
  descent::Flags flags;
  CLI::App app("A parameter server of a Descent cluster. The first one gets --job and hosts the coordinator.");
  auto* job = app.add_option("--job", flags.job, "job file; makes this the first server");
  app.add_option("--set", flags.set, "override a field of the job: path=value")->needs(job);
  app.add_option("--servers", flags.servers, "servers to wait for, this one included")->needs(job);
  app.add_option("--peers", flags.peers, "the same, without this one")->needs(job);
  app.add_option("--workers", flags.workers, "workers to wait for")->needs(job);
  auto* coordinator = app.add_option("--coordinator", flags.coordinator, "HOST:PORT of the first server")
                          ->envname("DESCENT_COORDINATOR")
                          ->excludes(job);
  app.add_option("--run-dir", flags.run_dir, "where the run leaves its files (default runs/<name>-<time>)");
  app.add_option("--bind", flags.bind,
                 "ADDRESS:PORT to listen on (default: 127.0.0.1:7000 with --job, else the address that reaches the "
                 "coordinator and any free port)");
  app.add_option("--advertise", flags.advertise, "HOST[:PORT] under which others reach this server");
  app.add_option("--port-file", flags.port_file, "write the advertised address here once serving");
  app.add_option("--memory", flags.memory_bytes, "bytes this server may plan with");
  app.add_option("--wait", flags.wait_seconds, "seconds to wait for the coordinator")->capture_default_str();
  app.add_option("--numerics-profile", flags.numerics_profile, "mixed into the fingerprint of this build's arithmetic");
  app.add_flag("--resume", flags.resume,
               "go on with the run in --run-dir, if it has not ended; where there is none, begin one")
      ->needs(job);
  app.add_option("--checkpoint-dir", flags.checkpoint_dir,
                 "where this host has the checkpoint folder (default: where the coordinator has it)");
  app.add_flag("--no-reflection", flags.no_reflection, "do not offer gRPC server reflection");
  app.add_flag("--no-local-sockets", flags.no_local_sockets,
               "serve clients on this machine over TCP too, like all others");
  app.allow_config_extras(false);
  try {
    app.parse(argc, argv);
    if (job->count() == 0 && coordinator->count() == 0 && flags.coordinator.empty()) {
      throw CLI::RequiredError("--job or --coordinator");
    }
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : descent::kUsage;
  }
  return descent::Serve(flags, &signals);
}
