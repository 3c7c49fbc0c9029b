#include "cli/predict_data.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "common/features/fitted_features.h"
#include "common/files/file.h"
#include "common/files/gzip_reader.h"
#include "common/job/job.h"
#include "worker/features/feature_columns.h"
#include "worker/features/transformed_dataset.h"
#include "worker/models/predictor.h"

namespace descent {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
constexpr char kMadeUp[] = "descent_label";

absl::StatusOr<std::string> SaveStandardInput(const std::string& folder) {
  const std::string path = folder + "/standard-input";
  DESCENT_ASSIGN_OR_RETURN(const FileDescriptor file, OpenFile(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  std::vector<char> buffer(kChunk);
  while (true) {
    DESCENT_ASSIGN_OR_RETURN(const size_t got, ReadUpTo(STDIN_FILENO, buffer.data(), buffer.size(), "standard input"));
    if (got == 0) return path;
    DESCENT_RETURN_IF_ERROR(WriteFully(file.get(), buffer.data(), got, path));
  }
}

// How the job reads its data; with another format, that format's defaults.
absl::StatusOr<v1::Dataset> SpecOf(const v1::JobSpec& job, const std::string& format, uint64_t features) {
  const v1::DataSpec& data = job.data();
  v1::Dataset spec = data.has_validation() ? data.validation() : data.train();
  const bool same = format.empty() || (format == "idx" && spec.has_idx()) ||
                    (format == "libsvm" && spec.has_libsvm()) || (format == "csv" && spec.has_csv());
  if (!same && format == "idx") {
    spec.mutable_idx()->set_scale(1.0 / 255);
  } else if (!same && format == "libsvm") {
    spec.mutable_libsvm()->set_features(features);
  } else if (!same && format == "csv") {
    spec.mutable_csv()->set_delimiter(",");
  } else if (!same) {
    return absl::InvalidArgumentError(absl::StrCat("--format ", format, ": expected idx, libsvm or csv"));
  }
  // Weights are of the training: here their column is one that is left out.
  if (spec.has_csv() && !spec.csv().weight().empty()) {
    spec.mutable_csv()->add_ignore(spec.csv().weight());
    spec.mutable_csv()->clear_weight();
  }
  return spec;
}

absl::Status NameFiles(const std::vector<std::string>& files, const PredictDataOptions& options, v1::Dataset* spec) {
  if (spec->has_idx()) {
    if (files.size() != 1) return absl::InvalidArgumentError("IDX data are one file of images");
    if (options.labels.empty() && !options.no_labels) {
      return absl::InvalidArgumentError("IDX data: name the labels with --labels FILE, or say --no-labels");
    }
    spec->mutable_idx()->set_images(files[0]);
    std::error_code error;
    spec->mutable_idx()->set_labels(std::filesystem::absolute(options.labels, error).string());
    return absl::OkStatus();
  }
  if (!options.labels.empty()) return absl::InvalidArgumentError("--labels is for IDX data");
  auto* paths = spec->has_csv() ? spec->mutable_csv()->mutable_path() : spec->mutable_libsvm()->mutable_path();
  paths->Clear();
  for (const std::string& file : files) *paths->Add() = file;
  return absl::OkStatus();
}

bool NamesColumns(const v1::Features& features) {
  return features.one_hot_size() > 0 || features.hashed_size() > 0 || features.unscaled_size() > 0 ||
         (features.log_size() > 0 && features.log(0) != "*");
}

// Calls `line` with each record of a file, without its end; `quotes`: ends within double quotes are no ends.
absl::Status ForEachLine(const std::string& path, bool quotes,
                         const std::function<absl::Status(absl::string_view)>& line) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<GzipReader> in, GzipReader::Open(path, path));
  std::vector<char> buffer(kChunk);
  std::string text;
  bool inside = false;
  while (true) {
    DESCENT_ASSIGN_OR_RETURN(const size_t got, in->Read(buffer.data(), buffer.size()));
    if (got == 0) break;
    for (size_t i = 0; i < got; ++i) {
      if (quotes && buffer[i] == '"') inside = !inside;
      if (buffer[i] != '\n' || inside) {
        text.push_back(buffer[i]);
        continue;
      }
      absl::string_view whole = text;
      absl::ConsumeSuffix(&whole, "\r");
      DESCENT_RETURN_IF_ERROR(line(whole));
      text.clear();
    }
  }
  absl::string_view whole = text;
  absl::ConsumeSuffix(&whole, "\r");
  return whole.empty() ? absl::OkStatus() : line(whole);
}

// Appends to a file, in pieces of a megabyte.
class Output {
 public:
  Output(FileDescriptor file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}
  absl::Status Line(absl::string_view a, absl::string_view b) {
    absl::StrAppend(&text_, a, b, "\n");
    return text_.size() < kChunk ? absl::OkStatus() : Flush();
  }
  absl::Status Flush() {
    const absl::Status written = WriteFully(file_.get(), text_.data(), text_.size(), path_);
    text_.clear();
    return written;
  }

