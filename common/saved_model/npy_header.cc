#include "common/saved_model/npy_header.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace descent {

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

}  // namespace descent
