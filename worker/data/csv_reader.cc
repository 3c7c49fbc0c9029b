// CSV: one column is the label, one may be the weight, some are left out, the rest are the features in their order, as
// numbers or as what csv_cells.h makes of text.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "descent/v1/job.pb.h"
#include "worker/data/csv_cells.h"
#include "worker/data/csv_record.h"
#include "worker/data/label_rule.h"
#include "worker/data/number.h"
#include "worker/data/source.h"

namespace descent {
namespace {

absl::string_view Trimmed(absl::string_view field) { return absl::StripAsciiWhitespace(field); }

class CsvParser {
 public:
  CsvParser(const v1::Csv& spec, const DatasetOptions& options, ShardCutter* cutter)
      : spec_(spec),
        labels_(options.labels, options.classes),
        label_map_(spec.label_map().begin(), spec.label_map().end()),
        text_(options.csv),
        cutter_(cutter) {}

  // After the last file.
  void End() {
    for (CsvCells& cells : cells_) cutter_->columns()->push_back(cells.Take());
  }

  absl::Status Read(const SourceFile& file, DataFileInfo* info) {
    file_ = file.name;
    DESCENT_ASSIGN_OR_RETURN(auto lines, LineReader::Open(file.path, file.name));
    CsvRecords records(std::move(lines), spec_.delimiter().empty() ? ',' : spec_.delimiter()[0]);
    const uint64_t before = cutter_->rows();
    bool header = spec_.header();
    while (true) {
      DESCENT_ASSIGN_OR_RETURN(const bool more, records.Next());
      if (!more) break;
      line_ = records.number();
      if (columns_ == 0) DESCENT_RETURN_IF_ERROR(Begin(records.fields()));
      if (records.fields().size() != columns_) {
        return Error(absl::StrCat(records.fields().size(), " columns, but ",
                                  spec_.header() ? "the header" : "the first row", " of ", first_file_, " has ",
                                  columns_));
      }
      if (header) {
        DESCENT_RETURN_IF_ERROR(SameHeader(records.fields()));
        header = false;
        continue;
      }
      DESCENT_RETURN_IF_ERROR(Row(records.fields()));
    }
    const GzipReader& on_disk = records.lines().file();
    *info = {file.name, on_disk.disk_bytes(), cutter_->rows() - before, on_disk.disk_crc32c()};
    if (info->rows == 0) return absl::InvalidArgumentError(absl::StrCat(file.name, ": the file has no examples"));
    return absl::OkStatus();
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(file_, ":", line_, ": ", what));
  }

  // Names as a header has them; a '#' before the first is a mark of some writers, not part of the name.
  static std::string HeaderName(absl::string_view field, bool first) {
    field = Trimmed(field);
    if (first && !field.empty() && field[0] == '#') field = Trimmed(field.substr(1));
    return std::string(field);
  }

  std::string ColumnName(size_t column) const {
    return spec_.header() ? absl::StrCat("column '", names_[column], "'") : absl::StrCat("column ", column);
  }

