// What `descent curvature` does: a saved model and the training data of its job, made into the objective in double, and
// probed (worker/curvature/curvature.h).
//
// Thread-safe.
#ifndef DESCENT_CLI_CURVATURE_PROBE_H_
#define DESCENT_CLI_CURVATURE_PROBE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/curvature/curvature.h"

namespace descent {

struct CurvatureProbe {
  std::string model;              // the folder
  std::string data_root;          // in the place of the job's; empty: as the job says
  std::vector<std::string> sets;  // overrides of the job that the model holds
  uint64_t rows = 0;              // of the training data, evenly spaced; 0: all
  std::string user_cache;         // where data shards are kept unless the job says so
  CurvatureOptions options;
};

struct CurvatureReport {
  CurvatureProbe probe;
  uint64_t parameters = 0;            // that are trained
  uint64_t rows = 0, train_rows = 0;  // taken, and there are; 0: the model reads no data
  double l2 = 0;
  Curvature curvature;
};

// Errors of the saved model and the data. INVALID_ARGUMENT: what the probe can't do with this model or job (a sparse
// table, a custom model, dropout, a penalty that has no gradient), or overrides that make no job. FAILED_PRECONDITION:
// the data are not those of the model; the objective is not finite.
absl::StatusOr<CurvatureReport> ProbeCurvature(const CurvatureProbe& probe);

// For people, in lines; and as one JSON object.
std::string CurvatureText(const CurvatureReport& report);
std::string CurvatureJson(const CurvatureReport& report);

}  // namespace descent

#endif  // DESCENT_CLI_CURVATURE_PROBE_H_
