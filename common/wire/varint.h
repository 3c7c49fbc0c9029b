// Integers in as few bytes as they need, seven bits a byte, the lowest first; signed ones so that small ones of either
// sign are short. For logs and vectors of numbers that grow slowly.
#ifndef DESCENT_COMMON_WIRE_VARINT_H_
#define DESCENT_COMMON_WIRE_VARINT_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace descent {

inline void PutVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}
// `now` as its difference from `before`; any two values will do.
inline void PutDelta(uint64_t before, uint64_t now, std::string* out) {
  const uint64_t delta = now - before;
  PutVarint((delta << 1) ^ (uint64_t{0} - (delta >> 63)), out);
}

// Reads what these have written, front to back. Whatever the bytes are, a read is within them or false.
class VarintReader {
 public:
  explicit VarintReader(absl::string_view bytes) : bytes_(bytes) {}

  bool done() const { return at_ == bytes_.size(); }
  size_t at() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  bool Get(uint64_t* value) {
    uint64_t out = 0;
    for (int shift = 0; shift < 64 && at_ < bytes_.size(); shift += 7) {
      const auto byte = static_cast<uint8_t>(bytes_[at_++]);
      if (shift == 63 && byte > 1) return false;
      out |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) {
        *value = out;
        return true;
      }
    }
    return false;
  }
  // *value: what came before, then what is there now.
  bool GetDelta(uint64_t* value) {
    uint64_t coded = 0;
    if (!Get(&coded)) return false;
    *value += (coded >> 1) ^ (uint64_t{0} - (coded & 1));
    return true;
  }
  bool GetBytes(uint64_t size, absl::string_view* out) {
    if (size > left()) return false;
    *out = bytes_.substr(at_, size);
    at_ += size;
    return true;
  }

 private:
  const absl::string_view bytes_;
  size_t at_ = 0;
};

}  // namespace descent

#endif  // DESCENT_COMMON_WIRE_VARINT_H_
