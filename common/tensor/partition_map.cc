#include "common/tensor/partition_map.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace descent {

PartitionMap MakePartitionMap(absl::Span<const TensorSpec> specs, const Geometry& geometry, uint32_t servers) {
  PartitionMap map;
  map.servers = servers;
  map.placement.resize(specs.size());
  struct Block {
    BlockId id;
    uint32_t elements;
  };
  std::vector<Block> blocks;
  for (uint32_t t = 0; t < specs.size(); ++t) {
    map.placement[t].resize(geometry.blocks(specs[t]));
    for (uint32_t b = 0; b < map.placement[t].size(); ++b) {
      if (specs[t].sparse) {
        map.placement[t][b] = ServerId(b % servers);
      } else {
        blocks.push_back({BlockId{TensorId(t), b}, geometry.block_size(specs[t], b)});
      }
    }
  }
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Block& a, const Block& b) { return a.elements > b.elements; });
  using Load = std::pair<uint64_t, uint32_t>;  // elements, server
  std::priority_queue<Load, std::vector<Load>, std::greater<Load>> least;
  for (uint32_t s = 0; s < servers; ++s) least.emplace(0, s);
  for (const Block& block : blocks) {
    auto [load, server] = least.top();
    least.pop();
    map.placement[block.id.tensor.value][block.id.index] = ServerId(server);
    least.emplace(load + block.elements, server);
  }
  return map;
}

}  // namespace descent
