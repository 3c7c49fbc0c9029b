#include "worker/loop/worker_main.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/stop_signals.h"
#include "common/base/time_source.h"
#include "common/control/control_client.h"
#include "common/control/messages.h"
#include "common/job/full_gradient_spec.h"
#include "common/job/job.h"
#include "common/job/optimizer_spec.h"
#include "common/job/stopping_spec.h"
#include "common/net/grpc_client_transport.h"
#include "common/net/process_settings.h"
#include "common/numerics/fingerprint.h"
#include "common/random/philox.h"
#include "worker/loop/control_link.h"
#include "worker/loop/statistics_exchange.h"
#include "worker/loop/trainer.h"
#include "worker/loop/worker_data.h"

namespace descent {
namespace {

struct Flags {
  std::string coordinator;
  uint32_t ranks = 0;
  std::string data_root;
  std::string cache_dir;
  std::string user_cache;  // not a flag
  std::string numerics_profile;
  double wait_seconds = 600;
  uint32_t inject_delay_ms = 0;
};

std::string HostName() {
  char name[256] = "unknown";
  gethostname(name, sizeof name - 1);
  return name;
}

// Batches that come late at random, so that tests see every order of arrival. Changes no result.
class DelayedSource final : public BatchSource {
 public:
  DelayedSource(BatchSource* source, uint32_t mean_ms)
      : source_(source), mean_ms_(mean_ms), stream_(static_cast<uint64_t>(getpid()), Purpose::kTest, 0, 0) {}
  void Request(Rank rank, Clock clock) override { source_->Request(rank, clock); }
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) override {
    std::this_thread::sleep_for(std::chrono::microseconds(stream_.Below(drawn_++, 2000 * mean_ms_ + 1)));
    return source_->Get(rank, clock);
  }
  void Forget(Rank rank) override { source_->Forget(rank); }