  absl::Status Find(const std::string& field, const std::string& name, size_t* column) const {
    if (!spec_.header()) {
      uint32_t number;
      if (!absl::SimpleAtoi(name, &number)) {
        return absl::InvalidArgumentError(
            absl::StrCat(field, ": '", name, "' is not a column's number, and csv.header is not set"));
      }
      if (number >= columns_) {
        return absl::InvalidArgumentError(
            absl::StrCat(field, ": there is no column ", number, "; ", file_, " has columns 0 to ", columns_ - 1));
      }
      *column = number;
      return absl::OkStatus();
    }
    const auto count = std::count(names_.begin(), names_.end(), name);
    if (count == 1) {
      *column = static_cast<size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin());
      return absl::OkStatus();
    }
    if (count > 1) {
      return absl::InvalidArgumentError(absl::StrCat(field, ": ", file_, " has ", count, " columns '", name, "'"));
    }
    constexpr size_t kMost = 20;
    const size_t shown = std::min(kMost, names_.size());
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", file_, " has no column '", name, "'; its header is ",
                                                   absl::StrJoin(names_.begin(), names_.begin() + shown, ", "),
                                                   shown < names_.size() ? ", ..." : ""));
  }

  absl::Status Begin(const std::vector<absl::string_view>& fields) {
    first_file_ = file_;
    columns_ = fields.size();
    if (spec_.header()) {
      for (size_t c = 0; c < columns_; ++c) names_.push_back(HeaderName(fields[c], c == 0));
    }
    label_ = columns_ - 1;
    if (!spec_.label().empty()) DESCENT_RETURN_IF_ERROR(Find("csv.label", spec_.label(), &label_));
    std::vector<bool> skip(columns_, false);
    skip[label_] = true;
    weighted_ = !spec_.weight().empty();
    if (weighted_) {
      DESCENT_RETURN_IF_ERROR(Find("csv.weight", spec_.weight(), &weight_));
      if (weight_ == label_) {
        return absl::InvalidArgumentError(absl::StrCat("csv.weight: ", ColumnName(weight_), " is the label"));
      }
      skip[weight_] = true;
    }
    for (const std::string& name : spec_.ignore()) {
      size_t column;
      DESCENT_RETURN_IF_ERROR(Find("csv.ignore", name, &column));
      if (column == label_ || (weighted_ && column == weight_)) {
        return absl::InvalidArgumentError(
            absl::StrCat("csv.ignore: ", ColumnName(column), column == label_ ? " is the label" : " is csv.weight"));
      }
      skip[column] = true;
    }
    for (size_t c = 0; c < columns_; ++c) {
      if (!skip[c]) features_.push_back(c);
    }
    if (features_.empty()) return absl::InvalidArgumentError(absl::StrCat(file_, ": no column is left for features"));
    DESCENT_RETURN_IF_ERROR(FindKinds());
    cutter_->Begin({ShardKind::kDense, features_.size(), 1, weighted_});
    return absl::OkStatus();
  }

  absl::Status FindKinds() {
    using Kind = DataColumn::Kind;
    std::vector<Kind> kind(columns_, Kind::kNumber);
    for (const auto& [field, names, as] : {std::tuple("features.one_hot", &text_.categories, Kind::kCategory),
                                           std::tuple("features.hashed", &text_.hashed, Kind::kHashed)}) {
      for (const std::string& name : *names) {
        size_t column;
        DESCENT_RETURN_IF_ERROR(Find(field, name, &column));
        if (!std::binary_search(features_.begin(), features_.end(), column)) {
          return absl::InvalidArgumentError(absl::StrCat(field, ": ", ColumnName(column), " is no feature"));
        }
        kind[column] = as;
      }
    }
    for (const size_t column : features_) {
      cells_.emplace_back(&text_, kind[column], spec_.header() ? names_[column] : absl::StrCat(column));
    }
    return absl::OkStatus();
  }

  absl::Status SameHeader(const std::vector<absl::string_view>& fields) const {
    for (size_t c = 0; c < columns_; ++c) {
      const std::string name = HeaderName(fields[c], c == 0);
      if (name != names_[c]) {
        return Error(absl::StrCat("header column ", c, " is '", name, "', but '", names_[c], "' in ", first_file_));
      }
    }
    return absl::OkStatus();
  }

  template <typename Float>
  absl::Status Cell(absl::string_view field, size_t column, Float* number) const {
    const absl::string_view text = Trimmed(field);
    if (text.empty()) return Error(absl::StrCat(ColumnName(column), " is empty, expected a number"));
    if (ParseNumber(text.data(), text.data() + text.size(), number)) return absl::OkStatus();
    const std::string what = absl::StrCat(ColumnName(column), ": ", Quoted(text), " is not a finite number");
    if (column == label_) return Error(absl::StrCat(what, "; names of classes need csv.label_map"));
    const std::string name = spec_.header() ? names_[column] : absl::StrCat(column);
    return Error(absl::StrCat(what, "; a column of text is for features { one_hot: \"", name,
                              "\" }, or is left out with ignore: \"", name, "\""));
  }

  absl::Status Label(absl::string_view field, float* label) {
    double number = 0;
    if (!label_map_.empty()) {
      const auto found = label_map_.find(std::string(Trimmed(field)));
      if (found == label_map_.end()) {
        std::vector<std::string> known;
        for (const auto& entry : label_map_) known.push_back(entry.first);
        return Error(absl::StrCat(ColumnName(label_), ": label ", Quoted(Trimmed(field)),
                                  " is not in csv.label_map: ", absl::StrJoin(known, ", ")));
      }
      number = found->second;
    } else {
      DESCENT_RETURN_IF_ERROR(Cell(field, label_, &number));
    }
    if (spec_.log_label()) {
      if (!(number > 0)) {
        return Error(absl::StrCat(ColumnName(label_), ": label ", Trimmed(field),
                                  ": expected a number above 0, because of csv.log_label"));
      }
      number = std::log(number);
    }
    if (!labels_.Accept(number, label)) {
      return Error(absl::StrCat(ColumnName(label_), ": ", labels_.Refusal(Trimmed(field))));
    }
    return absl::OkStatus();
  }

  absl::Status Row(const std::vector<absl::string_view>& fields) {
    float label = 0;
    DESCENT_RETURN_IF_ERROR(Label(fields[label_], &label));
    float* to = cutter_->builder().AddDense();
    for (size_t f = 0; f < features_.size(); ++f, ++to) {
      const size_t column = features_[f];
      if (cells_[f].Missing(Trimmed(fields[column]))) {
        *to = std::numeric_limits<float>::quiet_NaN();
      } else if (cells_[f].number()) {
        DESCENT_RETURN_IF_ERROR(Cell(fields[column], column, to));
      } else if (!cells_[f].Code(Trimmed(fields[column]), to)) {
        return Error(absl::StrCat(ColumnName(column), ": more than ", text_.most_categories,
                                  " categories (features.max_categories); a column with many is for features.hashed"));
      }
    }
    float weight = 1;
    if (weighted_) {
      DESCENT_RETURN_IF_ERROR(Cell(fields[weight_], weight_, &weight));
      if (weight < 0) {
        return Error(absl::StrCat(ColumnName(weight_), ": ", Trimmed(fields[weight_]), ": a weight is not below 0"));
      }
    }
    return cutter_->EndRow(label, weight);
  }

  const v1::Csv& spec_;
  LabelRule labels_;
  const std::map<std::string, int32_t> label_map_;
  const CsvColumns text_;
  ShardCutter* const cutter_;

  std::string file_;
  uint64_t line_ = 0;
  std::string first_file_;
  size_t columns_ = 0;  // 0: nothing read yet
  std::vector<std::string> names_;
  size_t label_ = 0;
  bool weighted_ = false;
  size_t weight_ = 0;
  std::vector<size_t> features_;
  std::vector<CsvCells> cells_;  // of the features
};

}  // namespace

absl::Status ReadCsv(const v1::Csv& spec, absl::Span<const SourceFile> files, const DatasetOptions& options,
                     ShardCutter* cutter, std::vector<DataFileInfo>* infos) {
  CsvParser parser(spec, options, cutter);
  for (const SourceFile& file : files) DESCENT_RETURN_IF_ERROR(parser.Read(file, &infos->emplace_back()));
  parser.End();
  return absl::OkStatus();
}

}  // namespace descent
