// A cluster of threads that trains by pushes over a network that delays, repeats and loses messages, is cut in the
// middle, goes on from there on another number of servers, and is replayed from its last cut to the very bits. A
// recorded order that is not the run's is found out.
#include "cli/replay.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/time_source.h"
#include "common/random/philox.h"
#include "descent/v1/job.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/node/kept_cut.h"
#include "tests/support/in_process_transport.h"
#include "tests/training/local_control.h"
#include "worker/loop/trainer.h"
#include "worker/models/model_factory.h"

namespace descent {
namespace {

using ::testing::HasSubstr;
using testing::InProcessCluster;
using testing::LocalControl;
using testing::NetworkFaults;

constexpr uint32_t kRanks = 4;
constexpr uint64_t kClocks = 40, kSeed = 11;
constexpr size_t kFeatures = 9;

struct Problem {
  bool sparse = false;
  v1::Optimizer optimizer;
  uint64_t staleness = kUnbounded;
  bool apply_push = true;
  Geometry geometry{32, 16};

  std::unique_ptr<Model<float>> Make() const {
    v1::ModelSpec spec;
    if (sparse) {
      spec.mutable_logistic()->set_sparse_table(true);
    } else {
      spec.mutable_mlp()->add_hidden(10);
      spec.mutable_mlp()->set_classes(3);
    }
    auto made = MakeModel<float>(spec, {sparse ? 0u : kFeatures, sparse, {}, {}, 0, {}}, {});
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }
  std::vector<TensorSpec> Tensors() const {
    std::vector<TensorSpec> tensors = Make()->tensors();
    // Rows that do not begin at zero, so that the steps they missed show.
    for (TensorSpec& spec : tensors) {
      if (spec.sparse) spec.initializer = {Initializer::Kind::kUniform, 0.5};
    }
    return tensors;
  }
  ServerNodeOptions Node(uint32_t servers, uint32_t self) const {
    ServerNodeOptions node;
    node.staleness = staleness;
    node.record_order = true;
    StoreOptions& store = node.store;
    store.tensors = Tensors();
    store.geometry = geometry;
    store.map = MakePartitionMap(store.tensors, geometry, servers);
    store.self = ServerId(self);
    store.seed = kSeed;
    store.ranks = kRanks;
    store.rule = std::move(*UpdateRule::Make(optimizer));
    store.rate = [](Clock at) { return 0.05f / static_cast<float>(1 + at.value % 7); };
    store.l2 = 1e-3f;
    store.apply_push = apply_push;
    return node;
  }
};

// Batches as a function of (rank, clock); some are empty.
class Source final : public BatchSource {
 public:
  explicit Source(const Problem& problem) : problem_(problem) {}
  void Request(Rank, Clock) override {}
  void Forget(Rank) override {}
  absl::StatusOr<std::shared_ptr<const Batch>> Get(Rank rank, Clock clock) override {
    const RandomStream stream(kSeed, Purpose::kTest, clock.value, rank.value);
    auto batch = std::make_shared<Batch>();
    batch->rows = stream.Below(0, 4);
    batch->sparse = problem_.sparse;
    uint64_t next = 1;
    if (!problem_.sparse) {
      batch->features = kFeatures;
      batch->dense.Resize(batch->rows * kFeatures);
      for (size_t i = 0; i < batch->rows * kFeatures; ++i) batch->dense[i] = stream.Uniform(next++) - 0.5f;
      for (size_t i = 0; i < batch->rows; ++i) batch->label.push_back(static_cast<float>(stream.Below(next++, 3)));
      return batch;
    }
    std::vector<uint64_t> row;
    for (size_t i = 0; i < 3 * batch->rows; ++i) row.push_back(stream.Below(next++, 50));
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());
    batch->keys = Ordered(row);
    batch->row_begin.push_back(0);
    for (size_t i = 0; i < batch->rows; ++i) {  // every example has all keys, in other amounts
      for (uint32_t k = 0; k < batch->keys.size(); ++k) {
        batch->column.push_back(k);
        batch->value.push_back(stream.Uniform(next++));
      }
      batch->row_begin.push_back(static_cast<uint32_t>(batch->column.size()));
      batch->label.push_back(static_cast<float>(stream.Below(next++, 2)));
    }
    return batch;
  }

