#include "server/checkpoint/cut_id.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace descent {
namespace {

constexpr absl::string_view kCut = "cut-", kOfGeneration = "-g", kServer = "server-", kPart = ".part",
                            kGeneration = "generation-";

}  // namespace

std::string CutFolderName(const CutId& id) { return absl::StrFormat("cut-%012u-g%u", id.number, id.generation.value); }
std::string PartFileName(ServerId server) { return absl::StrCat(kServer, server.value, kPart); }
std::string GenerationFileName(Generation of) { return absl::StrCat(kGeneration, of.value); }
std::string GenerationText(RunId run) { return absl::StrFormat("run %016x\n", run.value); }

std::optional<CutId> ParseCutFolderName(absl::string_view name) {
  absl::string_view rest = name;
  if (!absl::ConsumePrefix(&rest, kCut)) return std::nullopt;
  const size_t at = rest.find(kOfGeneration);
  if (at == absl::string_view::npos) return std::nullopt;
  CutId id;
  if (!absl::SimpleAtoi(rest.substr(0, at), &id.number) ||
      !absl::SimpleAtoi(rest.substr(at + kOfGeneration.size()), &id.generation.value) || CutFolderName(id) != name) {
    return std::nullopt;
  }
  return id;
}

std::optional<ServerId> ParsePartFileName(absl::string_view name) {
  absl::string_view rest = name;
  ServerId id;
  if (!absl::ConsumePrefix(&rest, kServer) || !absl::ConsumeSuffix(&rest, kPart) ||
      !absl::SimpleAtoi(rest, &id.value) || PartFileName(id) != name) {
    return std::nullopt;
  }
  return id;
}

std::optional<Generation> ParseGenerationFileName(absl::string_view name) {
  absl::string_view rest = name;
  Generation of;
  if (!absl::ConsumePrefix(&rest, kGeneration) || !absl::SimpleAtoi(rest, &of.value) ||
      GenerationFileName(of) != name) {
    return std::nullopt;
  }
  return of;
}

}  // namespace descent
