// What the clients of one server's blocks have been told, in one line of history, with replicas or backup ranks: which
// contributions are in, and which versions there are. Whoever serves these blocks from then on must hold all of it.
#ifndef DESCENT_TESTS_SIMULATION_TOLD_H_
#define DESCENT_TESTS_SIMULATION_TOLD_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/wire/frame.h"
#include "server/node/server_node.h"
#include "tests/simulation/ledger.h"

namespace descent::simulation {

class Told {
 public:
  explicit Told(uint32_t ranks) : marks_(ranks), pushers_(ranks), applied_(ranks) {}

  // A reply leaves the server. `pusher`: who truly held the rank when what it acknowledges was pushed.
  void Add(const Reply& reply, Incarnation pusher);
  // "" or what `node` lacks of it. It holds these blocks, and each contribution that it says it has exactly once.
  std::string Check(const Job& job, const PartitionMap& map, ServerId server, const Ledger& ledger,
                    ServerNode& node) const;
  // Per rank, the newest holder a push of which was acknowledged.
  const std::vector<Incarnation>& pushers() const { return pushers_; }
  // Per rank: the clocks below were acknowledged.
  const std::vector<uint64_t>& marks() const { return marks_; }
  uint64_t clocks() const;  // acknowledged as complete, of all ranks

 private:
  std::vector<uint64_t> marks_;  // per rank: the clocks below are complete here
  std::vector<Incarnation> pushers_;
  std::vector<std::set<uint64_t>> applied_;  // with backup ranks, per rank: clocks that were acknowledged as taken in
  std::map<BlockId, uint64_t> versions_;
};

}  // namespace descent::simulation

#endif  // DESCENT_TESTS_SIMULATION_TOLD_H_
