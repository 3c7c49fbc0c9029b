// Who takes the images of one cut of a server: writes them to a part file, or keeps them.
//
// A cut is the state of all blocks and slots of a server at one moment. Training goes on meanwhile: dense blocks are
// images by reference, and a slot is imaged before the first step that comes after the moment, or when the owner has
// time for it (ServerNode::PumpCut).
#ifndef DESCENT_SERVER_NODE_CUT_SINK_H_
#define DESCENT_SERVER_NODE_CUT_SINK_H_

#include <cstdint>
#include <vector>

#include "server/store/block_store.h"

namespace descent {

// Takes each block and slot of the server exactly once, in no order, then Done. Called on the node's thread; must not
// block nor call the node. Let go of without Done: there is no memory for the images, or the node goes away first.
class CutSink {
 public:
  virtual ~CutSink() = default;
  // `marks`: per rank, the next clock that the block expects. The payload may be released on any thread.
  virtual void Add(BlockExport image, std::vector<uint64_t> marks) = 0;
  virtual void Done() = 0;
  // The cut is one of all servers: where the order of pushes is recorded, reads wait until DropCut, so that nothing
  // that another server's part holds was computed from what is later than this part.
  virtual bool of_all_servers() const { return true; }
};

}  // namespace descent

#endif  // DESCENT_SERVER_NODE_CUT_SINK_H_
