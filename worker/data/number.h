// Numbers in text, correctly rounded and whatever the locale. Pure; thread-safe.
#ifndef DESCENT_WORKER_DATA_NUMBER_H_
#define DESCENT_WORKER_DATA_NUMBER_H_

#include <cmath>
#include <cstdint>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "fast_float/fast_float.h"

namespace descent {

// All of [begin, end) is one finite number, maybe with a leading '+'.
template <typename Float>
inline bool ParseNumber(const char* begin, const char* end, Float* number) {
  if (end - begin == 1 && static_cast<unsigned char>(*begin - '0') < 10) {  // most values of one-hot data
    *number = static_cast<Float>(*begin - '0');
    return true;
  }
  if (begin != end && *begin == '+') {
    ++begin;
    if (begin != end && *begin == '-') return false;
  }
  const auto result = fast_float::from_chars(begin, end, *number);
  return result.ec == std::errc() && result.ptr == end && std::isfinite(*number);
}

// Digits only, below 2^64.
inline bool ParseIndex(const char* begin, const char* end, uint64_t* index) {
  if (begin == end) return false;
  uint64_t n = 0;
  for (; begin != end; ++begin) {
    const auto digit = static_cast<unsigned char>(*begin - '0');
    if (digit > 9) return false;
    if (__builtin_expect(n > (UINT64_MAX - digit) / 10, 0)) return false;
    n = n * 10 + digit;
  }
  *index = n;
  return true;
}

// For messages: printable, and not longer than a line bears.
inline std::string Quoted(absl::string_view text) {
  constexpr size_t kMost = 40;
  if (text.size() <= kMost) return absl::StrCat("'", absl::CHexEscape(text), "'");
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kMost)), "...'");
}

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_NUMBER_H_
