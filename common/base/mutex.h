// The project's mutex: absl::Mutex, and std::mutex under ThreadSanitizer, which takes Debian's uninstrumented
// absl::Mutex for races. Annotated for clang's -Wthread-safety either way.
#ifndef DESCENT_COMMON_BASE_MUTEX_H_
#define DESCENT_COMMON_BASE_MUTEX_H_

#include "absl/base/thread_annotations.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#if defined(__SANITIZE_THREAD__)
#define DESCENT_TSAN_MUTEX 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DESCENT_TSAN_MUTEX 1
#endif
#endif

#ifdef DESCENT_TSAN_MUTEX
#include <algorithm>
#include <condition_variable>
#include <mutex>
#else
#include "absl/synchronization/mutex.h"
#endif

namespace descent {

class CondVar;

class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
#ifdef DESCENT_TSAN_MUTEX
    mu_.lock();
#else
    mu_.Lock();
#endif
  }
  void Unlock() ABSL_UNLOCK_FUNCTION() {
#ifdef DESCENT_TSAN_MUTEX
    mu_.unlock();
#else
    mu_.Unlock();
#endif
  }

 private:
  friend class CondVar;
#ifdef DESCENT_TSAN_MUTEX
  std::mutex mu_;
#else
  absl::Mutex mu_;
#endif
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) { mu_->Lock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mu_->Unlock(); }

 private:
  Mutex* const mu_;
};

class CondVar {
 public:
  // Returns after a signal, at the deadline, or for no reason: callers loop on their state.
  void WaitUntil(Mutex* mu, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
#ifdef DESCENT_TSAN_MUTEX
    std::unique_lock<std::mutex> lock(mu->mu_, std::adopt_lock);
    // In slices of an hour: chrono overflows on the infinite future.
    cv_.wait_until(lock, absl::ToChronoTime(std::min(deadline, absl::Now() + absl::Hours(1))));
    lock.release();
#else
    cv_.WaitWithDeadline(&mu->mu_, deadline);
#endif
  }
  void SignalAll() {
#ifdef DESCENT_TSAN_MUTEX
    cv_.notify_all();
#else
    cv_.SignalAll();
#endif
  }

 private:
#ifdef DESCENT_TSAN_MUTEX
  std::condition_variable cv_;
#else
  absl::CondVar cv_;
#endif
};

}  // namespace descent

#endif  // DESCENT_COMMON_BASE_MUTEX_H_
