#include "tests/simulation/cluster_part.h"

#include "tests/simulation/cluster_line.h"

namespace descent::simulation {

ClusterPart::ClusterPart(Storage* storage, std::string folder, const CutId& cut, ServerId server,
                         std::vector<TensorSpec> tensors, uint32_t ranks)
    : part_(storage, std::move(folder), cut, server, std::move(tensors), ranks) {}

void ClusterPart::Add(BlockExport image, std::vector<uint64_t> marks) {
  image.payload = Copied(image.payload);  // it waits
  queue_.emplace_back(std::move(image), std::move(marks));
}

void ClusterPart::Step() {
  if (report_.has_value()) return;
  if (!queue_.empty()) {
    const absl::Status written = part_.Append(queue_.front().first, queue_.front().second);
    queue_.pop_front();
    if (!written.ok()) Fail(written, false);
  } else if (done_) {
    report_ = part_.Finish();
  }
}

void ClusterPart::Fail(const absl::Status& why, bool past) {
  report_ = part_.Failed(why, past);
  queue_.clear();
}

}  // namespace descent::simulation
