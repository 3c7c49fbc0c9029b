// The file in which a coordinator makes its primaries and backups lasting (v1::ReplicaViews, with its CRC-32C as four
// bytes, little-endian, in front). Replaced as a whole, never torn. Thread-safety: that of the storage.
#ifndef DESCENT_SERVER_CHECKPOINT_REPLICA_VIEWS_FILE_H_
#define DESCENT_SERVER_CHECKPOINT_REPLICA_VIEWS_FILE_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/storage/storage.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

// Returns when it lasts. After an error the file holds what it held before, or this.
absl::Status WriteReplicaViews(Storage* storage, const v1::ReplicaViews& views);
// NOT_FOUND: none was written. DATA_LOSS: damaged.
absl::StatusOr<v1::ReplicaViews> ReadReplicaViews(Storage* storage);

}  // namespace descent

#endif  // DESCENT_SERVER_CHECKPOINT_REPLICA_VIEWS_FILE_H_
