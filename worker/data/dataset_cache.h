// The shards of one data set in the cache folder that all data sets of a host share:
//   files/   what is known of data files (file_fingerprint.h)
//   locks/   ID.use, held shared by whoever has the data set open; ID.build, held by whoever makes its shards
//   sets/ID/ manifest, 000000.shard, ...; in work as sets/ID.building, renamed when whole
// ID is a hash of the files' contents and of how they are parsed. Over its budget the folder loses the data set that
// was opened longest ago and that nobody has open. Thread-safe between processes; within one, callers serialise.
#ifndef DESCENT_WORKER_DATA_DATASET_CACHE_H_
#define DESCENT_WORKER_DATA_DATASET_CACHE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/files/file_lock.h"
#include "worker/data/dataset.h"
#include "worker/data/shard.h"

namespace descent {

struct DatasetManifest {
  struct Shard {
    uint32_t rows = 0;
    uint64_t bytes = 0;
    uint32_t crc32c = 0;
  };
  ShardShape shape;
  std::vector<DataFileInfo> files;  // without names, which may differ between jobs
  std::vector<Shard> shards;
  std::vector<DataColumn> columns;  // of CSV
};

class DatasetCache {
 public:
  // The folder where FingerprintFile may remember; made with the rest of the cache folder.
  static absl::StatusOr<std::string> Prepare(const std::string& folder);
  static uint64_t IdOf(absl::string_view description);

  // `description` says all that decides the shards' contents. Waits while another process evicts this data set.
  static absl::StatusOr<std::unique_ptr<DatasetCache>> Open(const std::string& folder, const std::string& description,
                                                            uint64_t budget_bytes);

  // NOT_FOUND: the shards are not there yet, or the manifest is damaged.
  absl::StatusOr<DatasetManifest> Load() const;
  absl::StatusOr<std::shared_ptr<const Shard>> ReadShard(uint32_t index) const;

  // Held while shards are made. DEADLINE_EXCEEDED names a holder that has shown no progress for two minutes.
  absl::StatusOr<std::unique_ptr<FileLock>> LockBuild() const;
  // The following under that lock. RESOURCE_EXHAUSTED: over the budget, with nothing left to evict; or the disk is
  // full.
  absl::Status BeginBuild();
  absl::Status Put(uint32_t index, const Shard& shard);
  absl::Status Commit(const DatasetManifest& manifest);
  void AbandonBuild();
  absl::Status ReplaceShard(uint32_t index, const Shard& shard);

  uint64_t id() const { return id_; }
  std::string ShardPath(uint32_t index) const;

 private:
  struct Other {
    int64_t used;
    std::string name;
    uint64_t bytes;
  };
  DatasetCache(std::string folder, std::string description, uint64_t budget_bytes);
  std::string Name() const;
  std::string Building() const;
  absl::Status MakeRoom();
  bool Evict(const std::string& name) const;

  const std::string folder_;
  const std::string description_;
  const uint64_t budget_bytes_;
  const uint64_t id_;
  std::unique_ptr<FileLock> in_use_;
  std::vector<Other> others_;  // the one opened longest ago last
  uint64_t others_bytes_ = 0;
  uint64_t own_bytes_ = 0;
};

}  // namespace descent

#endif  // DESCENT_WORKER_DATA_DATASET_CACHE_H_
