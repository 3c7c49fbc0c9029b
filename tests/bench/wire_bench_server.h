// The server's side of wire_bench: a real server (ServerNode behind gRPC) in a process of its own.
#ifndef DESCENT_TESTS_BENCH_WIRE_BENCH_SERVER_H_
#define DESCENT_TESTS_BENCH_WIRE_BENCH_SERVER_H_

#include <cstdint>
#include <string>

#include "common/tensor/partition_map.h"
#include "common/wire/frame.h"

namespace descent::bench {

struct Model {
  uint64_t dense_elements = 0;  // one dense tensor of so many, or
  uint32_t sparse_dim = 0;      // one table of this dim
  uint32_t ranks = 1;
  bool adam = false;

  std::vector<TensorSpec> tensors() const;
  Geometry geometry() const { return {}; }
  PartitionMap map() const { return MakePartitionMap(tensors(), geometry(), 1); }
  Envelope envelope() const;
};

// Prints its port on standard output, serves until standard input ends, and for each byte of that prints two numbers:
// bytes of payload that came and went, and how many of them the server has copied. `local`: over local sockets too.
void ServeModel(const Model& model, bool local);

}  // namespace descent::bench

#endif  // DESCENT_TESTS_BENCH_WIRE_BENCH_SERVER_H_
