// The store alone, on one thread: update rules and reduction in GB/s beside memcpy and axpy of the same run, sparse
// pull and push in keys per second on a table of --keys keys (default 10 million).
//
//   store_bench [--keys=N] [Google Benchmark's flags]
//
// Bytes per second count the gradient's bytes alone (memcpy: the bytes copied), so a rule that also moves its state is
// compared by what it costs per parameter.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/check.h"
#include "common/base/copy_bytes.h"
#include "common/random/philox.h"
#include "descent/v1/job.pb.h"
#include "server/store/block_store.h"
#include "server/store/kernels.h"
#include "server/store/slab_arena.h"

namespace descent {
namespace {

constexpr size_t kBlock = 65536;  // elements: 256 KiB
uint64_t g_keys = 10'000'000;

// "adam", or "adam proximal".
v1::Optimizer Spec(const std::string& kind) {
  v1::Optimizer spec;
  const std::string rule = kind.substr(0, kind.find(' '));
  spec.GetReflection()->MutableMessage(&spec, spec.GetDescriptor()->FindFieldByName(rule));
  if (rule != kind) spec.mutable_proximal()->set_l1(1e-6);
  return spec;
}

std::vector<float> Values(size_t n, uint64_t stream) {
  std::vector<float> out(n);
  const RandomStream random(1, Purpose::kTest, stream, 0);
  for (size_t i = 0; i < n; ++i) out[i] = random.Uniform(i) - 0.5f;
  return out;
}

void SetGradientBytes(benchmark::State& state, size_t elements) {
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * elements * sizeof(float)));
}

// The second argument: how many bytes the target lies behind the source modulo 4,096.
template <auto copy>
void Copy(benchmark::State& state) {
  const size_t n = static_cast<size_t>(state.range(0)), bytes = n * sizeof(float);
  constexpr size_t kPage = 4096;
  const std::vector<std::byte> from(bytes + kPage, std::byte{1});
  std::vector<std::byte> to(bytes + 2 * kPage);
  const auto place = [](const auto& of) { return reinterpret_cast<uintptr_t>(of.data()) % kPage; };
  std::byte* target = to.data() + (kPage + place(from) - place(to)) % kPage + state.range(1);
  for (auto _ : state) {
    copy(target, from.data(), bytes);
    benchmark::ClobberMemory();
  }
  SetGradientBytes(state, n);
}

void Axpy(benchmark::State& state) {
  const size_t n = static_cast<size_t>(state.range(0));
  const std::vector<float> x = Values(n, 1);
  std::vector<float> w = Values(n, 2);
  auto rule = UpdateRule::Make(Spec("sgd")).value();
  const Step step{1, 1e-6f, 1.0f, 0};
  for (auto _ : state) {
    rule->Apply(step, n, w.data(), w.data(), nullptr, x.data());
    benchmark::ClobberMemory();
  }
  SetGradientBytes(state, n);
}

void Rule(benchmark::State& state, const std::string& kind, float l2) {
  const size_t n = static_cast<size_t>(state.range(0));
  const std::vector<float> g = Values(n, 1);
  std::vector<float> w = Values(n, 2), out(n), s0(n), s1(n), s2(n);
  float* slots[] = {s0.data(), s1.data(), s2.data()};
  auto rule = UpdateRule::Make(Spec(kind)).value();
  uint64_t t = 0;
  for (auto _ : state) {
    rule->Apply({++t, 1e-4f, 0.5f, l2}, n, w.data(), out.data(), slots, g.data());
    benchmark::ClobberMemory();
  }
  SetGradientBytes(state, n);
}

void Finite(benchmark::State& state) {
  const size_t n = static_cast<size_t>(state.range(0));
  const std::vector<float> g = Values(n, 1);
  for (auto _ : state) benchmark::DoNotOptimize(AllFinite(n, g.data()));
  SetGradientBytes(state, n);
}

void Sum(benchmark::State& state) {
  const size_t n = static_cast<size_t>(state.range(0));
  const std::vector<float> g = Values(n, 1);
  std::vector<float> sum(n);
  for (auto _ : state) {
    AddTo(n, g.data(), sum.data());
    benchmark::ClobberMemory();
  }
  SetGradientBytes(state, n);
}

