// The images of one server in a cut, kept for the servers of the next generation.
#ifndef DESCENT_TESTS_SIMULATION_SERVER_IMAGES_H_
#define DESCENT_TESTS_SIMULATION_SERVER_IMAGES_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "server/node/cut_sink.h"

namespace descent::simulation {

class ServerImages final : public CutSink {
 public:
  void Add(BlockExport image, std::vector<uint64_t> marks) override {
    records_.emplace_back(std::move(image), std::move(marks));
  }
  void Done() override { done_ = true; }

  bool done() const { return done_; }
  const std::vector<std::pair<BlockExport, std::vector<uint64_t>>>& records() const { return records_; }
  // Lowers clock[rank] to the least clock that a block here lacks of the rank.
  void Lower(std::vector<uint64_t>* clock) const {
    for (const auto& [image, marks] : records_) {
      for (size_t r = 0; r < marks.size(); ++r) (*clock)[r] = std::min((*clock)[r], marks[r]);
    }
  }

 private:
  std::vector<std::pair<BlockExport, std::vector<uint64_t>>> records_;
  bool done_ = false;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_SERVER_IMAGES_H_
