// A Storage that is the checkpoint folder of the coordinator's host, through its CheckpointStore: what a server needs
// to write its part of a cut and to read cuts back. Part files only are made; a file lasts with Sync, name and all.
// Renaming, removing, making folders and durable small files are the coordinator's: UNIMPLEMENTED.
//
// Thread-safe as Storage says. UNAVAILABLE, DEADLINE_EXCEEDED: the coordinator does not answer.
#ifndef DESCENT_SERVER_RPC_REMOTE_STORAGE_H_
#define DESCENT_SERVER_RPC_REMOTE_STORAGE_H_

#include <memory>
#include <string>

#include "common/storage/storage.h"

namespace descent {

std::unique_ptr<Storage> MakeRemoteStorage(const std::string& coordinator);

}  // namespace descent

#endif  // DESCENT_SERVER_RPC_REMOTE_STORAGE_H_
