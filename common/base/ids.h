// Strong id types: a rank can't be passed where a clock is meant. Plain values, free of charge.
#ifndef DESCENT_COMMON_BASE_IDS_H_
#define DESCENT_COMMON_BASE_IDS_H_

#include <compare>
#include <cstdint>
#include <limits>
#include <utility>

namespace descent {

template <typename Tag, typename Int>
struct Id {
  using Value = Int;
  Int value = 0;

  constexpr Id() = default;
  constexpr explicit Id(Int v) : value(v) {}
  constexpr auto operator<=>(const Id&) const = default;
  constexpr Id& operator++() {
    ++value;
    return *this;
  }
  template <typename H>
  friend H AbslHashValue(H h, const Id& id) {
    return H::combine(std::move(h), id.value);
  }
};

using RunId = Id<struct RunTag, uint64_t>;
using Generation = Id<struct GenerationTag, uint64_t>;
using MemberId = Id<struct MemberTag, uint64_t>;  // a registered process
using ServerId = Id<struct ServerTag, uint32_t>;  // not an address
using Rank = Id<struct RankTag, uint32_t>;        // a logical worker
using Clock = Id<struct ClockTag, uint64_t>;      // iterations a rank has completed
using TensorId = Id<struct TensorTag, uint32_t>;  // index in the job's tensor specs
using ConnectionId = Id<struct ConnectionTag, uint64_t>;

inline constexpr uint64_t kUnbounded = std::numeric_limits<uint64_t>::max();

// Of a lease: `number` counts the grants of a rank within a generation.
struct Incarnation {
  Generation generation;
  uint64_t number = 0;
  constexpr auto operator<=>(const Incarnation&) const = default;
};

// A block of a dense tensor, or a slot of a sparse table.
struct BlockId {
  TensorId tensor;
  uint32_t index = 0;
  constexpr auto operator<=>(const BlockId&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const BlockId& id) {
    return H::combine(std::move(h), id.tensor, id.index);
  }
};

}  // namespace descent

#endif  // DESCENT_COMMON_BASE_IDS_H_
