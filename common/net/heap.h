// Heap settings for a process that moves large messages. Called first thing in a main, never by a library: it changes
// the whole process.
#ifndef DESCENT_COMMON_NET_HEAP_H_
#define DESCENT_COMMON_NET_HEAP_H_

#include <malloc.h>

#include <climits>

namespace descent {

// glibc gives large buffers back to the system when they are freed, so every message of a megabyte faults its pages
// anew; a copy into fresh pages runs at a tenth of the speed of one into warm memory. Keeps what was once allocated.
// One arena, because gRPC's threads would otherwise take large blocks from arenas of their own, which these settings do
// not reach.
inline void KeepHeap() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  mallopt(M_TOP_PAD, 64 << 20);
  mallopt(M_ARENA_MAX, 1);
}

}  // namespace descent

#endif  // DESCENT_COMMON_NET_HEAP_H_
