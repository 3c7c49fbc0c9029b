// A server's part of a cut in the simulated cluster: takes the images and writes them one in a while, as
// server/process/cut_writer does on a thread; what is written is the same code's (PartOfCut).
#ifndef DESCENT_TESTS_SIMULATION_CLUSTER_PART_H_
#define DESCENT_TESTS_SIMULATION_CLUSTER_PART_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "descent/v1/coordinator.pb.h"
#include "server/checkpoint/part_of_cut.h"
#include "server/node/cut_sink.h"

namespace descent::simulation {

class ClusterPart final : public CutSink {
 public:
  // `storage` outlives it.
  ClusterPart(Storage* storage, std::string folder, const CutId& cut, ServerId server, std::vector<TensorSpec> tensors,
              uint32_t ranks);

  void Add(BlockExport image, std::vector<uint64_t> marks) override;
  void Done() override { done_ = true; }

  // One image at a time; then the end of the file, once the node is done.
  void Step();
  void Fail(const absl::Status& why, bool past);

  const std::optional<v1::CutReport>& report() const { return report_; }

 private:
  PartOfCut part_;
  std::deque<std::pair<BlockExport, std::vector<uint64_t>>> queue_;
  bool done_ = false;
  std::optional<v1::CutReport> report_;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_CLUSTER_PART_H_