void Squares(benchmark::State& state) {
  const size_t n = static_cast<size_t>(state.range(0));
  const std::vector<float> g = Values(n, 1);
  for (auto _ : state) {
    SquareSum sum;
    sum.Add(0, n, g.data(), 0.5f);
    benchmark::DoNotOptimize(sum.sum());
  }
  SetGradientBytes(state, n);
}

StoreOptions Options(TensorSpec spec, const std::string& kind, uint32_t ranks) {
  StoreOptions options;
  options.tensors = {std::move(spec)};
  options.map = MakePartitionMap(options.tensors, options.geometry, 1);
  options.ranks = ranks;
  options.rule = UpdateRule::Make(Spec(kind)).value();
  options.rate = [](Clock) { return 1e-3f; };
  return options;
}

// Whole rounds of the dense store: contributions of range(0) ranks, finite test, reduction, rule. Bytes: all ranks'.
void Round(benchmark::State& state, const std::string& kind, bool squares) {
  const auto ranks = static_cast<uint32_t>(state.range(0));
  const auto blocks = static_cast<uint32_t>(state.range(1));
  TensorSpec spec;
  spec.name = "w";
  spec.shape = {blocks * kBlock};
  auto store = BlockStore::Create(Options(spec, kind, ranks)).value();
  std::vector<std::vector<float>> g;
  for (uint32_t r = 0; r < ranks; ++r) g.push_back(Values(blocks * kBlock, r));
  for (auto _ : state) {
    double square = 0;
    for (uint32_t b = 0; b < blocks; ++b) {
      const BlockId id{TensorId(0), b};
      for (uint32_t r = 0; r < ranks; ++r) {
        Payload payload;
        payload.Append(g[r].data() + b * kBlock, kBlock * sizeof(float), nullptr);
        DESCENT_CHECK(store->Hold(id, Rank(r), 1, payload).ok());
      }
      DESCENT_CHECK(store->Commit(id, ranks, squares ? &square : nullptr).ok());
    }
  }
  SetGradientBytes(state, ranks * blocks * kBlock);
}

// What the memory gives: read-modify-write of one random line of as many lines as there are keys, addresses known in
// advance and prefetched. A push of rows of at most a line takes two such accesses, to the entry and to the row.
void RandomLines(benchmark::State& state) {
  SlabArena arena;
  const size_t lines = std::bit_ceil(g_keys);
  auto* memory = static_cast<uint64_t*>(arena.Take(lines * 64));
  DESCENT_CHECK(memory != nullptr);
  std::memset(memory, 0, lines * 64);
  constexpr size_t kCount = 1'000'000, kAhead = 16;
  std::vector<uint64_t> order(kCount + kAhead);
  const RandomStream random(3, Purpose::kTest, 0, 0);
  for (size_t i = 0; i < order.size(); ++i) order[i] = random.Below(i, lines);
  for (auto _ : state) {
    for (size_t i = 0; i < kCount; ++i) {
      __builtin_prefetch(memory + order[i + kAhead] * 8, 1);
      memory[order[i] * 8] += i;
    }
    benchmark::ClobberMemory();
  }
  state.counters["lines/s"] =
      benchmark::Counter(static_cast<double>(state.iterations() * kCount), benchmark::Counter::kIsRate);
}

// --- Sparse ----------------------------------------------------------------------------------------------------------

struct SlotBatch {
  uint32_t slot = 0;
  std::vector<uint64_t> keys;
  std::vector<float> values;
};

// `count` uniformly random keys below g_keys, unique, grouped by slot and ascending within, as the wire brings them.
std::vector<SlotBatch> RandomBatch(const Geometry& geometry, uint64_t count, uint32_t dim, uint64_t stream) {
  const RandomStream random(2, Purpose::kTest, stream, 0);
  std::vector<std::vector<uint64_t>> keys(geometry.slots);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t key = random.Below(i, g_keys);
    keys[geometry.slot(key)].push_back(key);
  }
  std::vector<SlotBatch> out;
  for (uint32_t slot = 0; slot < geometry.slots; ++slot) {
    std::sort(keys[slot].begin(), keys[slot].end());
    keys[slot].erase(std::unique(keys[slot].begin(), keys[slot].end()), keys[slot].end());
    if (keys[slot].empty()) continue;
    out.push_back({slot, keys[slot], std::vector<float>(keys[slot].size() * dim, 0.25f)});
  }
  return out;
}

