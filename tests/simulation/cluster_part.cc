#include "tests/simulation/cluster_part.h"

#include <algorithm>

#include "common/base/status_macros.h"
#include "tests/simulation/cluster_line.h"

namespace descent::simulation {

ClusterPart::ClusterPart(Storage* storage, std::string folder, const CutId& cut, ServerId server,
                         std::vector<TensorSpec> tensors, uint32_t ranks)
    : storage_(storage),
      folder_(std::move(folder)),
      cut_(cut),
      server_(server),
      tensors_(std::move(tensors)),
      least_mark_(ranks, UINT64_MAX) {}

void ClusterPart::Add(BlockExport image, std::vector<uint64_t> marks) {
  image.payload = Copied(image.payload);  // it waits
  queue_.emplace_back(std::move(image), std::move(marks));
}

void ClusterPart::Step() {
  if (report_.has_value()) return;
  absl::Status status;
  if (!queue_.empty()) {
    status = Append(queue_.front().first, queue_.front().second);
    queue_.pop_front();
  } else if (done_) {
    status = Open();
    absl::StatusOr<v1::PartFile> part;
    if (status.ok()) {
      part = file_->Finish();
      status = part.status();
    }
    if (status.ok()) {
      report_.emplace();
      report_->set_number(cut_.number);
      report_->set_server(server_.value);
      *report_->mutable_part() = *part;
      for (uint64_t mark : least_mark_) report_->add_least_mark(mark);
    }
  }
  if (!status.ok()) Fail(status, false);
}

void ClusterPart::Fail(const absl::Status& why, bool past) {
  report_.emplace();
  report_->set_number(cut_.number);
  report_->set_server(server_.value);
  report_->set_failure(std::string(why.message()));
  report_->set_past(past);
  queue_.clear();
}

absl::Status ClusterPart::Open() {
  if (file_ != nullptr) return absl::OkStatus();
  DESCENT_ASSIGN_OR_RETURN(file_, PartFileWriter::Create(storage_, folder_, cut_, server_));
  return absl::OkStatus();
}

absl::Status ClusterPart::Append(const BlockExport& image, const std::vector<uint64_t>& marks) {
  DESCENT_RETURN_IF_ERROR(Open());
  const TensorSpec& spec = tensors_[image.id.tensor.value];
  for (size_t r = 0; r < least_mark_.size(); ++r) least_mark_[r] = std::min(least_mark_[r], marks[r]);
  return file_->Append(image, spec.sparse ? spec.dim() : 0, marks);
}

}  // namespace descent::simulation
