// A part file: the blocks and slots that one server adds to a cut, one record after another. Bytes: "DESCPT01", then
// for each record the length of its header (uint32, little-endian), the header (v1::CutRecord), the payload, and the
// CRC-32C of these three (uint32). Neither side holds more than one record's payload in memory; the writer none of its
// own.
//
// Thread-safety: none; an object from one thread at a time. The storage outlives it.
#ifndef DESCENT_SERVER_CHECKPOINT_PART_FILE_H_
#define DESCENT_SERVER_CHECKPOINT_PART_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/storage/storage.h"
#include "common/wire/payload.h"
#include "descent/v1/checkpoint.pb.h"
#include "server/checkpoint/cut_id.h"
#include "server/store/block_store.h"

namespace descent {

inline constexpr absl::string_view kPartMagic = "DESCPT01";
inline constexpr size_t kMaxSlotRecordBytes = size_t{1} << 20;  // of payload; what a slot's rows are cut into

class PartFileWriter {
 public:
  // A new file in the cut's folder. ALREADY_EXISTS: there is one, of an earlier try.
  static absl::StatusOr<std::unique_ptr<PartFileWriter>> Create(Storage* storage, const std::string& folder,
                                                                const CutId& cut, ServerId server);

  // One record. Of `header`, run, generation, cut and payload_bytes are filled in here.
  absl::Status Append(v1::CutRecord header, const Payload& payload);
  // A block or slot as the store exports it, with the optimizer's state; a slot's rows in as many records as keep each
  // payload within kMaxSlotRecordBytes (one row at least). `dim` is a table's, 0 for dense. `marks`: per rank, the next
  // clock that the block expects.
  absl::Status Append(const BlockExport& block, uint32_t dim, absl::Span<const uint64_t> marks);
  // Syncs the file and its name; call it once, last. What it returns belongs into the manifest.
  absl::StatusOr<v1::PartFile> Finish();

  // After an error every further call returns that error: the part is to be given up, and the cut with it.

 private:
  PartFileWriter(Storage* storage, std::string folder, const CutId& cut, ServerId server);
  absl::Status Fail(absl::Status status);
  absl::Status Write(absl::string_view bytes);

  Storage* const storage_;
  const std::string folder_;
  const CutId cut_;
  std::unique_ptr<WritableFile> file_;
  absl::Status status_;
  v1::PartFile summary_;
  std::string pending_;  // small pieces, written with what follows
};

// What Append was given, or of a slot in several records some of its rows.
BlockExport ImageOf(const v1::CutRecord& header, const Payload& payload);

// Front to back, record by record. DATA_LOSS names the record, what was expected and what came; the file is for the
// caller to name. Nothing is believed before it is checked: lengths against what is left of the file, everything
// against the checksum before the payload is handed out. A header comes first, since it says how long the payload is.
class PartFileReader {
 public:
  // Headers longer than `max_header` are refused.
  static absl::StatusOr<std::unique_ptr<PartFileReader>> Open(Storage* storage, const std::string& path,
                                                              size_t max_header);

  // False: the file is at its end. The header is not yet verified; its payload_bytes are there.
  absl::StatusOr<bool> NextHeader(v1::CutRecord* header);
  // The payload of that record, in a buffer of its own. Header and payload are verified now.
  absl::StatusOr<Payload> TakePayload();
  // Leaves the payload unread and the record unverified; crc32c() is of no use from here on.
  void SkipPayload();

  uint64_t size() const { return file_->size(); }
  uint64_t records() const { return records_; }  // begun
  uint32_t crc32c() const { return file_crc_; }  // of all that was read

 private:
  explicit PartFileReader(std::unique_ptr<ReadableFile> file, size_t max_header);
  absl::Status Read(void* to, size_t bytes);
  uint64_t remaining() const { return file_->size() - offset_; }

  const std::unique_ptr<ReadableFile> file_;
  const size_t max_header_;
  std::vector<char> buffer_;
  size_t next_ = 0;  // unread bytes of it: [next_, limit_)
  size_t limit_ = 0;
  uint64_t offset_ = 0;  // in the file, of the next byte
  uint64_t records_ = 0;
  uint32_t file_crc_ = 0;
  uint32_t record_crc_ = 0;
  uint64_t payload_bytes_ = 0;
  std::string header_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_CHECKPOINT_PART_FILE_H_
