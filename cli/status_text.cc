#include "cli/status_text.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace descent {
namespace {

struct Part {
  int importance;  // higher stays longer
  std::string text;
};

// The number behind a word of a line like "epoch 1: loss 0.43, accuracy 0.871".
std::string NumberAfter(absl::string_view word, absl::string_view line) {
  size_t at = line.find(word);
  if (at == absl::string_view::npos) return "";
  at += word.size();
  while (at < line.size() && (line[at] == ' ' || line[at] == '=' || line[at] == ':')) ++at;
  size_t end = at;
  while (end < line.size() && (absl::ascii_isdigit(line[end]) || line[end] == '.' || line[end] == '%')) ++end;
  while (end > at && line[end - 1] == '.') --end;
  return std::string(line.substr(at, end - at));
}

std::string Fit(std::string text, size_t width) {
  if (width != 0 && text.size() > width) text.resize(width);
  return text;
}

std::string Scaled(double value, const char* const units[], size_t count, double base) {
  size_t unit = 0;
  while (value >= base && unit + 1 < count) {
    value /= base;
    ++unit;
  }
  if (unit == 0 || value >= 100) return absl::StrFormat("%.0f%s", value, units[unit]);
  return absl::StrFormat("%.*f%s", value >= 10 ? 1 : 2, value, units[unit]);
}

std::vector<Part> TrainingParts(const v1::StatusReply& status) {
  std::vector<Part> parts;
  if (status.phase() != v1::RUNNING) parts.push_back({10, PhaseName(status.phase())});
  if (status.clocks_per_epoch() > 0) {
    const double per_epoch = static_cast<double>(status.clocks_per_epoch());
    parts.push_back({9, absl::StrFormat("epoch %.1f/%.4g", static_cast<double>(status.round()) / per_epoch,
                                        static_cast<double>(status.clocks()) / per_epoch)});
  }
  parts.push_back(
      {status.clocks_per_epoch() > 0 ? 4 : 9, absl::StrCat("round ", status.round(), "/", status.clocks())});
  if (status.round() > 0) parts.push_back({8, absl::StrFormat("loss %.4g", status.loss())});
  if (const std::string accuracy = NumberAfter("accuracy", status.last_evaluation()); !accuracy.empty()) {
    parts.push_back({7, absl::StrCat("accuracy ", Printable(accuracy))});
  }
  if (status.examples_per_second() > 0) parts.push_back({5, absl::StrCat(Rate(status.examples_per_second()), " ex/s")});
  if (status.has_clipped()) parts.push_back({1, absl::StrFormat("clipped %.3g%%", 100 * status.clipped())});
  parts.push_back({1, absl::StrCat("spread ", status.staleness_spread())});
  if (status.bytes_per_second() > 0) parts.push_back({2, absl::StrCat(Bytes(status.bytes_per_second()), "/s")});
  if (status.recoveries() > 0) parts.push_back({3, absl::StrCat("recoveries ", status.recoveries())});
  if (status.phase() == v1::RUNNING && status.seconds_left() > 0) {
    parts.push_back({6, absl::StrCat("left ", Duration(status.seconds_left()))});
  }
  return parts;
}

}  // namespace

std::string PhaseName(v1::Phase phase) {
  if (!v1::Phase_IsValid(phase)) return absl::StrCat("phase ", static_cast<int>(phase));
  return absl::AsciiStrToLower(v1::Phase_Name(phase));
}

std::string Rate(double per_second) {
  static constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  return Scaled(per_second, kUnits, 5, 1000);
}

std::string Bytes(double bytes) {
  static constexpr const char* kUnits[] = {" B", " kB", " MB", " GB", " TB"};
  return Scaled(bytes, kUnits, 5, 1000);
}

std::string Duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e9) return "?";
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 3600) return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
  return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string Printable(absl::string_view text) {
  std::string clean(text);
  for (char& c : clean) {
    if (absl::ascii_iscntrl(c)) c = ' ';
  }
  return clean;
}

