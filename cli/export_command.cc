// descent export --model DIR --format npz --out FILE: a checked copy of a model's numbers for numpy.load.
#include <fcntl.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/commands.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "common/saved_model/saved_model.h"

namespace descent {
namespace {

struct ExportArguments {
  std::string model, format = "npz", out;
};

absl::Status RunExport(const ExportArguments& arguments) {
  // Loading checks sizes, checksums and parameters_sha256: a damaged model is not handed on.
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<SavedModel> model, SavedModel::Load(arguments.model));
  const std::string from = arguments.model + "/model.npz";
  const std::string part = arguments.out + ".part";
  DESCENT_ASSIGN_OR_RETURN(const FileDescriptor in, OpenFile(from, O_RDONLY));
  DESCENT_ASSIGN_OR_RETURN(const FileDescriptor out, OpenFile(part, O_WRONLY | O_CREAT | O_TRUNC));
  std::vector<char> buffer(size_t{1} << 20);
  while (true) {
    DESCENT_ASSIGN_OR_RETURN(const size_t got, ReadUpTo(in.get(), buffer.data(), buffer.size(), from));
    if (got == 0) break;
    DESCENT_RETURN_IF_ERROR(WriteFully(out.get(), buffer.data(), got, part));
  }
  std::error_code error;
  std::filesystem::rename(part, arguments.out, error);
  if (error) return ErrnoStatus(error.value(), arguments.out);
  std::printf("%s: %zu tensors, parameters_sha256 %s\n", arguments.out.c_str(), model->description().specs.size(),
              model->parameters_sha256().c_str());
  return absl::OkStatus();
}

}  // namespace

void AddExportCommand(CLI::App* program, int* exit_status) {
  CLI::App* command = program->add_subcommand("export", "Check a trained model and write its numbers to one file");
  auto arguments = std::make_shared<ExportArguments>();
  command->add_option("--model", arguments->model, "A run's model folder")->required()->type_name("DIR");
  command->add_option("--format", arguments->format, "npz: for numpy.load")->check(CLI::IsMember({"npz"}));
  command->add_option("--out", arguments->out, "File to write")->required()->type_name("FILE");
  command->callback([arguments, exit_status] {
    const absl::Status done = RunExport(*arguments);
    if (!done.ok()) *exit_status = Complain(done, 1);
  });
}

}  // namespace descent
