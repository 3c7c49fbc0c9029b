// The wire, measured in one run against raw sockets: the real server in a process of its own and the real client, over
// a local socket and over TCP on the loopback: dense push, pull and fused exchange, sparse keys per second, and the
// round rate of a tiny model. Prints markdown. Takes about two minutes; run it on an idle machine.
//
//   wire_bench [--seconds=S per figure, 0.7] [--only=dense|sparse|rounds] [--bytes=N: that dense model alone]
//              [--what=push|pull|fused: that alone]
//
// GB/s are bytes of payload, both directions added, divided by wall time, and raw sockets move the same bytes in the
// same directions. The ratio is to raw TCP. A figure is the median of nine slices of its time; what is compared runs
// one right after the other.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/net/grpc_client_transport.h"
#include "common/net/process_settings.h"
#include "common/random/philox.h"
#include "tests/bench/raw_stream.h"
#include "tests/bench/wire_bench_server.h"
#include "worker/client/parameter_client.h"

extern char** environ;

namespace descent::bench {
namespace {

double g_seconds = 0.7;
uint64_t g_bytes = 0;
std::string g_what;

// Bytes of payload, in and out, and how many of them one side has copied.
struct Moved {
  uint64_t bytes = 0, copied = 0;
  double CopiesSince(const Moved& before) const {
    return static_cast<double>(copied - before.copied) / static_cast<double>(bytes - before.bytes);
  }
};

// This program again, in another role: its port is on its standard output, and it ends with its standard input.
class Child {
 public:
  explicit Child(std::vector<std::string> arguments) {
    int in[2], out[2];
    DESCENT_CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    std::vector<char*> argv = {const_cast<char*>("wire_bench")};
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    DESCENT_CHECK(posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv.data(), environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    end_ = in[1];
    lines_ = fdopen(out[0], "r");
    int port = 0;
    DESCENT_CHECK(std::fscanf(lines_, "%d", &port) == 1);
    port_ = static_cast<uint16_t>(port);
  }
  ~Child() {
    close(end_);
    std::fclose(lines_);
    int status;
    waitpid(pid_, &status, 0);
  }
  uint16_t port() const { return port_; }
  // Of a server with a model (ServeModel).
  Moved Ask() const {
    Moved moved;
    DESCENT_CHECK(write(end_, "?", 1) == 1 && std::fscanf(lines_, "%lu %lu", &moved.bytes, &moved.copied) == 2);
    return moved;
  }

 private:
  pid_t pid_ = 0;
  FILE* lines_ = nullptr;
  int end_ = -1;
  uint16_t port_ = 0;
};

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Calls per second of `f`: the median of nine slices, after a warm-up.
double Rate(const std::function<void()>& f) {
  double begin = Now();
  for (int i = 0; i < 3 || Now() - begin < g_seconds / 5; ++i) f();
  std::vector<double> rates;
  for (int slice = 0; slice < 9; ++slice) {
    begin = Now();
    int calls = 0;
    double spent = 0;
    do {
      f();
      ++calls;
      spent = Now() - begin;
    } while (spent < g_seconds / 9);
    rates.push_back(calls / spent);
  }
  std::sort(rates.begin(), rates.end());
  return rates[4];
}

// A server with this model and a client to it.
class Bench {
 public:
  Bench(const Model& model, bool local)
      : model_(model),
        server_({"--serve", absl::StrCat(model.dense_elements), absl::StrCat(model.sparse_dim),
                 absl::StrCat(model.ranks), model.adam ? "adam" : "sgd", local ? "local" : "tcp"}),
        transport_(MakeGrpcClientTransport({{absl::StrCat("127.0.0.1:", server_.port())}})) {
    ClientOptions options;
    options.envelope = model.envelope();
    options.tensors = model.tensors();
    options.geometry = model.geometry();
    options.map = model.map();
    client_ = ParameterClient::Create(options, transport_.get(), &time_);
    gradient_.resize(model.dense_elements, 1e-3f);
    parameters_.resize(model.dense_elements);
  }
  ~Bench() { client_.reset(); }

  ParameterClient& client() { return *client_; }
  Moved client_moved() const {
    const ClientStats stats = client_->stats();
    return {stats.payload_bytes_out + stats.payload_bytes_in, stats.payload_bytes_copied};
  }
  Moved server_moved() const { return server_.Ask(); }
  Clock clock() const { return clock_; }

