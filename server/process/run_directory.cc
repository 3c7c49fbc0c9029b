#include "server/process/run_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/job/job.h"

namespace descent {
namespace {

using Json = nlohmann::ordered_json;

void AddMetrics(const MetricRecord& record, Json* json) {
  if (record.accuracy.has_value()) (*json)["accuracy"] = *record.accuracy;
  Json metrics;
  for (const auto& [name, value] : record.metrics.values) {
    if (name != "accuracy") metrics[name] = value;
  }
  for (const auto& [name, values] : record.metrics.per_class) metrics[name] = values;
  if (!record.metrics.confusion.empty()) metrics["confusion"] = record.metrics.confusion;
  for (const ReliabilityBin& bin : record.metrics.reliability) {
    metrics["reliability"].push_back({{"begin", bin.begin},
                                      {"end", bin.end},
                                      {"examples", bin.examples},
                                      {"confidence", bin.confidence},
                                      {"accuracy", bin.accuracy}});
  }
  if (!metrics.is_null()) (*json)["metrics"] = std::move(metrics);
}

double UnixSeconds(absl::Time time) { return absl::ToDoubleSeconds(time - absl::UnixEpoch()); }

}  // namespace

absl::StatusOr<std::unique_ptr<RunDirectory>> RunDirectory::Create(const std::string& path, const v1::JobSpec& job,
                                                                   RunId run) {
  DESCENT_RETURN_IF_ERROR(MakeDirs(path));
  DESCENT_ASSIGN_OR_RETURN(const std::vector<std::string> cuts, ListMatching(JoinPath(path, "checkpoints/cut-*")));
  for (const char* name : {"metrics.jsonl", "model", "summary.json", "checkpoints"}) {
    if (absl::string_view(name) == "checkpoints" ? !cuts.empty() : IdentifyFile(JoinPath(path, name)).ok()) {
      return absl::AlreadyExistsError(absl::StrCat("run directory ", path, " holds another run's ", name,
                                                   "; name a new one with --run-dir, or go on with it by --resume"));
    }
  }
  DESCENT_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(path, "job.textproto"), JobText(job)));
  DESCENT_RETURN_IF_ERROR(
      WriteFileAtomically(JoinPath(path, "run"), absl::StrCat(absl::Hex(run.value, absl::kZeroPad16), "\n")));
  return std::unique_ptr<RunDirectory>(new RunDirectory(path));
}

absl::StatusOr<RunDirectory::Resumed> RunDirectory::Resume(const std::string& path) {
  Resumed out;
  DESCENT_ASSIGN_OR_RETURN(const std::string id, ReadFile(JoinPath(path, "run")));
  uint64_t run = 0;
  if (!absl::SimpleHexAtoi(absl::StripAsciiWhitespace(id), &run)) {
    return absl::DataLossError(absl::StrCat(JoinPath(path, "run"), ": expected a run's id, 16 hexadecimal digits"));
  }
  out.run = RunId(run);
  DESCENT_ASSIGN_OR_RETURN(out.job, ReadJobFile(JoinPath(path, "job.textproto")));
  const std::string summary = JoinPath(path, "summary.json");
  if (IdentifyFile(summary).ok()) {
    DESCENT_ASSIGN_OR_RETURN(const std::string text, ReadFile(summary));
    const Json json = Json::parse(text, nullptr, false);
    Resumed::End end;
    const auto text_of = [&json](const char* field) {
      return json.is_object() && json.contains(field) && json[field].is_string() ? json[field].get<std::string>() : "";
    };
    if (!v1::Phase_Parse(text_of("result"), &end.phase) || end.phase < v1::FINISHED) {
      return absl::DataLossError(
          absl::StrCat(summary, ": expected a run's summary, whose result is FINISHED, STOPPED or ", "FAILED"));
    }
    end.cause = text_of("first_cause");
    // One that was stopped before there was a model to save goes on.
    if (end.phase != v1::STOPPED || IdentifyFile(JoinPath(path, "model/model.json")).ok()) {
      out.end = std::move(end);
      return out;
    }
  }
  out.directory.reset(new RunDirectory(path));
  return out;
}

absl::Status RunDirectory::DropTornLine() {
  const std::string metrics = JoinPath(path_, "metrics.jsonl");
  absl::StatusOr<std::string> text = ReadFile(metrics);
  if (!text.ok() || text->empty() || text->back() == '\n') return absl::OkStatus();
  text->resize(text->rfind('\n') == std::string::npos ? 0 : text->rfind('\n') + 1);
  return WriteFileAtomically(metrics, *text);
}

RunDirectory::~RunDirectory() {
  if (metrics_ >= 0) close(metrics_);
}

