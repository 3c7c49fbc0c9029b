// Reads a committed cut back: whole or not at all. Whatever is not as the manifest says is DATA_LOSS, whose message
// names the file, the record, what was expected and what came; NOT_FOUND: there is no MANIFEST, so there is no such
// cut. Errors of the storage are passed on as they are.
//
// Thread-safety: none; readers of one cut are independent of each other. The storage outlives them.
#ifndef DESCENT_SERVER_CHECKPOINT_CUT_READER_H_
#define DESCENT_SERVER_CHECKPOINT_CUT_READER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "common/storage/storage.h"
#include "common/wire/payload.h"
#include "descent/v1/checkpoint.pb.h"
#include "server/checkpoint/manifest.h"
#include "server/checkpoint/part_file.h"

namespace descent {

class CutReader {
 public:
  // Reads the manifest of the cut in `folder`, whose name must be that of the cut, and looks at the part files: all of
  // them there with the right size, and nothing else.
  static absl::StatusOr<std::unique_ptr<CutReader>> Open(Storage* storage, const std::string& folder);

  const v1::CutManifest& manifest() const { return manifest_; }
  const CutLayout& layout() const { return layout_; }

  // Of one record: parameters and optimizer's state of a block, or of some rows of a slot (header.more: further rows
  // follow in the next call). The payload may be kept. An error ends the reading and is returned.
  using Sink = absl::FunctionRef<absl::Status(const v1::CutRecord& header, const Payload& payload)>;
  enum class Extent {
    kEverything,  // all bytes are read and verified, wanted or not, and every file's checksum
    kWanted,      // only wanted blocks are: of a cut that somebody has verified whole
  };
  // Hands the records of the blocks that are wanted to `sink`, file after file, one record in memory at a time. A
  // record is verified before it is handed out, but a later one may still be bad: what was handed out counts once this
  // is OK. Each wanted block, or with kEverything each block of the model, was there exactly once then.
  absl::Status ForEach(absl::FunctionRef<bool(BlockId)> wanted, Sink sink, Extent extent = Extent::kEverything) const;

  // ForEach over everything, wanting nothing.
  absl::Status Verify() const;

 private:
  struct Progress;

  CutReader(Storage* storage, std::string folder) : storage_(storage), folder_(std::move(folder)) {}
  absl::Status LookAtFiles() const;
  absl::Status ReadPart(const v1::PartFile& part, absl::FunctionRef<bool(BlockId)> wanted, Sink sink, Extent extent,
                        Progress* progress) const;
  absl::Status CheckHeader(const v1::CutRecord& header) const;
  absl::Status Enter(const v1::CutRecord& header, Progress* progress) const;
  std::string NameOf(BlockId id) const;

  Storage* const storage_;
  const std::string folder_;
  v1::CutManifest manifest_;
  CutLayout layout_;
  std::vector<uint64_t> first_block_;  // per tensor: its blocks' place in an enumeration of all
};

}  // namespace descent

#endif  // DESCENT_SERVER_CHECKPOINT_CUT_READER_H_