  PushSpec Push(uint32_t rank) const {
    PushSpec push;
    push.rank = Rank(rank);
    push.incarnation = {Generation(1), 1};
    push.clock = clock_;
    push.read_clock = clock_;
    push.weight = {1};
    return push;
  }
  PullSpec Pull(Clock clock) const {
    PullSpec pull;
    pull.rank = Rank(0);
    pull.clock = clock;
    return pull;
  }
  PushSpec DensePush(uint32_t rank) const {
    PushSpec push = Push(rank);
    push.dense = {gradient_.data()};
    return push;
  }
  PullSpec DensePull(Clock clock) {
    PullSpec pull = Pull(clock);
    pull.dense = {parameters_.data()};
    return pull;
  }
  void Wait(Ticket ticket) {
    const absl::Status status = client_->Wait(ticket, absl::Now() + absl::Seconds(30));
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      std::exit(1);
    }
  }

  // One clock of all ranks, with or without the parameters that come of it.
  void Round(bool pull) {
    std::vector<Ticket> tickets;
    for (uint32_t rank = 0; rank < model_.ranks; ++rank) {
      std::optional<PullSpec> wanted;
      if (pull && rank == 0) wanted = DensePull(Clock(clock_.value + 1));
      tickets.push_back(client_->Exchange(DensePush(rank), wanted));
    }
    for (Ticket ticket : tickets) Wait(ticket);
    ++clock_;
  }
  void PullOnly() { Wait(client_->Exchange(std::nullopt, DensePull(clock_))); }
  void Advance() { ++clock_; }

