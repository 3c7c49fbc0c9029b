// The program of a worker process: descent_worker is this with no models of its own; a user's worker binary is this
// with some (examples/custom_model).
#ifndef DESCENT_WORKER_LOOP_WORKER_MAIN_H_
#define DESCENT_WORKER_LOOP_WORKER_MAIN_H_

#include <string>

#include "worker/models/model_factory.h"

namespace descent {

// Parses the command line, takes part in a run until it ends, returns the process's exit status: 0 the job reached its
// end, 1 it failed, 2 usage, 128 + signal stopped. `user_cache`: where data shards are kept if neither the command line
// nor the job says so (UserCacheDir).
int WorkerMain(int argc, char** argv, const CustomModels& models, const std::string& user_cache);

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_WORKER_MAIN_H_
