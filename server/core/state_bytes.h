// A state as bytes, for the same build on the same kind of machine: numbers as they lie in memory, vectors behind their
// lengths. Reading trusts no length.
#ifndef DESCENT_SERVER_CORE_STATE_BYTES_H_
#define DESCENT_SERVER_CORE_STATE_BYTES_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace descent {

class StateWriter {
 public:
  template <typename T>
  void Put(const T& value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    out_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  template <typename T>
  void PutAll(const std::vector<T>& values) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    Put(uint64_t{values.size()});
    if (!values.empty()) out_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  void PutBytes(absl::string_view bytes) {
    Put(uint64_t{bytes.size()});
    out_.append(bytes.data(), bytes.size());
  }
  std::string Take() { return std::move(out_); }

 private:
  std::string out_;
};

// Once it has run short, ok() is false and everything read is zero or empty.
class StateReader {
 public:
  explicit StateReader(absl::string_view bytes) : left_(bytes) {}

  template <typename T>
  T Get() {
    T value{};
    if (Has(sizeof(T))) {
      std::memcpy(&value, left_.data(), sizeof(T));
      left_.remove_prefix(sizeof(T));
    }
    return value;
  }
  // Of `size` values; otherwise it is not ok.
  template <typename T>
  std::vector<T> GetAll(uint64_t size) {
    const auto came = Get<uint64_t>();
    ok_ = ok_ && came == size && size <= left_.size() / sizeof(T);
    std::vector<T> values(ok_ ? size : 0);
    if (values.empty()) return values;
    std::memcpy(values.data(), left_.data(), size * sizeof(T));
    left_.remove_prefix(size * sizeof(T));
    return values;
  }
  absl::string_view GetBytes() {
    const auto size = Get<uint64_t>();
    if (!Has(size)) return {};
    const absl::string_view bytes = left_.substr(0, size);
    left_.remove_prefix(size);
    return bytes;
  }

  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && left_.empty(); }

 private:
  bool Has(uint64_t size) { return ok_ = ok_ && size <= left_.size(); }

  absl::string_view left_;
  bool ok_ = true;
};

}  // namespace descent

#endif  // DESCENT_SERVER_CORE_STATE_BYTES_H_
