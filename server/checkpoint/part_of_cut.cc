#include "server/checkpoint/part_of_cut.h"

#include <algorithm>
#include <utility>

#include "common/base/status_macros.h"

namespace descent {

PartOfCut::PartOfCut(Storage* storage, std::string folder, const CutId& cut, ServerId server,
                     std::vector<TensorSpec> tensors, uint32_t ranks)
    : storage_(storage),
      folder_(std::move(folder)),
      cut_(cut),
      server_(server),
      tensors_(std::move(tensors)),
      least_mark_(ranks, UINT64_MAX) {}

absl::Status PartOfCut::Open() {
  if (file_ != nullptr) return absl::OkStatus();
  DESCENT_ASSIGN_OR_RETURN(file_, PartFileWriter::Create(storage_, folder_, cut_, server_));
  return absl::OkStatus();
}

absl::Status PartOfCut::Append(const BlockExport& image, absl::Span<const uint64_t> marks) {
  DESCENT_RETURN_IF_ERROR(Open());
  const TensorSpec& spec = tensors_[image.id.tensor.value];
  DESCENT_RETURN_IF_ERROR(file_->Append(image, spec.sparse ? spec.dim() : 0, marks));
  for (size_t r = 0; r < least_mark_.size(); ++r) least_mark_[r] = std::min(least_mark_[r], marks[r]);
  return absl::OkStatus();
}

v1::CutReport PartOfCut::Finish() {
  if (const absl::Status open = Open(); !open.ok()) return Failed(open, false);
  absl::StatusOr<v1::PartFile> part = file_->Finish();
  if (!part.ok()) return Failed(part.status(), false);
  v1::CutReport report;
  report.set_number(cut_.number);
  report.set_server(server_.value);
  *report.mutable_part() = *std::move(part);
  for (uint64_t mark : least_mark_) report.add_least_mark(mark);
  return report;
}

v1::CutReport PartOfCut::Failed(const absl::Status& why, bool past) const {
  v1::CutReport report;
  report.set_number(cut_.number);
  report.set_server(server_.value);
  report.set_failure(std::string(why.message()));
  report.set_past(past);
  return report;
}

}  // namespace descent