 private:
  FileDescriptor file_;
  const std::string path_;
  std::string text_;
};

absl::StatusOr<Output> Create(const std::string& path) {
  DESCENT_ASSIGN_OR_RETURN(FileDescriptor file, OpenFile(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  return Output(std::move(file), path);
}

// A label that the reader takes.
std::string AnyLabel(const v1::Csv& csv, LabelKind labels) {
  if (csv.label_map().empty()) return labels == LabelKind::kNumber || labels == LabelKind::kCount ? "1" : "0";
  std::string least;
  for (const auto& entry : csv.label_map()) {
    if (least.empty() || entry.first < least) least = entry.first;
  }
  return absl::StrCat("\"", absl::StrReplaceAll(least, {{"\"", "\"\""}}), "\"");
}

absl::Status LabelCsv(const std::string& folder, LabelKind labels, v1::Csv* csv) {
  if (!csv->header() && csv->ignore_size() > 0) {
    return absl::InvalidArgumentError("--no-labels: columns that are left out by number need a header or the labels");
  }
  const std::string last = csv->delimiter() + AnyLabel(*csv, labels);
  for (int i = 0; i < csv->path_size(); ++i) {
    const std::string path = absl::StrCat(folder, "/labelled-", i);
    DESCENT_ASSIGN_OR_RETURN(Output out, Create(path));
    bool header = csv->header();
    DESCENT_RETURN_IF_ERROR(ForEachLine(csv->path(i), true, [&](absl::string_view line) {
      if (line.empty()) return out.Line(line, "");
      return out.Line(line, std::exchange(header, false) ? csv->delimiter() + kMadeUp : last);
    }));
    DESCENT_RETURN_IF_ERROR(out.Flush());
    csv->set_path(i, path);
  }
  csv->set_label(csv->header() ? kMadeUp : "");
  return absl::OkStatus();
}

absl::Status LabelLibsvm(const std::string& folder, v1::Libsvm* libsvm) {
  for (int i = 0; i < libsvm->path_size(); ++i) {
    const std::string path = absl::StrCat(folder, "/labelled-", i);
    DESCENT_ASSIGN_OR_RETURN(Output out, Create(path));
    DESCENT_RETURN_IF_ERROR(ForEachLine(libsvm->path(i), false, [&out](absl::string_view line) {
      // A row of zeros has no entries.
      return !line.empty() && line[0] == '#' ? out.Line(line, "") : out.Line("0 ", line);
    }));
    DESCENT_RETURN_IF_ERROR(out.Flush());
    libsvm->set_path(i, path);
  }
  return absl::OkStatus();
}

absl::Status LabelIdx(const std::string& folder, v1::Idx* idx) {
  DESCENT_ASSIGN_OR_RETURN(const std::unique_ptr<GzipReader> in, GzipReader::Open(idx->images(), idx->images()));
  std::string bytes(8, '\0');
  size_t got = 0;
  while (got < bytes.size()) {
    DESCENT_ASSIGN_OR_RETURN(const size_t more, in->Read(bytes.data() + got, bytes.size() - got));
    if (more == 0) break;
    got += more;
  }
  // Magic 0x0801: unsigned bytes, one dimension; the count is that of the images, whose own header Dataset checks.
  bytes.replace(0, 4, std::string("\0\0\x08\x01", 4));
  uint64_t count = 0;
  for (int i = 4; i < 8; ++i) count = count << 8 | static_cast<unsigned char>(bytes[i]);
  const std::string path = folder + "/labels";
  DESCENT_ASSIGN_OR_RETURN(const FileDescriptor file, OpenFile(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
  DESCENT_RETURN_IF_ERROR(WriteFully(file.get(), bytes.data(), bytes.size(), path));
  const std::vector<char> zeros(kChunk);
  for (uint64_t left = count; left > 0;) {
    const size_t now = std::min<uint64_t>(left, zeros.size());
    DESCENT_RETURN_IF_ERROR(WriteFully(file.get(), zeros.data(), now, path));
    left -= now;
  }
  idx->set_labels(path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TemporaryFolder>> TemporaryFolder::Make() {
  std::error_code error;
  std::string path = (std::filesystem::temp_directory_path(error) / "descent-predict-XXXXXX").string();
  if (error || mkdtemp(path.data()) == nullptr) return ErrnoStatus(errno, "can't make a temporary folder");
  return std::unique_ptr<TemporaryFolder>(new TemporaryFolder(std::move(path)));
}

TemporaryFolder::~TemporaryFolder() { RemoveTree(path_).IgnoreError(); }

absl::Status MakeUpLabels(const std::string& folder, LabelKind labels, v1::Dataset* spec) {
  switch (spec->format_case()) {
    case v1::Dataset::kCsv:
      return LabelCsv(folder, labels, spec->mutable_csv());
    case v1::Dataset::kLibsvm:
      return LabelLibsvm(folder, spec->mutable_libsvm());
    case v1::Dataset::kIdx:
      return LabelIdx(folder, spec->mutable_idx());
    case v1::Dataset::FORMAT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("the model's job names no data format: say --format");
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenPredictData(const SavedModel& model, const PredictDataOptions& options,
                                                         const TemporaryFolder& folder) {
  DatasetOptions dataset;
  DESCENT_RETURN_IF_ERROR(SetDatasetOptions(model, &dataset));
  std::vector<std::string> files;
  std::error_code error;
  bool used_input = false;
  for (const std::string& file : options.files) {
    if (file != "-") {
      files.push_back(std::filesystem::absolute(file, error).string());
      continue;
    }
    if (std::exchange(used_input, true)) return absl::InvalidArgumentError("--data -: there is one standard input");
    DESCENT_ASSIGN_OR_RETURN(const std::string path, SaveStandardInput(folder.path()));
    files.push_back(path);
  }
  DESCENT_ASSIGN_OR_RETURN(const v1::JobSpec job, ParseJob(model.description().job_text, "model.json: job"));
  DESCENT_ASSIGN_OR_RETURN(v1::Dataset spec, SpecOf(job, options.format, model.description().features));
  DESCENT_RETURN_IF_ERROR(NameFiles(files, options, &spec));
  if (options.no_labels && spec.has_csv() && !spec.csv().header() && NamesColumns(job.data().features())) {
    return absl::InvalidArgumentError("--no-labels: features of columns by number need a header or the labels");
  }
  if (options.no_labels) DESCENT_RETURN_IF_ERROR(MakeUpLabels(folder.path(), dataset.labels, &spec));
  dataset.root = std::string("/");  // not assigned as text: g++ 12 takes that for an overlap (GCC bug 105651)
  dataset.cache_dir = folder.path() + "/shards";
  const v1::Features& features = job.data().features();
  dataset.csv = CsvColumnsOf(features);
  dataset.csv.most_categories = kMostCategories;  // others than training had are all zeros
  DESCENT_ASSIGN_OR_RETURN(std::unique_ptr<Dataset> data, Dataset::Open(spec, dataset));
  if (!job.data().has_features()) return data;
  DESCENT_ASSIGN_OR_RETURN(const v1::FittedFeatures fitted,
                           FeaturesFromJson(model.description().fitted, kFeaturesFile));
  return TransformDataset(features, spec, fitted, std::move(data));
}

}  // namespace descent