 private:
  const Model model_;
  RealTimeSource time_;
  Child server_;
  std::unique_ptr<ClientTransport> transport_;
  std::unique_ptr<ParameterClient> client_;
  std::vector<float> gradient_, parameters_;
  Clock clock_;
};

std::string Size(uint64_t bytes) {
  return bytes >= (1 << 20) ? absl::StrCat(bytes >> 20, " MiB") : absl::StrCat(bytes >> 10, " KiB");
}

void Dense() {
  Child tcp_server({"--serve-raw", "tcp"}), unix_server({"--serve-raw", "unix"});
  RawClient tcp(RawKind::kTcp, tcp_server.port()), local(RawKind::kUnix, unix_server.port());
  std::printf(
      "| model | rule, ranks | what | raw TCP | raw Unix | Descent, TCP | ratio | Descent, local | ratio | "
      "copies/byte: client | server |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const bool adam : {false, true}) {
    const uint32_t ranks = adam ? 2 : 1;
    for (const uint64_t bytes : {uint64_t{4} << 10, uint64_t{256} << 10, uint64_t{4} << 20, uint64_t{64} << 20}) {
      if (g_bytes != 0 && bytes != g_bytes) continue;
      const Model model{.dense_elements = bytes / sizeof(float), .ranks = ranks, .adam = adam};
      Bench over_tcp(model, false), over_local(model, true);
      struct Kind {
        const char* name;
        uint64_t up, down;
        std::function<void(Bench&)> run;
      };
      const Kind kinds[] = {{"push", ranks * bytes, 0, [](Bench& b) { b.Round(false); }},
                            {"pull", 0, bytes, [](Bench& b) { b.PullOnly(); }},
                            {"fused exchange", ranks * bytes, bytes, [](Bench& b) { b.Round(true); }}};
      for (const Kind& kind : kinds) {
        if (!absl::StartsWith(kind.name, g_what)) continue;
        const double scale = static_cast<double>(kind.up + kind.down) * 1e-9;
        const double raw_tcp = Rate([&] { tcp.Exchange(kind.up, kind.down); }) * scale;
        const double ours_tcp = Rate([&] { kind.run(over_tcp); }) * scale;
        const double raw_local = Rate([&] { local.Exchange(kind.up, kind.down); }) * scale;
        const Moved client = over_local.client_moved(), server = over_local.server_moved();
        const uint64_t resends = over_local.client().stats().resends;
        const double ours_local = Rate([&] { kind.run(over_local); }) * scale;
        std::printf("| %s | %s, %u | %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f |\n",
                    Size(bytes).c_str(), adam ? "Adam" : "SGD", ranks, kind.name, raw_tcp, raw_local, ours_tcp,
                    ours_tcp / raw_tcp, ours_local, ours_local / raw_tcp, over_local.client_moved().CopiesSince(client),
                    over_local.server_moved().CopiesSince(server));
        std::fflush(stdout);
        if (const uint64_t now = over_local.client().stats().resends; now != resends) {
          std::printf("(%lu resends)\n", now - resends);
        }
      }
    }
  }
}

void Sparse(bool local) {
  constexpr size_t kKeys = 1 << 17;
  constexpr int kBatches = 8;
  std::printf(
      "\n| table, SGD, 1 rank, %s, %zu keys at a time of %zu | push M keys/s | pull M keys/s | fused M keys/s |\n"
      "|---|---|---|---|\n",
      local ? "local" : "TCP", kKeys, kKeys * kBatches);
  for (const uint32_t dim : {1u, 8u, 64u}) {
    Bench bench({.sparse_dim = dim}, local);
    const Geometry geometry = Model{}.geometry();
    std::vector<std::vector<uint64_t>> batches(kBatches);
    const RandomStream random(1, Purpose::kTest, dim, 0);
    for (int b = 0; b < kBatches; ++b) {
      for (size_t i = 0; i < kKeys; ++i) batches[b].push_back(random.Bits64(b * kKeys + i));
      std::sort(batches[b].begin(), batches[b].end(), [&](uint64_t x, uint64_t y) {
        return std::pair(geometry.slot(x), x) < std::pair(geometry.slot(y), y);
      });
      batches[b].erase(std::unique(batches[b].begin(), batches[b].end()), batches[b].end());
    }
    std::vector<float> gradient(kKeys * dim, 1e-3f), rows(kKeys * dim);
    int at = 0;
    const auto run = [&](bool push, bool pull) {
      const auto& keys = batches[at++ % kBatches];
      std::optional<PushSpec> pushed;
      std::optional<PullSpec> pulled;
      if (push) {
        pushed = bench.Push(0);
        pushed->sparse = {{TensorId(0), keys, gradient.data()}};
      }
      if (pull) {
        pulled = bench.Pull(Clock(bench.clock().value + (push ? 1 : 0)));
        pulled->sparse = {{TensorId(0), keys, rows.data()}};
      }
      bench.Wait(bench.client().Exchange(pushed, pulled));
      if (push) bench.Advance();
    };
    for (int b = 0; b < kBatches; ++b) run(true, false);  // the rows are there from now on
    const double push = Rate([&] { run(true, false); }), pull = Rate([&] { run(false, true); }),
                 fused = Rate([&] { run(true, true); });
    std::printf("| dim %u | %.2f | %.2f | %.2f |\n", dim, push * kKeys * 1e-6, pull * kKeys * 1e-6,
                fused * kKeys * 1e-6);
    std::fflush(stdout);
  }
}

void Rounds() {
  const Model model{.dense_elements = 256};
  Bench over_tcp(model, false), over_local(model, true);
  std::printf("\n1 KB model, SGD, 1 rank, push and pull, rounds/s: TCP %.0f, local %.0f\n",
              Rate([&] { over_tcp.Round(true); }), Rate([&] { over_local.Round(true); }));
}

int Main(int argc, char** argv) {
  TuneProcess();
  if (argc == 3 && std::strcmp(argv[1], "--serve-raw") == 0) {
    ServeRaw(std::strcmp(argv[2], "unix") == 0 ? RawKind::kUnix : RawKind::kTcp);
    return 0;
  }
  if (argc == 7 && std::strcmp(argv[1], "--serve") == 0) {
    ServeModel({.dense_elements = std::strtoull(argv[2], nullptr, 10),
                .sparse_dim = static_cast<uint32_t>(std::atoi(argv[3])),
                .ranks = static_cast<uint32_t>(std::atoi(argv[4])),
                .adam = std::strcmp(argv[5], "adam") == 0},
               std::strcmp(argv[6], "local") == 0);
    return 0;
  }
  std::string only;
  for (int i = 1; i < argc; ++i) {
    const absl::string_view argument = argv[i];
    if (absl::StartsWith(argument, "--seconds=")) {
      g_seconds = std::atof(argv[i] + 10);
    } else if (absl::StartsWith(argument, "--only=")) {
      only = argv[i] + 7;
    } else if (absl::StartsWith(argument, "--bytes=")) {
      g_bytes = std::strtoull(argv[i] + 8, nullptr, 10);
    } else if (absl::StartsWith(argument, "--what=")) {
      g_what = argv[i] + 7;
    } else {
      std::fprintf(
          stderr,
          "usage: wire_bench [--seconds=S] [--only=dense|sparse|rounds] [--bytes=N] [--what=push|pull|fused]\n");
      return 2;
    }
  }
  if (only.empty() || only == "dense") Dense();
  if (only.empty() || only == "sparse") {
    for (const bool local : {false, true}) Sparse(local);
  }
  if (only.empty() || only == "rounds") Rounds();
  return 0;
}

}  // namespace
}  // namespace descent::bench

int main(int argc, char** argv) { return descent::bench::Main(argc, argv); }