 private:
  std::vector<uint64_t> Ordered(std::vector<uint64_t> keys) const {
    std::sort(keys.begin(), keys.end(), [&](uint64_t a, uint64_t b) {
      return std::pair(problem_.geometry.slot(a), a) < std::pair(problem_.geometry.slot(b), b);
    });
    return keys;
  }
  const Problem problem_;
};

class Cluster {
 public:
  Cluster(const Problem& problem, uint32_t servers, uint64_t seed, const WholeCut* from = nullptr)
      : problem_(problem), servers_(servers) {
    std::vector<ServerNodeOptions> nodes;
    for (uint32_t s = 0; s < servers; ++s) {
      nodes.push_back(problem.Node(servers, s));
      if (from == nullptr) continue;
      std::vector<Clock> restart(kRanks, Clock(kUnbounded));
      for (const auto& [id, record] : *from) {
        for (uint32_t r = 0; r < kRanks; ++r) restart[r] = std::min(restart[r], Clock(record.marks[r]));
      }
      nodes.back().restored = RestoredState{std::move(restart)};
    }
    NetworkFaults faults;
    faults.seed = seed;
    faults.drop = 0.01;
    faults.duplicate = 0.05;
    faults.max_delay = absl::Microseconds(300);
    auto made = InProcessCluster::Create(nodes, faults);
    EXPECT_TRUE(made.ok()) << made.status();
    cluster_ = *std::move(made);
    for (uint32_t s = 0; s < servers && from != nullptr; ++s) {
      cluster_->OnNode(ServerId(s), [&](ServerNode& node) {
        const absl::Status status = RestoreFrom(*from, nodes[s], &node);
        EXPECT_TRUE(status.ok()) << status;
      });
    }
  }

  // All ranks to the end; `meanwhile` runs as soon as about a third of the pushes are in.
  void Train(uint32_t workers, const std::function<void()>& meanwhile = nullptr) {
    std::vector<std::thread> threads;
    for (uint32_t w = 0; w < workers; ++w) {
      threads.emplace_back([&, w] { Work(w, workers); });
    }
    if (meanwhile != nullptr) {
      const absl::Time deadline = absl::Now() + absl::Seconds(60);
      while (Pushes(0) < kRanks * kClocks / 3 && absl::Now() < deadline) {
      }
      meanwhile();
    }
    for (std::thread& thread : threads) thread.join();
  }
  // Of all servers, one after another, as orders reach them. In between training gets time to go on, were it to: what
  // is computed from the state after one server's part must not be in another's.
  WholeCut Cut() {
    WholeCut all;
    std::vector<std::shared_ptr<KeptCut>> parts;
    for (uint32_t s = 0; s < servers_; ++s) {
      const absl::Time deadline = absl::Now() + absl::Milliseconds(s == 0 ? 0 : 50);
      for (const uint64_t before = Pushes(s); absl::Now() < deadline && Pushes(s) < before + 6 * kRanks;) {
      }
      parts.push_back(std::make_shared<KeptCut>());
      cluster_->OnNode(ServerId(s), [&](ServerNode& node) {
        EXPECT_TRUE(node.BeginCut(Clock(kClocks), parts.back()).ok());
        while (node.PumpCut()) {
        }
      });
    }
    for (uint32_t s = 0; s < servers_; ++s) {
      cluster_->OnNode(ServerId(s), [](ServerNode& node) { node.DropCut(); });
      EXPECT_TRUE(parts[s]->done());
      for (const auto& [id, record] : parts[s]->records()) all.emplace(id, record);
    }
    return all;
  }

 private:
  uint64_t Pushes(uint32_t server) {
    uint64_t pushes = 0;
    cluster_->OnNode(ServerId(server), [&](ServerNode& node) { pushes = node.stats().pushes; });
    return pushes;
  }
  void Work(uint32_t w, uint32_t workers) {
    std::vector<LeasedRank> leases;
    for (uint32_t r = w; r < kRanks; r += workers) leases.push_back({Rank(r), {Generation(0), 1}});
    LocalControl control(leases);
    Source source(problem_);
    auto model = problem_.Make();
    TrainerOptions options;
    options.consistency.staleness = problem_.staleness;
    options.consistency.apply_push = problem_.apply_push;
    options.geometry = problem_.geometry;
    options.ranks = kRanks;
    options.clocks = kClocks;
    options.record_order = true;
    ClientOptions client;
    client.tensors = problem_.Tensors();
    client.geometry = problem_.geometry;
    client.map = MakePartitionMap(client.tensors, problem_.geometry, servers_);
    client.resend_after = absl::Milliseconds(50);
    client.max_payload_bytes = 256;  // several messages to a push
    const auto connect = [&] {
      Connection connection;
      connection.transport = cluster_->NewTransport();
      connection.client = ParameterClient::Create(client, connection.transport.get(), &time_);
      return connection;
    };
    Trainer trainer(options, model.get(), &source, nullptr, nullptr, connect, &control, &time_);
    const absl::Status status = trainer.Run();
    EXPECT_TRUE(status.ok()) << status;
  }

