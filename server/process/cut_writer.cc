#include "server/process/cut_writer.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "common/base/status_macros.h"

namespace descent {

CutWriter::CutWriter(Storage* storage, std::string folder, const CutId& cut, ServerId server,
                     std::vector<TensorSpec> tensors, uint32_t ranks)
    : part_(storage, std::move(folder), cut, server, std::move(tensors), ranks), thread_([this] { Run(); }) {}

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

absl::Status CutWriter::Write() {
  Image image;
  while (Next(&image)) {
    DESCENT_RETURN_IF_ERROR(part_.Append(image.block, image.marks));
    image = Image();
  }
  MutexLock lock(&mu_);
  return abandoned_;
}

void CutWriter::Run() {
  const absl::Status written = Write();
  std::optional<v1::CutReport> report;
  if (written.ok()) report = part_.Finish();
  MutexLock lock(&mu_);
  if (!report.has_value()) report = part_.Failed(written, past_);
  if (!report->failure().empty() && abandoned_.ok()) {
    abandoned_ = absl::UnavailableError(report->failure());  // what still comes is dropped
  }
  queue_.clear();
  result_ = *std::move(report);
}

}  // namespace descent
