#include "worker/loop/user_cache.h"

#include <map>

#include "gtest/gtest.h"

namespace descent {
namespace {

TEST(UserCacheDir, IsTheFirstThatTheEnvironmentNames) {
  std::map<std::string, std::string> set = {{"XDG_CACHE_HOME", "/x"}, {"HOME", "/h"}, {"TMPDIR", "/t"}};
  const auto environment = [&](const char* variable) -> const char* {
    const auto it = set.find(variable);
    return it == set.end() ? nullptr : it->second.c_str();
  };
  EXPECT_EQ(UserCacheDir(environment), "/x/descent");
  set["XDG_CACHE_HOME"] = "";
  EXPECT_EQ(UserCacheDir(environment), "/h/.cache/descent");
  set.erase("HOME");
  EXPECT_EQ(UserCacheDir(environment), "/t/descent-cache");
  set.clear();
  EXPECT_EQ(UserCacheDir(environment), "/tmp/descent-cache");
}

}  // namespace
}  // namespace descent