  const Problem problem_;
  const uint32_t servers_;
  const RealTimeSource time_;
  std::unique_ptr<InProcessCluster> cluster_;
};

std::vector<std::byte> BytesOf(const Payload& payload) {
  std::vector<std::byte> bytes(payload.size());
  payload.CopyTo(bytes.data());
  return bytes;
}

// Replays the cut's orders from nothing. An error, or the first block that differs.
absl::Status Replay(const Problem& problem, const WholeCut& cut) {
  ServerNodeOptions options = problem.Node(1, 0);
  options.store.history = std::max(options.store.history, HistoryFor(options));
  auto store = BlockStore::Create(options.store);
  EXPECT_TRUE(store.ok()) << store.status();
  auto model = problem.Make();
  Source source(problem);
  ReplayInput input;
  input.store = store->get();
  input.model = model.get();
  input.batches = &source;
  input.geometry = problem.geometry;
  input.ranks = kRanks;
  input.staleness = problem.staleness;
  for (const auto& [id, record] : cut) {
    auto order = DecodeOrder(record.image.order, kRanks);
    if (!order.ok()) return order.status();
    input.blocks[id] = {*std::move(order), record.image.version, record.image.steps};
  }
  ReplayCounts counts;
  const absl::Status replayed = problem.apply_push ? ReplayPushes(input, &counts) : ReplayRounds(input, &counts);
  if (!replayed.ok()) return replayed;
  for (const auto& [id, record] : cut) {
    if (problem.apply_push && problem.sparse) (*store)->SetSlotSteps(record.image.steps);
    const auto image = (*store)->Export(id, true);
    EXPECT_TRUE(image.ok());
    if (BytesOf(image->payload) != BytesOf(record.image.payload)) {
      return absl::UnknownError(absl::StrCat("tensor ", id.tensor.value, ", block ", id.index, " differs"));
    }
  }
  return absl::OkStatus();
}

void SetAdam(v1::Optimizer* optimizer) {
  optimizer->mutable_adam()->set_beta1(0.9);
  optimizer->mutable_adam()->set_beta2(0.999);
  optimizer->mutable_adam()->set_epsilon(1e-8);
}

std::vector<Problem> Problems() {
  std::vector<Problem> out;
  for (bool sparse : {false, true}) {
    for (uint64_t staleness : {kUnbounded, uint64_t{2}}) {
      Problem problem;
      problem.sparse = sparse;
      problem.staleness = staleness;
      SetAdam(&problem.optimizer);
      out.push_back(problem);
      problem.optimizer.mutable_momentum()->set_momentum(0.9);
      out.push_back(problem);
    }
  }
  return out;
}

TEST(Replay, PushesOverGenerationsEndInTheVeryBits) {
  uint64_t seed = 0;
  for (const Problem& problem : Problems()) {
    SCOPED_TRACE(absl::StrCat(problem.sparse ? "sparse" : "dense", ", staleness ", problem.staleness));
    Cluster first(problem, 2, ++seed);
    WholeCut middle;
    first.Train(3, [&] { middle = first.Cut(); });
    EXPECT_EQ(Replay(problem, middle), absl::OkStatus()) << "of the cut in the middle";
    EXPECT_EQ(Replay(problem, first.Cut()), absl::OkStatus()) << "of one generation";
    Cluster second(problem, 3, ++seed, &middle);
    second.Train(2);
    EXPECT_EQ(Replay(problem, second.Cut()), absl::OkStatus()) << "of two";
  }
}

TEST(Replay, RoundsEndInTheVeryBits) {
  for (bool sparse : {false, true}) {
    for (uint64_t staleness : {0, 2}) {
      Problem problem;
      problem.sparse = sparse;
      problem.apply_push = false;
      problem.staleness = staleness;
      SetAdam(&problem.optimizer);
      Cluster cluster(problem, 2, 5);
      cluster.Train(3);
      const WholeCut cut = cluster.Cut();
      EXPECT_EQ(Replay(problem, cut), absl::OkStatus());
      // Somebody was missing, says the order of one block: its bits are others.
      WholeCut other = cut;
      BlockOrder order;
      order.kind = OrderKind::kRound;
      order.rounds = {{Clock(3), {Rank(1)}}, {Clock(4), {Rank(0), Rank(2)}}};
      other.begin()->second.image.order = EncodeOrder(order);
      EXPECT_FALSE(Replay(problem, other).ok());
    }
  }
}

// Rounds that closed without somebody, made by hand on a store of the other side.
TEST(Replay, RoundsThatLackedRanks) {
  Problem problem;
  problem.apply_push = false;
  problem.staleness = 0;
  SetAdam(&problem.optimizer);
  const StoreOptions options = problem.Node(1, 0).store;
  auto store = *BlockStore::Create(options);
  auto model = problem.Make();
  Source source(problem);
  OrderLog log(kRanks, static_cast<uint32_t>(store->dense_blocks().size()), 0, false);
  for (uint64_t clock = 0; clock < kClocks; ++clock) {
    std::vector<AlignedFloats> parameters(options.tensors.size()), gradient(options.tensors.size());
    std::vector<const float*> from;
    std::vector<float*> to;
    for (size_t t = 0; t < options.tensors.size(); ++t) {
      parameters[t].Resize(options.tensors[t].elements());
      gradient[t].Resize(options.tensors[t].elements());
      from.push_back(parameters[t].data());
      to.push_back(gradient[t].data());
    }
    for (BlockId id : store->dense_blocks()) {
      store->Read(id, clock)->CopyTo(parameters[id.tensor.value].data() + problem.geometry.block_begin(id.index));
    }
    std::vector<Rank> missing;
    if (clock % 3 != 0) missing.push_back(Rank(static_cast<uint32_t>(clock % kRanks)));
    double total = 0;
    for (uint32_t rank = 0; rank < kRanks; ++rank) {
      const auto batch = *source.Get(Rank(rank), Clock(clock));
      if (batch->rows == 0 || (!missing.empty() && missing[0] == Rank(rank))) continue;
      total += model->Gradient(*batch, from, absl::MakeSpan(to)).weight;
      for (BlockId id : store->dense_blocks()) {
        const size_t n = problem.geometry.block_size(options.tensors[id.tensor.value], id.index);
        const float* values = gradient[id.tensor.value].data() + problem.geometry.block_begin(id.index);
        auto copy = std::make_shared<std::vector<float>>(values, values + n);
        Payload payload;
        payload.Append(copy->data(), n * sizeof(float), copy);
        ASSERT_TRUE(store->Hold(id, Rank(rank), 1, payload).ok());
      }
    }
    uint32_t block = 0;
    for (BlockId id : store->dense_blocks()) {
      ASSERT_TRUE(store->Commit(id, total, nullptr).ok());
      log.OnRound(block++, Clock(clock), missing);
    }
  }
  WholeCut cut;
  uint32_t block = 0;
  for (BlockId id : store->dense_blocks()) {
    cut[id].image = *store->Export(id, true);
    cut[id].image.order = log.Image(block++, kClocks);
  }
  EXPECT_EQ(Replay(problem, cut), absl::OkStatus());
  for (auto& [id, record] : cut) record.image.order = "R";
  EXPECT_EQ(Replay(problem, cut).code(), absl::StatusCode::kUnknown) << "with all ranks it is another run";
}

// Each change to an order is one that a run could not have had, or gives other bits.
TEST(Replay, AnotherOrderIsFoundOut) {
  Problem problem = Problems()[0];
  Cluster cluster(problem, 2, 77);
  cluster.Train(3);
  const WholeCut cut = cluster.Cut();
  ASSERT_EQ(Replay(problem, cut), absl::OkStatus());
  const auto changed = [&](const std::function<void(std::vector<BlockOrder::Entry>*)>& change) {
    WholeCut other = cut;
    std::string& bytes = other.begin()->second.image.order;
    BlockOrder order = *DecodeOrder(bytes, kRanks);
    change(&order.entries);
    bytes = EncodeOrder(order);
    return Replay(problem, other);
  };
  using Entries = std::vector<BlockOrder::Entry>;
  const absl::Status swapped = changed([](Entries* e) { std::swap((*e)[40], (*e)[41]); });
  EXPECT_FALSE(swapped.ok());
  EXPECT_FALSE(changed([](Entries* e) { e->erase(e->begin() + 30); }).ok());
  EXPECT_FALSE(changed([](Entries* e) { (*e)[50].rank = Rank(((*e)[50].rank.value + 1) % kRanks); }).ok());
  const absl::Status first_last = changed([](Entries* e) { std::rotate(e->begin(), e->end() - 1, e->end()); });
  EXPECT_EQ(first_last.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(first_last.message(), HasSubstr("the recorded order contradicts itself: after 0 of"));
  EXPECT_THAT(first_last.message(), HasSubstr("which stands at 0"));
}

}  // namespace
}  // namespace descent
