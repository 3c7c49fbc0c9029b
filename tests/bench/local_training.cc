// The peer that distribution is measured against: the same model, batches and update rule in one process, with threads
// in the place of workers and no server. Each thread computes the gradients of its ranks; one sum and one step per
// clock.
//
//   local_training JOB --threads 2 [--clocks 400]     prints examples per second
#include <CLI/CLI.hpp>
#include <barrier>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "common/job/job.h"
#include "common/job/learning_rate_schedule.h"
#include "common/net/process_settings.h"
#include "common/tensor/initial_value.h"
#include "server/store/update_rule.h"
#include "worker/data/batch_plan.h"
#include "worker/data/dataset.h"
#include "worker/data/prefetcher.h"
#include "worker/loop/gradient_sum.h"
#include "worker/models/model_factory.h"

namespace descent {
namespace {

struct Worker {
  std::unique_ptr<Model<float>> model;
  std::unique_ptr<Prefetcher> batches;
  GradientSum sum, scratch;
};

int Run(const std::string& path, const std::vector<std::string>& set, uint32_t threads, uint64_t clocks) {
  auto job = ReadJobFile(path);
  if (!job.ok()) return std::fprintf(stderr, "%s\n", std::string(job.status().message()).c_str()), 2;
  for (const std::string& s : set) {
    if (auto status = OverrideJob(s, &*job); !status.ok()) {
      return std::fprintf(stderr, "%s\n", std::string(status.message()).c_str()), 2;
    }
  }
  if (auto status = ResolveJob(1, threads, "/", &*job); !status.ok()) return 2;
  auto needs = NeedsOf(job->model());
  DatasetOptions options;
  options.root = job->data().root();
  options.labels = needs->labels;
  options.classes = needs->classes;
  auto data = Dataset::Open(job->data().train(), options);
  if (!data.ok()) return std::fprintf(stderr, "%s\n", std::string(data.status().message()).c_str()), 1;
  ModelInput input;
  input.features = (*data)->features();
  input.sparse = (*data)->sparse();

  std::vector<Worker> workers(threads);
  for (Worker& w : workers) {
    BatchPlanOptions plan;
    plan.seed = job->seed();
    plan.ranks = job->ranks();
    plan.batch_size = job->batch_size();
    for (uint32_t s = 0; s <= (*data)->shards(); ++s) plan.shard_begin.push_back((*data)->shard_begin(s));
    w.model = std::move(*MakeModel<float>(job->model(), input, {}));
    w.batches = std::make_unique<Prefetcher>(data->get(), BatchPlan::Create(plan));
    LayOut(w.model->tensors(), &w.sum);
    LayOut(w.model->tensors(), &w.scratch);
  }
  const std::vector<TensorSpec> tensors = workers[0].model->tensors();
  auto rule = UpdateRule::Make(job->optimizer());
  const LearningRateSchedule schedule(*job, ClocksPerEpoch(*job, (*data)->rows()));
  GradientSum parameters;
  LayOut(tensors, &parameters);
  std::vector<std::vector<AlignedFloats>> state((*rule)->state_slots());
  for (size_t t = 0; t < tensors.size(); ++t) {
    InitialDense(job->seed(), TensorId(t), tensors[t], 0, absl::MakeSpan(parameters.dense[t], tensors[t].elements()));
    for (size_t s = 0; s < state.size(); ++s) {
      state[s].emplace_back().Resize(tensors[t].elements());
      std::fill_n(state[s][t].data(), tensors[t].elements(), (*rule)->initial_state(static_cast<int>(s)));
    }
  }

  std::barrier barrier(threads);
  const uint32_t ranks = job->ranks();
  absl::Time began;
  const uint64_t warm = clocks / 10;
  double examples = 0;
  std::vector<std::thread> pool;
  for (uint32_t id = 0; id < threads; ++id) {
    pool.emplace_back([&, id] {
      Worker& w = workers[id];
      const uint32_t first = id * ranks / threads, last = (id + 1) * ranks / threads;
      const std::vector<const float*> read(parameters.dense.begin(), parameters.dense.end());
      for (uint64_t clock = 0; clock < clocks; ++clock) {
        if (id == 0 && clock == warm) {
          began = absl::Now();
          examples = 0;
        }
        double weight = 0;
        for (uint32_t r = first; r < last; ++r) {
          for (uint64_t ahead = 1; ahead <= 2; ++ahead) w.batches->Request(Rank(r), Clock(clock + ahead));
          auto batch = w.batches->Get(Rank(r), Clock(clock));
          GradientSum& into = r == first ? w.sum : w.scratch;
          weight += w.model->Gradient(**batch, read, absl::MakeSpan(into.dense)).weight;
          if (r == first) continue;
          for (size_t i = 0; i < w.sum.values.size(); ++i) w.sum.values[i] += w.scratch.values[i];
        }
        w.sum.weight.assign(1, weight);
        barrier.arrive_and_wait();
        double total = 0;
        for (const Worker& other : workers) total += other.sum.weight[0];
        // Each thread steps its share of every tensor on the sum of all.
        for (size_t t = 0; t < tensors.size(); ++t) {
          const uint64_t n = tensors[t].elements(), begin = n * id / threads, end = n * (id + 1) / threads;
          float* g = workers[0].sum.dense[t] + begin;
          for (uint32_t o = 1; o < threads; ++o) {
            const float* other = workers[o].sum.dense[t] + begin;
            for (uint64_t i = 0; i < end - begin; ++i) g[i] += other[i];
          }
          std::vector<float*> slots;
          for (auto& s : state) slots.push_back(s[t].data() + begin);
          (*rule)->Apply({clock + 1, schedule.At(clock), static_cast<float>(1 / total), 0}, end - begin,
                         parameters.dense[t] + begin, parameters.dense[t] + begin, slots.data(), g);
        }
        if (id == 0) examples += total;
        barrier.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : pool) thread.join();
  std::printf("%.0f\n", examples / absl::ToDoubleSeconds(absl::Now() - began));
  return 0;
}

}  // namespace
}  // namespace descent

int main(int argc, char** argv) {
  descent::TuneProcess();
  std::string job;
  std::vector<std::string> set;
  uint32_t threads = 2;
  uint64_t clocks = 400;
  CLI::App app("One process, several threads, no server: what distribution is measured against.");
  app.add_option("job", job)->required();
  app.add_option("--set", set);
  app.add_option("--threads", threads);
  app.add_option("--clocks", clocks);
  CLI11_PARSE(app, argc, argv);
  return descent::Run(job, set, threads, clocks);
}
