// experiment_worker: descent_worker with the experiments' own models.
#include <cstdlib>

#include "tests/experiments/models/models.h"
#include "worker/loop/user_cache.h"
#include "worker/loop/worker_main.h"

int main(int argc, char** argv) {
  return descent::WorkerMain(argc, argv, descent::ExperimentModels(), descent::UserCacheDir(std::getenv));
}
