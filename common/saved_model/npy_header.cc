#include "common/saved_model/npy_header.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace descent {
namespace {

// What stands behind `key` in a header's text.
absl::string_view After(absl::string_view text, absl::string_view key) {
  const size_t at = text.find(key);
  return at == absl::string_view::npos ? "" : absl::StripLeadingAsciiWhitespace(text.substr(at + key.size()));
}

}  // namespace

std::string NpyHeader(absl::string_view type, absl::Span<const uint64_t> shape, size_t least) {
  std::string tuple;
  for (uint64_t n : shape) absl::StrAppend(&tuple, n, ", ");
  // One dimension needs its comma, more may not end in a blank: numpy's own form.
  if (shape.size() == 1) {
    tuple.resize(tuple.size() - 1);
  } else if (!shape.empty()) {
    tuple.resize(tuple.size() - 2);
  }
  std::string dict = absl::StrCat("{'descr': '", type, "', 'fortran_order': False, 'shape': (", tuple, "), }");
  constexpr size_t kMagic = 10;
  const size_t total = std::max(least, (kMagic + dict.size() + 1 + 63) / 64 * 64);
  dict.resize(total - kMagic - 1, ' ');
  dict.push_back('\n');
  DESCENT_CHECK(dict.size() <= 0xffff);
  std::string header("\x93NUMPY\x01\x00", 8);
  header.push_back(static_cast<char>(dict.size() & 0xff));
  header.push_back(static_cast<char>(dict.size() >> 8));
  return header + dict;
}

absl::StatusOr<size_t> NpyHeaderBytes(absl::string_view magic) {
  const auto byte = [&](size_t i) { return size_t{static_cast<unsigned char>(magic[i])}; };
  if (magic.size() < kNpyMagicBytes || !absl::StartsWith(magic, "\x93NUMPY") || byte(6) < 1 || byte(6) > 3) {
    return absl::InvalidArgumentError("no .npy array of version 1, 2 or 3");
  }
  if (byte(6) == 1) return 10 + byte(8) + 256 * byte(9);
  return 12 + byte(8) + 256 * (byte(9) + 256 * (byte(10) + 256 * byte(11)));
}

absl::StatusOr<NpyArray> ParseNpyHeader(absl::string_view header) {
  DESCENT_ASSIGN_OR_RETURN(const size_t length, NpyHeaderBytes(header));
  const absl::Status bad = absl::InvalidArgumentError("its header is none of an array");
  if (length != header.size()) return bad;
  const absl::string_view text = header.substr(header[6] == 1 ? 10 : 12);
  NpyArray array;
  absl::string_view type = After(text, "'descr':");
  if (!absl::ConsumePrefix(&type, "'") || type.find('\'') == absl::string_view::npos) return bad;
  array.type = std::string(type.substr(0, type.find('\'')));
  const absl::string_view order = After(text, "'fortran_order':");
  array.column_major = absl::StartsWith(order, "True");
  if (!array.column_major && !absl::StartsWith(order, "False")) return bad;
  absl::string_view shape = After(text, "'shape':");
  if (!absl::ConsumePrefix(&shape, "(") || shape.find(')') == absl::string_view::npos) return bad;
  for (const absl::string_view part : absl::StrSplit(shape.substr(0, shape.find(')')), ',', absl::SkipWhitespace())) {
    uint64_t n = 0;
    if (!absl::SimpleAtoi(part, &n)) return bad;
    array.shape.push_back(n);
  }
  return array;
}

}  // namespace descent
