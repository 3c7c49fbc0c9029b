// LIBSVM text: "label index:value ...", indices ascending; "qid:N" and everything behind '#' are passed over.
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/status_macros.h"
#include "descent/v1/job.pb.h"
#include "worker/data/label_rule.h"
#include "worker/data/line_reader.h"
#include "worker/data/number.h"
#include "worker/data/source.h"

namespace descent {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\t'; }

class LibsvmParser {
 public:
  LibsvmParser(const v1::Libsvm& spec, const DatasetOptions& options, ShardCutter* cutter)
      : base_(spec.zero_based() ? 0 : 1),
        features_(spec.features()),
        labels_(options.labels, options.classes),
        cutter_(cutter) {}

  absl::Status Read(const SourceFile& file, DataFileInfo* info) {
    DESCENT_ASSIGN_OR_RETURN(auto lines, LineReader::Open(file.path, file.name));
    const uint64_t before = cutter_->rows();
    absl::string_view line;
    while (true) {
      DESCENT_ASSIGN_OR_RETURN(const bool more, lines->Next(&line));
      if (!more) break;
      absl::Status status = Line(WithoutReturn(line));
      if (!status.ok()) {
        if (absl::IsInvalidArgument(status)) {
          return absl::InvalidArgumentError(absl::StrCat(file.name, ":", lines->number(), ": ", status.message()));
        }
        return status;
      }
    }
    *info = {file.name, lines->file().disk_bytes(), cutter_->rows() - before, lines->file().disk_crc32c()};
    if (info->rows == 0) return absl::InvalidArgumentError(absl::StrCat(file.name, ": the file has no examples"));
    return absl::OkStatus();
  }

 private:
  absl::Status Line(absl::string_view line) {
    const char* p = line.data();
    const char* end = p + line.size();
    if (const void* comment = std::memchr(p, '#', line.size())) end = static_cast<const char*>(comment);
    while (p != end && IsSpace(*p)) ++p;
    if (p == end) return absl::OkStatus();

    const char* token = p;
    while (p != end && !IsSpace(*p)) ++p;
    double number = 0;
    float label = 0;
    if (!ParseNumber(token, p, &number)) {
      return absl::InvalidArgumentError(absl::StrCat("label ", Quoted(Text(token, p)), " is not a finite number"));
    }
    if (!labels_.Accept(number, &label)) return absl::InvalidArgumentError(labels_.Refusal(Text(token, p)));

    ShardBuilder& builder = cutter_->builder();
    bool first = true;
    uint64_t last = 0;
    while (true) {
      while (p != end && IsSpace(*p)) ++p;
      if (p == end) break;
      token = p;
      // The index by hand: this loop is where the time goes.
      uint64_t index = 0;
      const char* digits_end = end - p > 19 ? p + 19 : end;  // 19 digits can't overflow
      for (; p != digits_end; ++p) {
        const auto digit = static_cast<unsigned char>(*p - '0');
        if (digit > 9) break;
        index = index * 10 + digit;
      }
      const bool plain = p != token && p != end && *p == ':';
      const char* colon = p;
      while (p != end && !IsSpace(*p)) ++p;
      if (!plain) {
        colon = static_cast<const char*>(std::memchr(token, ':', static_cast<size_t>(p - token)));
        if (colon == nullptr) {
          return absl::InvalidArgumentError(absl::StrCat(Quoted(Text(token, p)), " is not index:value"));
        }
        if (Text(token, colon) == "qid") continue;
        if (!ParseIndex(token, colon, &index)) {
          return absl::InvalidArgumentError(
              absl::StrCat("index ", Quoted(Text(token, colon)), " is not a whole number below 2^64"));
        }
      }
      float value = 0;
      if (!ParseNumber(colon + 1, p, &value)) {
        return absl::InvalidArgumentError(
            absl::StrCat("value ", Quoted(Text(colon + 1, p)), " of index ", index, " is not a finite number"));
      }
      if (!first && index <= last) {
        return absl::InvalidArgumentError(index == last
                                              ? absl::StrCat("index ", index, " is there twice")
                                              : absl::StrCat("index ", index, " after ", last, ": expected ascending"));
      }
      if (index < base_) {
        return absl::InvalidArgumentError("index 0, but indices count from 1 unless libsvm.zero_based is set");
      }
      first = false;
      last = index;
      index -= base_;
      if (features_ != 0 && index >= features_) {
        return absl::InvalidArgumentError(absl::StrCat("index ", last, " is beyond libsvm.features: ", features_,
                                                       ", whose last is ", features_ - 1 + base_));
      }
      builder.AddEntry(index, value);
    }
    return cutter_->EndRow(label);
  }

  static absl::string_view Text(const char* begin, const char* end) {
    return absl::string_view(begin, static_cast<size_t>(end - begin));
  }

  const uint64_t base_;
  const uint64_t features_;
  LabelRule labels_;
  ShardCutter* const cutter_;
};

}  // namespace

absl::Status ReadLibsvm(const v1::Libsvm& spec, absl::Span<const SourceFile> files, const DatasetOptions& options,
                        ShardCutter* cutter, std::vector<DataFileInfo>* infos) {
  cutter->Begin({ShardKind::kSparse, spec.features(), 1});
  LibsvmParser parser(spec, options, cutter);
  for (const SourceFile& file : files) DESCENT_RETURN_IF_ERROR(parser.Read(file, &infos->emplace_back()));
  return absl::OkStatus();
}

}  // namespace descent
