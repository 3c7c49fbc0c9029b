#include "worker/loop/worker_main.h"

int main(int argc, char** argv) { return descent::WorkerMain(argc, argv, {}); }
