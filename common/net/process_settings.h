// Settings for a process that moves large messages. Called first thing in a main, never by a library: they change the
// whole process.
#ifndef DESCENT_COMMON_NET_PROCESS_SETTINGS_H_
#define DESCENT_COMMON_NET_PROCESS_SETTINGS_H_

#include <malloc.h>

#include <climits>

#include "absl/synchronization/mutex.h"

namespace descent {

inline void TuneProcess() {
  // glibc gives large buffers back to the system when they are freed, so every message of a megabyte faults its pages
  // anew; a copy into fresh pages runs at a tenth of the speed of one into warm memory. Keeps what was once allocated.
  // One arena, because gRPC's threads would otherwise take large blocks from arenas of their own, which these settings
  // do not reach.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  mallopt(M_TOP_PAD, 64 << 20);
  mallopt(M_ARENA_MAX, 1);
  // Abseil built without NDEBUG, as Debian's is, keeps a graph of all locks to find deadlocks, at every lock.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace descent

#endif  // DESCENT_COMMON_NET_PROCESS_SETTINGS_H_
