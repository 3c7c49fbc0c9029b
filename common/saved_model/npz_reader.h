// Arrays out of an .npz file, ours or numpy's, stored or compressed. Errors name file and member: DATA_LOSS: damaged,
// or no array; NOT_FOUND: no such member. Not thread-safe; a member is read while its reader lives.
#ifndef DESCENT_COMMON_SAVED_MODEL_NPZ_READER_H_
#define DESCENT_COMMON_SAVED_MODEL_NPZ_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/saved_model/npy_header.h"

struct zip;
struct zip_file;

namespace descent {

// An array whose header has been read; its elements come next.
class NpzMember {
 public:
  const NpyArray& array() const { return array_; }
  uint64_t bytes() const { return bytes_; }  // of the elements, as the archive says

  absl::Status Read(void* to, size_t bytes);
  // Nothing is left, and the archive's checksum holds.
  absl::Status ReadEnd();

 private:
  friend class NpzReader;
  struct Close {
    void operator()(zip_file* file) const;
  };
  std::string Why() const;

  std::unique_ptr<zip_file, Close> file_;
  std::string where_;
  NpyArray array_;
  uint64_t bytes_ = 0;
};

class NpzReader {
 public:
  static absl::StatusOr<std::unique_ptr<NpzReader>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t file_bytes() const { return file_bytes_; }
  std::vector<std::string> Members() const;
  bool Has(const std::string& member) const;
  absl::StatusOr<NpzMember> Find(const std::string& member);

 private:
  struct Discard {
    void operator()(zip* archive) const;
  };
  NpzReader() = default;

  std::string path_;
  uint64_t file_bytes_ = 0;
  std::unique_ptr<zip, Discard> zip_;
};

}  // namespace descent

#endif  // DESCENT_COMMON_SAVED_MODEL_NPZ_READER_H_