 private:
  BatchSource* const source_;
  const uint32_t mean_ms_;
  const RandomStream stream_;
  uint64_t drawn_ = 0;
};

// The cause of this process's end, told as its own. Of one that has not registered (member 0) it counts while the run
// is starting. `diverged_generation`: as in FailureReport, and the process goes on.
absl::Status ReportOwnFailure(ControlClient* control, uint64_t member, const absl::Status& cause,
                              uint64_t diverged_generation = 0) {
  v1::FailureReport report;
  report.set_diverged_generation(diverged_generation);
  report.set_member(member);
  report.set_role("worker");
  report.set_host(HostName());
  report.set_pid(static_cast<uint64_t>(getpid()));
  report.set_own(true);
  report.set_cause(std::string(cause.message()));
  report.set_unix_seconds(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
  return control->ReportFailure(report);
}

v1::RegisterWorkerRequest Registration(const Flags& flags, const v1::JobSpec& job, const WorkerData& data) {
  v1::RegisterWorkerRequest registration;
  registration.set_protocol(kProtocolVersion);
  registration.set_job_fingerprint(JobFingerprint(job));
  const NumericsFingerprint numerics = ComputeNumericsFingerprint(flags.numerics_profile);
  registration.mutable_numerics()->set_build(numerics.build);
  registration.mutable_numerics()->set_instruction_set(numerics.instruction_set);
  registration.mutable_numerics()->set_probe(numerics.probe);
  registration.set_host(HostName());
  registration.set_pid(static_cast<uint64_t>(getpid()));
  registration.set_capacity(flags.ranks);
  data.Describe(&registration);
  return registration;
}

TrainerOptions OptionsOf(const v1::JobSpec& job, const v1::HeartbeatReply& news, const WorkerData& data) {
  TrainerOptions options;
  options.consistency = ConsistencyOf(job);
  options.geometry = GeometryOf(job);
  options.ranks = job.ranks();
  options.clocks = news.clocks();
  options.evaluate_every = EvaluateEvery(job.evaluation(), news.clocks_per_epoch());
  options.objective = job.evaluation().objective();
  options.metrics = job.evaluation();
  options.evaluate = data.validation != nullptr || options.objective || data.train == nullptr;
  options.evaluation_batch = job.evaluation().batch_size() > 0 ? job.evaluation().batch_size() : 1024;
  options.penalty = PenaltyOf(job);
  options.averaged = EvaluatesAverages(job);
  options.full_gradient = TakesFullGradient(job.optimizer());
  options.local_steps = LocalStepsOf(job);
  options.rounded = EncodingOf(job) != WireEncoding::kF32;
  options.record_order = job.record_order();
  return options;
}

// How this worker and the others agree on statistics of the training data.
StatisticsExchange ExchangeOf(ControlClient* control, const v1::GetJobReply& job, const Logger* log) {
  StatisticsCalls calls;
  calls.share = [control](const v1::ShareStatisticsRequest& request) { return control->ShareStatistics(request); };
  calls.pause = [](absl::Duration pause) { absl::SleepFor(pause); };
  calls.now = [] { return absl::Now(); };
  calls.tell = [log](const std::string& text) { log->Log(text); };
  v1::ShareStatisticsRequest self;
  self.set_protocol(kProtocolVersion);
  self.set_job_fingerprint(JobFingerprint(job.job()));
  self.set_host(HostName());
  self.set_pid(static_cast<uint64_t>(getpid()));
  return StatisticsWithOthers(std::move(calls), std::move(self),
                              absl::Seconds(job.job().cluster().start_timeout_seconds()));
}

// The client of the servers of one generation.
absl::StatusOr<ClientOptions> ClientOf(const v1::GetJobReply& job, uint64_t run, const v1::HeartbeatReply& news,
                                       const WorkerData& data) {
  ClientOptions client;
  client.envelope.job = job.job_fingerprint();
  client.envelope.run = RunId(run);
  client.envelope.generation = Generation(news.generation());
  client.envelope.map_epoch = news.map().epoch();
  client.geometry = GeometryOf(job.job());
  client.encoding = EncodingOf(job.job());
  client.backup_ranks = ConsistencyOf(job.job()).backup_ranks > 0;
  client.tensors = data.model->tensors();
  DESCENT_ASSIGN_OR_RETURN(client.map, FromMessage(news.map(), client.tensors, client.geometry));
  return client;
}

// A coordinator that is being replaced hears it a little later, or begins another generation anyway.
absl::Status TellDivergence(ControlClient* control, uint64_t member, const absl::Status& cause, uint64_t generation) {
  absl::Status told;
  for (int tries = 0; tries < 10; ++tries) {
    told = ReportOwnFailure(control, member, cause, generation);
    if (!absl::IsUnavailable(told) && !absl::IsDeadlineExceeded(told)) break;
    absl::SleepFor(absl::Milliseconds(500));
  }
  return absl::IsUnavailable(told) || absl::IsDeadlineExceeded(told) ? absl::OkStatus() : told;
}

// Trains, generation after generation, until the run is over or this worker is to leave. What was loaded stays loaded.
absl::Status Train(const v1::GetJobReply& job, const WorkerData& data, BatchSource* batches, const Logger& log,
                   const TimeSource& time, ControlClient* control, ControlLink* link) {
  ClientStats total;
  const auto tell = [&] {
    log.Log(absl::StrCat("pushed ", total.payload_bytes_out, " bytes, pulled ", total.payload_bytes_in, ", ",
                         total.resends, " resends"));
  };
  while (true) {
    absl::StatusOr<v1::HeartbeatReply> news = link->AwaitRunning();
    absl::Status trained = news.status();
    if (news.ok()) {
      DESCENT_ASSIGN_OR_RETURN(const ClientOptions client, ClientOf(job, link->run(), *news, data));
      const std::vector<std::string> servers(news->map().address().begin(), news->map().address().end());
      Trainer trainer(
          OptionsOf(job.job(), *news, data), data.model.get(), batches, data.train.get(), data.validation.get(),
          [&client, &servers, &time, link] {
            Connection connection;
            GrpcClientOptions transport;
            transport.servers = link->MovedServers();
            if (transport.servers.empty()) transport.servers = servers;
            connection.transport = MakeGrpcClientTransport(transport);
            connection.client = ParameterClient::Create(client, connection.transport.get(), &time);
            return connection;
          },
          link, &time);
      trained = trainer.Run();
      const ClientStats stats = trainer.client_stats();
      total.payload_bytes_out += stats.payload_bytes_out;
      total.payload_bytes_in += stats.payload_bytes_in;
      total.resends += stats.resends;
    }
    if (absl::IsAborted(trained)) {
      log.Log(absl::StrCat(trained.message(), "; waiting for it to run"));
      continue;
    }
    // A refused push: a gradient that is not finite.
    if (news.ok() && absl::IsInvalidArgument(trained) && RollsBack(job.job())) {
      log.Log(absl::StrCat(trained.message(), "; waiting for the run to go back"));
      DESCENT_RETURN_IF_ERROR(TellDivergence(control, link->member(), trained, news->generation()));
      continue;
    }
    if (!trained.ok() && !absl::IsCancelled(trained)) return trained;
    link->StopObeyed();
    if (link->leaving()) {
      tell();
      return absl::OkStatus();
    }
    // However long saving takes: a coordinator that falls silent is given up by the link itself.
    const absl::Status end = link->AwaitEnd(absl::InfiniteFuture());
    if (absl::IsAborted(end)) {
      log.Log(absl::StrCat(end.message(), "; going on with it"));
      continue;
    }
    tell();
    if (end.ok()) log.Log("done");
    return link->phase() == v1::FAILED || absl::IsUnavailable(end) ? end : absl::OkStatus();
  }
}

// Joins the run, trains, and tells how it ended. *link is set once there is one.
absl::Status Work(const Flags& flags, const CustomModels& custom, const Logger& log, ControlClient* control,
                  const std::function<void(ControlLink*)>& joined) {
  const RealTimeSource time;
  DESCENT_ASSIGN_OR_RETURN(const v1::GetJobReply reply, control->WaitForJob(absl::Seconds(flags.wait_seconds)));
  const v1::JobSpec& job = reply.job();
  absl::StatusOr<WorkerData> opened =
      OpenWorkerData(job, flags.data_root, CacheDirOf(job, flags.cache_dir, flags.user_cache), custom,
                     ExchangeOf(control, reply, &log));
  if (!opened.ok()) {
    ReportOwnFailure(control, 0, opened.status()).IgnoreError();
    return opened.status();
  }
  WorkerData& data = *opened;
  for (const Dataset* set : {data.train.get(), data.validation.get()}) {
    if (set == nullptr) continue;
    for (const std::string& note : set->Notes()) log.Log(note);
  }
  std::unique_ptr<BatchSource> delayed;
  BatchSource* batches = data.batches.get();
  if (flags.inject_delay_ms > 0) {
    delayed = std::make_unique<DelayedSource>(batches, flags.inject_delay_ms);
    batches = delayed.get();
  }

  ControlCalls calls;
  calls.register_worker = [control](const v1::RegisterWorkerRequest& request, bool again) {
    if (again) control->ForgetRegistration();
    return control->RegisterWorker(request);
  };
  calls.heartbeat = [control](const v1::HeartbeatRequest& request) { return control->Heartbeat(request); };
  calls.log = [&log](const std::string& line) { log.Log(line); };
  ControlLink::Options link_options;
  link_options.window = job.metrics().every_rounds();
  // A coordinator that died is started again, by whoever started it first; that may take as long as a start.
  if (const double seconds = job.cluster().start_timeout_seconds(); seconds > 0) {
    link_options.give_up_after = absl::Seconds(seconds);
  }
  const v1::RegisterWorkerRequest registration = Registration(flags, job, data);
  ControlLink link(link_options, calls, registration, &time);
  DESCENT_RETURN_IF_ERROR(link.Start());
  joined(&link);
  log.Log(absl::StrCat("registered as member ", link.member(), "; ", registration.train_rows(), " training rows"));

  const absl::Status state = Train(reply, data, batches, log, time, control, &link);
  const v1::Phase phase = link.phase();
  if (!state.ok() && phase != v1::FAILED && !absl::IsCancelled(state)) {
    ReportOwnFailure(control, link.member(), state).IgnoreError();
  }
  link.Close();
  control->Leave(link.member(), state.ok() ? "the run is over" : std::string(state.message())).IgnoreError();
  joined(nullptr);
  if (state.ok() && phase == v1::STOPPED) return absl::CancelledError("the run was stopped");
  return state;
}

}  // namespace

int WorkerMain(int argc, char** argv, const CustomModels& models, const std::string& user_cache) {
  TuneProcess();
  StopSignals signals;
  Flags flags;
  flags.user_cache = user_cache;
  CLI::App app("A worker of a Descent cluster: leases ranks, computes gradients, pushes and pulls.");
  app.add_option("--coordinator", flags.coordinator, "HOST:PORT of the coordinator (the first server)")
      ->required()
      ->envname("DESCENT_COORDINATOR");
  app.add_option("--ranks", flags.ranks, "the most ranks to take; 0: any number");
  app.add_option("--data-root", flags.data_root, "where this host has the job's data, in the place of data.root");
  app.add_option("--cache-dir", flags.cache_dir, "where data shards are kept");
  app.add_option("--wait", flags.wait_seconds, "seconds to wait for the coordinator")->capture_default_str();
  app.add_option("--numerics-profile", flags.numerics_profile, "mixed into the fingerprint of this build's arithmetic");
  app.add_option("--inject-delay-ms", flags.inject_delay_ms, "for tests: delay batches at random by this on average");
  app.allow_config_extras(false);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  const Logger log(absl::StrCat("worker ", getpid()));
  ControlClientOptions options;
  options.address = flags.coordinator;
  options.progress = [&log](const std::string& line) { log.Log(line); };
  const std::unique_ptr<ControlClient> control = ControlClient::Create(options);

  // A stop leaves the run: what this worker holds goes to the others.
  Mutex mu;
  ControlLink* link = nullptr;
  int stopped_by = 0;
  signals.Start([&](int signal) {
    log.Log(absl::StrCat("signal ", signal, ": leaving"));
    MutexLock lock(&mu);
    stopped_by = signal;
    if (link != nullptr) {
      link->RequestStop();
    } else {
      control->Cancel();
    }
  });
  const absl::Status status = Work(flags, models, log, control.get(), [&](ControlLink* now) {
    MutexLock lock(&mu);
    link = now;
    if (link != nullptr && stopped_by != 0) link->RequestStop();
  });
  signals.Stop();
  MutexLock lock(&mu);
  if (stopped_by != 0) return 128 + stopped_by;
  if (status.ok()) return 0;
  if (absl::IsCancelled(status)) return 143;
  log.Log(absl::StrCat("failed: ", status.message()));
  return 1;
}

}  // namespace descent
