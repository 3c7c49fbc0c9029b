// The file in which a coordinator makes its primaries and backups lasting (v1::ReplicaViews, with its CRC-32C as four
// bytes, little-endian, in front). Replaced as a whole, never torn. Thread-safety: that of the storage.
//
// Adoption. A coordinator that takes over in generation g+1 goes on with what servers hold of generation g. It makes
// its own views lasting before it tells any server of them; the views of g stay beside them (`before`) until every
// primary has said that it holds its blocks in g+1, and the file without them lasts before a worker is placed in g+1.
// So should this coordinator die in between, the next one finds some servers with seats of g and others with seats of
// g+1, and believes both, each by the views of its own generation. Why that loses nothing that anybody was told:
//   * In g+1 nothing has been acknowledged or read: workers were not placed in it, and a server that has gone over to
//     g+1 refuses requests of g and has closed their connections, replies that it held included.
//   * What was acknowledged or read in g is held by each primary of g in a view that is no older than the lasting one,
//     and by its backup where that view lasts as synced, as ever. A seat of g+1 has its state from one of these:
//     carried over, promoted, or sent as images.
//   * A primary of g that was absent while its backup was promoted in g+1 is no danger: the two can differ only in what
//     nobody was told, and that is so until g+1 runs, when the file names g no more.
// The same holds for a chain of adoptions of which none has run; their views are all kept, newest first.
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