std::string StatusLine(const v1::StatusReply& status, size_t width) {
  if (status.phase() == v1::STARTING || status.phase() == v1::PLACING) {
    return Fit(status.message().empty() ? PhaseName(status.phase()) : Printable(status.message()), width);
  }
  std::vector<Part> parts = TrainingParts(status);
  for (const v1::Waited& waited : status.waited()) {
    if (waited.seconds() < 2) continue;
    parts.push_back({7, absl::StrFormat("waiting %.0f s for rank %u", waited.seconds(), waited.rank())});
    break;
  }
  constexpr absl::string_view kBetween = " | ";
  while (true) {
    const std::string line =
        absl::StrJoin(parts, kBetween, [](std::string* out, const Part& part) { absl::StrAppend(out, part.text); });
    if (width == 0 || line.size() <= width || parts.size() == 1) return Fit(line, width);
    parts.erase(std::min_element(parts.begin(), parts.end(),
                                 [](const Part& a, const Part& b) { return a.importance < b.importance; }));
  }
}

std::string StatusReport(const v1::StatusReply& status) {
  std::string out = absl::StrFormat("job %s, run %016x, generation %u: %s\n", Printable(status.job()), status.run(),
                                    status.generation(), PhaseName(status.phase()));
  const auto line = [&out](absl::string_view name, absl::string_view text) {
    if (!text.empty()) absl::StrAppendFormat(&out, "  %-16s%s\n", name, Printable(text));
  };
  if (status.phase() != v1::STARTING && status.phase() != v1::PLACING) line("progress", StatusLine(status, 0));
  line("running for", Duration(status.seconds()));
  line("message", status.message());
  line("evaluation", status.last_evaluation());
  line("memory", status.memory());
  for (const v1::MemberStatus& member : status.member()) {
    line(member.role() == "server" ? absl::StrCat("server ", member.server())
                                   : absl::StrCat("worker m", member.member()),
         absl::StrCat("host ", member.host(), " pid ", member.pid(), member.address().empty() ? "" : " at ",
                      member.address(), absl::StrFormat(", silent %.1f s", member.silent_seconds()),
                      member.standby() ? ", standby" : ""));
  }
  uint64_t least = 0, most = 0;
  for (int i = 0; i < status.rank_size(); ++i) {
    least = i == 0 ? status.rank(i).clock() : std::min(least, status.rank(i).clock());
    most = std::max(most, status.rank(i).clock());
  }
  if (status.rank_size() > 0) {
    line("ranks", absl::StrCat(status.rank_size(), ", clocks ", least, " to ", most));
  }
  for (const v1::Waited& waited : status.waited()) {
    const std::string who =
        waited.host().empty() ? "no worker" : absl::StrCat("host ", waited.host(), " pid ", waited.pid());
    line("waiting", absl::StrFormat("%.1f s for rank %u of %s, %u clocks completed: %s%s", waited.seconds(),
                                    waited.rank(), who, waited.clock(), waited.why(),
                                    waited.last_rpc().empty() ? "" : "; last RPC: " + waited.last_rpc()));
  }
  // With replicas a process may serve the blocks of others, and hold the backup of some.
  const auto process = [&](uint64_t id) {
    for (const v1::MemberStatus& member : status.member()) {
      if (member.member() == id)
        return absl::StrCat("process of server ", member.server(), " (pid ", member.pid(), ")");
    }
    return std::string("nobody");
  };
  for (const v1::ServerStatus& server : status.server()) {
    line(absl::StrCat("blocks of ", server.server()),
         absl::StrCat("primary ", process(server.primary()), ", backup ", process(server.backup()),
                      server.backup() == 0 ? ""
                      : server.synced()    ? ", synced"
                                           : ", not synced yet"));
  }
  if (status.promotions() > 0) line("promotions", absl::StrCat(status.promotions()));
  if (status.last_cut() > 0) line("last checkpoint", absl::StrCat(status.last_cut()));
  if (status.recoveries() > 0) line("recoveries", absl::StrCat(status.recoveries()));
  line("first cause", status.first_cause());
  line("model", status.model_dir());
  line("parameters", status.parameters_sha256());
  return out;
}

}  // namespace descent
