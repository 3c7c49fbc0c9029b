#include <cstdlib>

#include "worker/loop/user_cache.h"
#include "worker/loop/worker_main.h"

int main(int argc, char** argv) { return descent::WorkerMain(argc, argv, {}, descent::UserCacheDir(std::getenv)); }