Payload Pack(const SlotBatch& batch, bool values) {
  Payload payload;
  payload.Append(batch.keys.data(), batch.keys.size() * sizeof(uint64_t), nullptr);
  if (values) payload.Append(batch.values.data(), batch.values.size() * sizeof(float), nullptr);
  return payload;
}

// The table of the last benchmark is kept: several share it, and it takes seconds to fill.
BlockStore& FullTable(const std::string& kind, uint32_t dim) {
  static std::string* const last = new std::string;
  static std::unique_ptr<BlockStore>* const store = new std::unique_ptr<BlockStore>;
  const std::string name = kind + std::to_string(dim);
  if (*last == name) return **store;
  store->reset();
  TensorSpec spec;
  spec.name = "table";
  spec.sparse = true;
  spec.shape = {dim};
  StoreOptions options = Options(spec, kind, 1);
  options.apply_push = true;
  options.history = 0;
  const Geometry geometry = options.geometry;
  *store = BlockStore::Create(std::move(options)).value();
  std::vector<SlotBatch> all(geometry.slots);
  for (uint64_t key = 0; key < g_keys; ++key) all[geometry.slot(key)].keys.push_back(key);
  for (uint32_t slot = 0; slot < geometry.slots; ++slot) {
    all[slot].values.assign(all[slot].keys.size() * dim, 0.5f);
    DESCENT_CHECK((*store)->ApplySparse({TensorId(0), slot}, 1, all[slot].keys.size(), Pack(all[slot], true)).ok());
  }
  *last = name;
  return **store;
}

void Sparse(benchmark::State& state, const std::string& kind, bool push) {
  const auto dim = static_cast<uint32_t>(state.range(0));
  const auto count = static_cast<uint64_t>(state.range(1));
  BlockStore& store = FullTable(kind, dim);
  // Enough different batches that nothing of one is still in the cache when it comes again.
  const uint64_t batches = std::max<uint64_t>(1, 1'000'000 / count);
  std::vector<std::vector<SlotBatch>> work;
  for (uint64_t b = 0; b < batches; ++b) work.push_back(RandomBatch(Geometry(), count, dim, b));
  uint64_t keys = 0;
  size_t next = 0;
  for (auto _ : state) {
    for (const SlotBatch& batch : work[next]) {
      const BlockId id{TensorId(0), batch.slot};
      const auto n = static_cast<uint32_t>(batch.keys.size());
      if (push) {
        DESCENT_CHECK(store.ApplySparse(id, 1, n, Pack(batch, true)).ok());
      } else {
        auto rows = store.ReadSparse(id, n, Pack(batch, false), std::nullopt);
        DESCENT_CHECK(rows.ok());
        benchmark::DoNotOptimize(*rows);
      }
      keys += n;
    }
    next = (next + 1) % work.size();
  }
  state.counters["keys/s"] = benchmark::Counter(static_cast<double>(keys), benchmark::Counter::kIsRate);
  state.counters["B/key"] = static_cast<double>(store.total_bytes()) / static_cast<double>(g_keys);
}

