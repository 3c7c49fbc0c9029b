// An exported block or slot as the messages that carry it. Pure.
#ifndef DESCENT_SERVER_RPC_BLOCK_IMAGES_H_
#define DESCENT_SERVER_RPC_BLOCK_IMAGES_H_

#include <vector>

#include "common/wire/codec.h"
#include "server/store/block_store.h"

namespace descent {

// BlockImage messages: a dense block in one, a slot's rows in as many as keep each payload within kMaxPayloadBytes (one
// row at least). `dim` is a table's, 0 for dense. The payloads share the export's owners.
std::vector<EncodedMessage> MakeBlockImages(const Envelope& envelope, const BlockExport& block, uint32_t dim,
                                            const std::vector<uint64_t>& marks);

}  // namespace descent

#endif  // DESCENT_SERVER_RPC_BLOCK_IMAGES_H_
