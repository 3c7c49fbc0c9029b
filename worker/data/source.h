// The files a job names, and their rows as shards. Pure functions of the files; thread-safe.
#ifndef DESCENT_WORKER_DATA_SOURCE_H_
#define DESCENT_WORKER_DATA_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/data/dataset.h"
#include "worker/data/shard_cutter.h"

namespace descent::v1 {
class Csv;
class Dataset;
class Idx;
class Libsvm;
}  // namespace descent::v1

namespace descent {

struct SourceFile {
  std::string name;  // as the job names it
  std::string path;
};

// In the order they are read; patterns expanded, sorted. NOT_FOUND: a pattern without match. INVALID_ARGUMENT: the
// specification contradicts itself or the options.
absl::StatusOr<std::vector<SourceFile>> ListSource(const v1::Dataset& spec, const DatasetOptions& options);

// Everything that decides what the shards hold, but for the files themselves.
std::string DescribeParse(const v1::Dataset& spec, const DatasetOptions& options);

// Reads all files in order into the cutter, ended, and tells what they are. Memory: one shard and a few MiB.
absl::Status ParseSource(const v1::Dataset& spec, absl::Span<const SourceFile> files, const DatasetOptions& options,
                         ShardCutter* cutter, std::vector<DataFileInfo>* infos);

// The formats. Errors as Dataset::Open.
absl::Status ReadLibsvm(const v1::Libsvm& spec, absl::Span<const SourceFile> files, const DatasetOptions& options,
                        ShardCutter* cutter, std::vector<DataFileInfo>* infos);
absl::Status ReadCsv(const v1::Csv& spec, absl::Span<const SourceFile> files, const DatasetOptions& options,
                     ShardCutter* cutter, std::vector<DataFileInfo>* infos);
absl::Status ReadIdx(const v1::Idx& spec, absl::Span<const SourceFile> files, const DatasetOptions& options,
                     ShardCutter* cutter, std::vector<DataFileInfo>* infos);

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_SOURCE_H_
