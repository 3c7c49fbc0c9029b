#include "worker/data/source.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/files/file.h"
#include "descent/v1/job.pb.h"

namespace descent {
namespace {

absl::Status AddFiles(const std::string& named, const std::string& field, const std::string& root,
                      std::vector<SourceFile>* files) {
  if (named.empty()) return absl::InvalidArgumentError(absl::StrCat(field, ": an empty file name"));
  const std::string path = JoinPath(root, named);
  // A file whose own name has such characters goes first.
  if (named.find_first_of("*?[") == std::string::npos || IdentifyFile(path).ok()) {
    files->push_back({named, path});
    return absl::OkStatus();
  }
  DESCENT_ASSIGN_OR_RETURN(const std::vector<std::string> found, ListMatching(path));
  if (found.empty()) {
    return absl::NotFoundError(absl::StrCat(field, ": no file matches '", named, "' (looked for ", path, ")"));
  }
  const size_t prefix = path.size() - named.size();  // of the root, not part of the name
  for (const std::string& match : found) files->push_back({match.substr(prefix), match});
  return absl::OkStatus();
}

template <typename Paths>
absl::Status AddAllFiles(const Paths& paths, const std::string& field, const std::string& root,
                         std::vector<SourceFile>* files) {
  if (paths.empty()) return absl::InvalidArgumentError(absl::StrCat(field, ": no file is given"));
  for (const std::string& path : paths) DESCENT_RETURN_IF_ERROR(AddFiles(path, field, root, files));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<SourceFile>> ListSource(const v1::Dataset& spec, const DatasetOptions& options) {
  std::vector<SourceFile> files;
  switch (spec.format_case()) {
    case v1::Dataset::kLibsvm:
      DESCENT_RETURN_IF_ERROR(AddAllFiles(spec.libsvm().path(), "libsvm.path", options.root, &files));
      if (!options.keys && spec.libsvm().features() == 0) {
        return absl::InvalidArgumentError(
            "libsvm.features: 0; a model without a sparse table needs the number of features");
      }
      if (!options.keys && spec.libsvm().features() > UINT32_MAX) {
        return absl::InvalidArgumentError(absl::StrCat("libsvm.features: ", spec.libsvm().features(),
                                                       "; without a sparse table at most ", UINT32_MAX));
      }
      break;
    case v1::Dataset::kCsv:
      DESCENT_RETURN_IF_ERROR(AddAllFiles(spec.csv().path(), "csv.path", options.root, &files));
      if (spec.csv().delimiter().size() > 1 || spec.csv().delimiter() == "\"" || spec.csv().delimiter() == "\n" ||
          spec.csv().delimiter() == "\r") {
        return absl::InvalidArgumentError("csv.delimiter: expected one character, not a quote and not a line end");
      }
      if (spec.csv().log_label() && options.labels != LabelKind::kNumber) {
        return absl::InvalidArgumentError("csv.log_label: only for a model whose labels are numbers");
      }
      break;
    case v1::Dataset::kIdx:
      files = {{spec.idx().images(), JoinPath(options.root, spec.idx().images())},
               {spec.idx().labels(), JoinPath(options.root, spec.idx().labels())}};
      if (files[0].name.empty()) return absl::InvalidArgumentError("idx.images: no file is given");
      if (files[1].name.empty()) return absl::InvalidArgumentError("idx.labels: no file is given");
      break;
    case v1::Dataset::FORMAT_NOT_SET:
      return absl::InvalidArgumentError("a data set needs one of idx, libsvm and csv");
  }
  if (options.keys && !spec.has_libsvm()) {
    return absl::InvalidArgumentError("a model with a sparse table needs libsvm data");
  }
  if (options.labels == LabelKind::kClass && options.classes == 0) {
    return absl::InvalidArgumentError("labels are classes, but the number of classes is 0");
  }
  for (const SourceFile& file : files) {
    const absl::StatusOr<FileIdentity> identity = IdentifyFile(file.path);
    if (absl::IsNotFound(identity.status())) {
      return absl::NotFoundError(absl::StrCat(file.name, ": no such file (looked for ", file.path, ")"));
    }
    if (!identity.ok()) return identity.status();
    if (identity->folder) {
      return absl::InvalidArgumentError(absl::StrCat(file.name, ": is a folder, expected a file"));
    }
  }
  return files;
}

std::string DescribeParse(const v1::Dataset& spec, const DatasetOptions& options) {
  std::string text = absl::StrCat("labels=", static_cast<int>(options.labels), "/", options.classes,
                                  " shard_rows=", options.shard_rows);
  switch (spec.format_case()) {
    case v1::Dataset::kLibsvm:
      absl::StrAppend(&text, " libsvm features=", spec.libsvm().features(), " zero_based=", spec.libsvm().zero_based());
      break;
    case v1::Dataset::kCsv: {
      const v1::Csv& csv = spec.csv();
      // With lengths, so that no name can look like two.
      absl::StrAppend(&text, " csv label=", csv.label().size(), ":", csv.label(), " header=", csv.header(),
                      " delimiter=", csv.delimiter(), " log=", csv.log_label());
      if (!csv.weight().empty()) absl::StrAppend(&text, " weight=", csv.weight().size(), ":", csv.weight());
      for (const std::string& name : csv.ignore()) absl::StrAppend(&text, " ignore=", name.size(), ":", name);
      for (const std::string& name : options.csv.categories) {
        absl::StrAppend(&text, " categories=", name.size(), ":", name, "/", options.csv.most_categories);
      }
      for (const std::string& name : options.csv.hashed) {
        absl::StrAppend(&text, " hashed=", name.size(), ":", name, "/", options.csv.buckets);
      }
      if (options.csv.missing) absl::StrAppend(&text, " missing");
      for (const std::string& marker : options.csv.markers) {
        absl::StrAppend(&text, " marker=", marker.size(), ":", marker);
      }
      const std::map<std::string, int32_t> sorted(csv.label_map().begin(), csv.label_map().end());
      for (const auto& [name, label] : sorted) absl::StrAppend(&text, " map=", name.size(), ":", name, "=", label);
      break;
    }
    case v1::Dataset::kIdx:
      absl::StrAppend(&text, " idx scale=", spec.idx().scale());
      break;
    case v1::Dataset::FORMAT_NOT_SET:
      break;
  }
  return text;
}

absl::Status ParseSource(const v1::Dataset& spec, absl::Span<const SourceFile> files, const DatasetOptions& options,
                         ShardCutter* cutter, std::vector<DataFileInfo>* infos) {
  infos->clear();
  switch (spec.format_case()) {
    case v1::Dataset::kLibsvm:
      DESCENT_RETURN_IF_ERROR(ReadLibsvm(spec.libsvm(), files, options, cutter, infos));
      break;
    case v1::Dataset::kCsv:
      DESCENT_RETURN_IF_ERROR(ReadCsv(spec.csv(), files, options, cutter, infos));
      break;
    default:
      DESCENT_RETURN_IF_ERROR(ReadIdx(spec.idx(), files, options, cutter, infos));
      break;
  }
  return cutter->End();
}

}  // namespace descent
