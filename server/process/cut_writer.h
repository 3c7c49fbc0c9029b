// Writes one server's part of a cut into its file, on a thread of its own, while the node goes on training.
#ifndef DESCENT_SERVER_PROCESS_CUT_WRITER_H_
#define DESCENT_SERVER_PROCESS_CUT_WRITER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "descent/v1/coordinator.pb.h"
#include "server/checkpoint/part_of_cut.h"
#include "server/node/cut_sink.h"

namespace descent {

// Thread-safe. What waits to be written shares its bytes with the store where these do not change, so the queue is as
// large as what the store plans for a cut, at most.
class CutWriter final : public CutSink {
 public:
  // `storage` outlives the writer. `folder`: of the cut, within the storage.
  CutWriter(Storage* storage, std::string folder, const CutId& cut, ServerId server, std::vector<TensorSpec> tensors,
            uint32_t ranks);
  // Ends the thread; a part that is not finished is left as it is.
  ~CutWriter() override;

  // The node's thread.
  void Add(BlockExport image, std::vector<uint64_t> marks) override;
  void Done() override;
  // No more images will come, for this reason, where Done has not been called.
  void Abandon(absl::Status why, bool past = false);

  // The part's file, or why there is none; nullopt while it is being written.
  std::optional<v1::CutReport> result() const;

 private:
  struct Image {
    BlockExport block;
    std::vector<uint64_t> marks;
  };
  void Run();
  absl::Status Write();
  // False: no more.
  bool Next(Image* image);

  PartOfCut part_;  // the writing thread's

  mutable Mutex mu_;
  CondVar changed_;
  std::deque<Image> queue_ ABSL_GUARDED_BY(mu_);
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  bool past_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status abandoned_ ABSL_GUARDED_BY(mu_);
  std::optional<v1::CutReport> result_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses the fields above
};

}  // namespace descent

#endif  // DESCENT_SERVER_PROCESS_CUT_WRITER_H_
