#include "server/process/cut_writer.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "common/base/status_macros.h"
#include "server/checkpoint/part_file.h"

namespace descent {

CutWriter::CutWriter(Storage* storage, std::string folder, const CutId& cut, ServerId server,
                     std::vector<TensorSpec> tensors, uint32_t ranks)
    : storage_(storage),
      folder_(std::move(folder)),
      cut_(cut),
      server_(server),
      tensors_(std::move(tensors)),
      least_mark_(ranks, UINT64_MAX),
      thread_([this] { Run(); }) {}

CutWriter::~CutWriter() {
  Abandon(absl::CancelledError("the server goes on without it"));
  thread_.join();
}

void CutWriter::Add(BlockExport image, std::vector<uint64_t> marks) {
  MutexLock lock(&mu_);
  if (!abandoned_.ok()) return;
  queue_.push_back({std::move(image), std::move(marks)});
  changed_.SignalAll();
}

void CutWriter::Done() {
  MutexLock lock(&mu_);
  done_ = true;
  changed_.SignalAll();
}

void CutWriter::Abandon(absl::Status why, bool past) {
  std::deque<Image> dropped;  // released outside of the lock
  MutexLock lock(&mu_);
  if (!abandoned_.ok() || result_.has_value()) return;
  abandoned_ = std::move(why);
  past_ = past;
  dropped.swap(queue_);
  changed_.SignalAll();
}

std::optional<v1::CutReport> CutWriter::result() const {
  MutexLock lock(&mu_);
  return result_;
}

bool CutWriter::Next(Image* image) {
  MutexLock lock(&mu_);
  while (queue_.empty() && !done_ && abandoned_.ok()) changed_.WaitUntil(&mu_, absl::InfiniteFuture());
  if (queue_.empty() || !abandoned_.ok()) return false;
  *image = std::move(queue_.front());
  queue_.pop_front();
  return true;
}

absl::StatusOr<v1::PartFile> CutWriter::Write() {
  // The file is made with its first image: an order may wait for its clock, or be taken back.
  std::unique_ptr<PartFileWriter> file;
  const auto open = [&]() -> absl::Status {
    if (file != nullptr) return absl::OkStatus();
    DESCENT_ASSIGN_OR_RETURN(file, PartFileWriter::Create(storage_, folder_, cut_, server_));
    return absl::OkStatus();
  };
  Image image;
  while (Next(&image)) {
    DESCENT_RETURN_IF_ERROR(open());
    const TensorSpec& spec = tensors_[image.block.id.tensor.value];
    DESCENT_RETURN_IF_ERROR(file->Append(image.block, spec.sparse ? spec.dim() : 0, image.marks));
    for (size_t r = 0; r < least_mark_.size(); ++r) least_mark_[r] = std::min(least_mark_[r], image.marks[r]);
    image = Image();
  }
  {
    MutexLock lock(&mu_);
    if (!abandoned_.ok()) return abandoned_;
  }
  DESCENT_RETURN_IF_ERROR(open());  // of a server without blocks
  return file->Finish();
}

void CutWriter::Run() {
  absl::StatusOr<v1::PartFile> written = Write();
  v1::CutReport report;
  report.set_number(cut_.number);
  MutexLock lock(&mu_);
  if (written.ok()) {
    *report.mutable_part() = *std::move(written);
    for (uint64_t mark : least_mark_) report.add_least_mark(mark);
  } else {
    report.set_failure(std::string(written.status().message()));
    report.set_past(past_);
    if (abandoned_.ok()) abandoned_ = written.status();  // what still comes is dropped
    queue_.clear();
  }
  result_ = std::move(report);
}

}  // namespace descent