// Whole rounds of a table: contributions of range(1) ranks, each of the same number of random keys, merged and stepped.
void SparseRound(benchmark::State& state, float l2) {
  const auto dim = static_cast<uint32_t>(state.range(0));
  const auto ranks = static_cast<uint32_t>(state.range(1));
  TensorSpec spec;
  spec.name = "table";
  spec.sparse = true;
  spec.shape = {dim};
  StoreOptions options = Options(spec, "adagrad", ranks);
  options.l2 = l2;
  const Geometry geometry = options.geometry;
  auto store = BlockStore::Create(std::move(options)).value();
  const uint64_t count = 100'000;
  std::vector<std::vector<SlotBatch>> work;
  for (uint64_t b = 0; b < 4 * ranks; ++b) work.push_back(RandomBatch(geometry, count, dim, b));
  uint64_t clock = 0, keys = 0;
  for (auto _ : state) {
    for (uint32_t r = 0; r < ranks; ++r) {
      for (const SlotBatch& batch : work[(clock * ranks + r) % work.size()]) {
        const auto n = static_cast<uint32_t>(batch.keys.size());
        DESCENT_CHECK(store->HoldSparse({TensorId(0), batch.slot}, Rank(r), 1, n, Pack(batch, true)).ok());
        keys += n;
      }
    }
    for (BlockId id : store->HeldSlots()) DESCENT_CHECK(store->Commit(id, ranks, nullptr).ok());
    store->AdvanceSlots(++clock);
  }
  state.counters["keys/s"] = benchmark::Counter(static_cast<double>(keys), benchmark::Counter::kIsRate);
}

void Register() {
  for (const int64_t n : {int64_t{kBlock}, int64_t{16 * kBlock}}) {
    for (const int64_t behind : {64, 16}) {
      benchmark::RegisterBenchmark("memcpy", Copy<std::memcpy>)->Args({n, behind});
      benchmark::RegisterBenchmark("copy_bytes", Copy<CopyBytes>)->Args({n, behind});
    }
    benchmark::RegisterBenchmark("axpy", Axpy)->Arg(n);
    benchmark::RegisterBenchmark("finite_test", Finite)->Arg(n);
    benchmark::RegisterBenchmark("reduce", Sum)->Arg(n);
    benchmark::RegisterBenchmark("squares", Squares)->Arg(n);
    for (const char* kind : {"sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw",
                             "amsgrad", "ftrl", "sgd proximal", "adagrad proximal", "adam proximal"}) {
      const std::string name = kind;
      benchmark::RegisterBenchmark(("rule/" + name).c_str(), [name](auto& s) { Rule(s, name, 0); })->Arg(n);
      benchmark::RegisterBenchmark(("rule_l2/" + name).c_str(), [name](auto& s) { Rule(s, name, 1e-4f); })->Arg(n);
    }
  }
  for (const char* kind : {"sgd", "adam"}) {
    const std::string name = kind;
    for (const auto& [ranks, blocks] : {std::pair{1, 1}, {2, 1}, {1, 64}, {2, 64}, {4, 64}}) {
      benchmark::RegisterBenchmark(("round/" + name).c_str(), [name](auto& s) {
        Round(s, name, false);
      })->Args({ranks, blocks});
    }
  }
  benchmark::RegisterBenchmark("round_squares/adam", [](auto& s) { Round(s, "adam", true); })->Args({2, 64});
  benchmark::RegisterBenchmark("random_lines", RandomLines);
  for (const int64_t dim : {1, 8, 64}) {
    for (const char* kind : {"sgd", "adagrad"}) {
      const std::string name = kind;
      for (const int64_t count : {20'000, 1'000'000}) {
        benchmark::RegisterBenchmark(("sparse_pull/" + name).c_str(), [name](auto& s) { Sparse(s, name, false); })
            ->Args({dim, count})
            ->ArgNames({"dim", "batch"});
        benchmark::RegisterBenchmark(("sparse_push/" + name).c_str(), [name](auto& s) { Sparse(s, name, true); })
            ->Args({dim, count})
            ->ArgNames({"dim", "batch"});
      }
    }
  }
  for (const int64_t dim : {1, 8}) {
    benchmark::RegisterBenchmark("sparse_round", [](auto& s) { SparseRound(s, 0); })->Args({dim, 4});
    benchmark::RegisterBenchmark("sparse_round_l2", [](auto& s) { SparseRound(s, 1e-4f); })->Args({dim, 4});
  }
}

}  // namespace
}  // namespace descent

int main(int argc, char** argv) {
  constexpr char kFlag[] = "--keys=";
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], kFlag, sizeof(kFlag) - 1) != 0) continue;
    descent::g_keys = std::strtoull(argv[i] + sizeof(kFlag) - 1, nullptr, 10);
    std::copy(argv + i + 1, argv + argc, argv + i);
    --argc;
    break;
  }
  descent::Register();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