absl::Status RunDirectory::Append(const MetricRecord& record) {
  const bool training = record.kind == MetricRecord::Kind::kTraining;
  Json line;
  if (record.kind == MetricRecord::Kind::kRolledBack) {
    line["kind"] = "rolled_back_to";
    line["clock"] = record.clock;
    line["epoch"] = record.epoch;
    line["generation"] = record.generation;
    line["time"] = UnixSeconds(record.time);
    return Write(line.dump() + "\n");
  }
  if (record.kind == MetricRecord::Kind::kDecision) {
    line["kind"] = "decision";
    line["clock"] = record.clock;
    line["epoch"] = record.epoch;
    line["decision"] = record.decision;
    line["why"] = record.why;
    line["time"] = UnixSeconds(record.time);
    return Write(line.dump() + "\n");
  }
  if (record.kind == MetricRecord::Kind::kGradients) {
    line["kind"] = "gradient_histograms";
    line["clock"] = record.clock;
    line["epoch"] = record.epoch;
    line["rounds"] = record.rounds;
    Json& histograms = line["histograms"] = Json::object();
    for (const auto& [tensor, norms] : record.norms) {
      Json& buckets = histograms[tensor] = Json::object();
      for (const auto& [bucket, rounds] : norms.Hit()) buckets[bucket] = rounds;
    }
    line["time"] = UnixSeconds(record.time);
    return Write(line.dump() + "\n");
  }
  line["kind"] = training ? "training" : "evaluation";
  line["clock"] = record.clock;
  line["epoch"] = record.epoch;
  line["loss"] = record.loss;
  line["examples"] = record.weight;
  if (training) {
    line["rate"] = record.rate;
    line["examples_per_second"] = record.examples_per_second;
    if (record.gradient_norm.has_value()) line["gradient_norm"] = *record.gradient_norm;
    if (record.parameter_change.has_value()) line["parameter_change"] = *record.parameter_change;
    if (record.clipped.has_value()) line["clipped"] = *record.clipped;
  } else {
    AddMetrics(record, &line);
    if (record.train_loss.has_value()) line["train_loss"] = *record.train_loss;
    if (record.objective.has_value()) line["objective"] = *record.objective;
    line["snapshot"] = absl::StrCat("clock ", record.clock);
    line["fuzzy"] = record.fuzzy;
  }
  line["time"] = UnixSeconds(record.time);
  return Write(line.dump() + "\n");
}

absl::Status RunDirectory::Write(const std::string& text) {
  const std::string file = JoinPath(path_, "metrics.jsonl");
  // Made with its first line: a start that failed leaves a folder that can be used again.
  if (metrics_ < 0) metrics_ = open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  struct stat before;
  if (metrics_ < 0 || fstat(metrics_, &before) != 0) return ErrnoStatus(errno, file);
  const ssize_t written = write(metrics_, text.data(), text.size());
  if (written == static_cast<ssize_t>(text.size())) return absl::OkStatus();
  // A full disk takes a part of a line; the next one that fits is not to be glued to it.
  const int error = written < 0 ? errno : ENOSPC;
  if (ftruncate(metrics_, before.st_size) != 0) return ErrnoStatus(errno, file);
  return ErrnoStatus(error, file);
}

absl::Status RunDirectory::WriteSummary(const v1::StatusReply& status, const RunSummary& summary) {
  Json json;
  json["job"] = status.job();
  json["result"] = v1::Phase_Name(status.phase());
  if (!status.first_cause().empty()) json["first_cause"] = status.first_cause();
  if (!status.end_reason().empty()) json["ended_by"] = status.end_reason();
  json["clocks"] = status.round();
  if (status.clocks_per_epoch() > 0) {
    json["epochs"] = static_cast<double>(status.round()) / static_cast<double>(status.clocks_per_epoch());
  }
  if (summary.training.has_value()) json["training_loss"] = summary.training->loss;
  if (summary.evaluation.has_value()) {
    json["evaluated_at_clock"] = summary.evaluation->clock;
    json["loss"] = summary.evaluation->loss;
    AddMetrics(*summary.evaluation, &json);
  }
  if (summary.objective.has_value()) json["objective"] = *summary.objective;
  if (status.has_clipped()) json["clipped"] = status.clipped();
  json["wall_seconds"] = status.seconds();
  json["examples_per_second"] = status.examples_per_second();
  json["payload_bytes"] = summary.payload_bytes;
  json["servers"] = summary.servers;
  json["workers"] = summary.workers;
  json["ranks"] = status.rank_size();
  json["parameters_sha256"] = status.parameters_sha256();
  json["state_sha256"] = status.state_sha256();
  return WriteFileAtomically(JoinPath(path_, "summary.json"), json.dump(2) + "\n");
}

}  // namespace descent
