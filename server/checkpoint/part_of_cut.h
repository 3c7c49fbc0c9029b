// One server's part of a cut as it comes about: images one by one, the file that they go into, and what is reported of
// it. The file is made with the first image: an order may wait for its clock, or be taken back.
//
// Thread-safety: none. The storage outlives it.
#ifndef DESCENT_SERVER_CHECKPOINT_PART_OF_CUT_H_
#define DESCENT_SERVER_CHECKPOINT_PART_OF_CUT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/storage/storage.h"
#include "common/tensor/tensor_spec.h"
#include "descent/v1/coordinator.pb.h"
#include "server/checkpoint/cut_id.h"
#include "server/checkpoint/part_file.h"

namespace descent {

class PartOfCut {
 public:
  // `folder`: of the cut, within the storage.
  PartOfCut(Storage* storage, std::string folder, const CutId& cut, ServerId server, std::vector<TensorSpec> tensors,
            uint32_t ranks);

  // `marks`: per rank, the next clock that the block expects. After an error the part is to be given up.
  absl::Status Append(const BlockExport& image, absl::Span<const uint64_t> marks);
  // No more images come, and the file lasts: the report of it, or of why not. A server without blocks has an empty one.
  v1::CutReport Finish();
  // There will be no part. `past`: its clock had gone by.
  v1::CutReport Failed(const absl::Status& why, bool past) const;

  const CutId& cut() const { return cut_; }

 private:
  absl::Status Open();

  Storage* const storage_;
  const std::string folder_;
  const CutId cut_;
  const ServerId server_;
  const std::vector<TensorSpec> tensors_;
  std::vector<uint64_t> least_mark_;  // per rank, of all images
  std::unique_ptr<PartFileWriter> file_;
};

}  // namespace descent

#endif  // DESCENT_SERVER_CHECKPOINT_PART_OF_CUT_H_
