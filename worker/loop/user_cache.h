// Where a user's caches are, by the XDG Base Directory Specification. Pure: `main` hands the environment in.
#ifndef DESCENT_WORKER_LOOP_USER_CACHE_H_
#define DESCENT_WORKER_LOOP_USER_CACHE_H_

#include <functional>
#include <string>

namespace descent {

// Descent's folder there: in $XDG_CACHE_HOME, or else in $HOME/.cache, or else one in $TMPDIR, or else in /tmp.
// `environment`: getenv(3), or what stands in for it; a variable that is empty is not set.
inline std::string UserCacheDir(const std::function<const char*(const char*)>& environment) {
  const auto value = [&](const char* variable) {
    const char* const found = environment(variable);
    return std::string(found == nullptr ? "" : found);
  };
  if (const std::string caches = value("XDG_CACHE_HOME"); !caches.empty()) return caches + "/descent";
  if (const std::string home = value("HOME"); !home.empty()) return home + "/.cache/descent";
  const std::string temporary = value("TMPDIR");
  return (temporary.empty() ? "/tmp" : temporary) + "/descent-cache";
}

}  // namespace descent

#endif  // DESCENT_WORKER_LOOP_USER_CACHE_H_
