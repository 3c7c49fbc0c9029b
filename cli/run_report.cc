#include "cli/run_report.h"

#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/status_text.h"
#include "common/files/file.h"

namespace descent {
namespace {

using Json = nlohmann::ordered_json;

std::string Metrics(const Json& summary) {
  std::string line;
  const auto add = [&](const std::string& name, const Json& value) {
    absl::StrAppend(&line, line.empty() ? "" : ", ", name, absl::StrFormat(" %.6g", value.get<double>()));
  };
  for (const char* name : {"training_loss", "loss", "accuracy", "objective"}) {
    const auto found = summary.find(name);
    if (found == summary.end() || !found->is_number()) continue;
    add(absl::string_view(name) == "training_loss" ? "training loss" : name, *found);
  }
  const auto metrics = summary.find("metrics");
  if (metrics == summary.end() || !metrics->is_object()) return line;
  for (const auto& [name, value] : metrics->items()) {
    if (value.is_number()) add(Printable(name), value);
  }
  return line;
}

bool Exists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

}  // namespace

std::vector<std::string> RunReport(const RunEnd& end) {
  std::vector<std::string> lines;
  Json summary = Json::object();
  if (const auto text = ReadFile(end.run_dir + "/summary.json"); text.ok()) {
    summary = Json::parse(*text, nullptr, false);
    if (!summary.is_object()) summary = Json::object();
  }
  const auto text_of = [&summary](const char* name) {
    const auto found = summary.find(name);
    return found != summary.end() && found->is_string() ? Printable(found->get<std::string>()) : std::string();
  };

  const bool failed = end.result == "failed";
  lines.push_back(absl::StrCat(end.result, " after ", Duration(absl::ToDoubleSeconds(end.wall)), ": ",
                               end.status.clocks() == 0
                                   ? "no round was finished"
                                   : absl::StrCat(end.status.round(), " of ", end.status.clocks(), " rounds")));
  if (const auto clocks = summary.find("clocks"); clocks != summary.end() && clocks->is_number_unsigned()) {
    lines.back() = absl::StrCat(end.result, " after ", Duration(absl::ToDoubleSeconds(end.wall)), ": ",
                                clocks->get<uint64_t>(), " rounds");
  }
  if (const auto rate = summary.find("examples_per_second"); rate != summary.end() && rate->is_number()) {
    if (rate->get<double>() > 0) absl::StrAppend(&lines.back(), ", ", Rate(rate->get<double>()), " examples/s");
  }
  if (const std::string metrics = Metrics(summary); !metrics.empty()) lines.push_back(metrics);
  if (const std::string reason = text_of("ended_by"); !reason.empty())
    lines.push_back(absl::StrCat("ended by ", reason));
  if (Exists(end.run_dir + "/model")) {
    lines.push_back(absl::StrCat("model ", end.run_dir, "/model"));
    std::string hash = text_of("parameters_sha256");
    if (hash.empty()) hash = end.status.parameters_sha256();
    if (!hash.empty()) lines.push_back(absl::StrCat("parameters_sha256 ", hash));
  }
  if (!failed) {
    lines.push_back(absl::StrCat("run directory ", end.run_dir));
    return lines;
  }
  lines.push_back(absl::StrCat("logs ", end.run_dir, "/logs"));
  if (!end.culprit_log.empty()) {
    lines.push_back(absl::StrCat("last lines of ", end.culprit_log_path, ":"));
    for (const std::string& line : end.culprit_log) lines.push_back(absl::StrCat("  ", Printable(line)));
  }
  std::string cause = end.coordinator_cause;
  if (cause.empty()) cause = text_of("first_cause");
  if (cause.empty()) cause = end.own_cause;
  // Under the coordinator's name the same process is known by its pid.
  const absl::string_view pid =
      absl::string_view(end.culprit).substr(std::min(end.culprit.size(), end.culprit.rfind("(pid ")));
  const bool told = absl::StrContains(cause, pid) && absl::StrContains(cause, end.culprit_ending);
  if (!end.culprit.empty() && !end.culprit_ending.empty() && !told) {
    lines.push_back(absl::StrCat("ended first: ", end.culprit, " ", end.culprit_ending));
  }
  lines.push_back(absl::StrCat("first cause: ", Printable(cause)));
  return lines;
}

}  // namespace descent
