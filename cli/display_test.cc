#include "cli/display.h"

#include <string>

#include "gtest/gtest.h"

namespace descent {
namespace {

Display::Options Into(std::string* out, bool terminal) {
  Display::Options options;
  options.terminal = terminal;
  options.width = [] { return size_t{40}; };
  options.write = [out](absl::string_view text) { out->append(text.data(), text.size()); };
  return options;
}

TEST(Display, TerminalRedrawsInPlaceBelowTheMessages) {
  std::string out;
  {
    Display display(Into(&out, true));
    display.Message("first");
    const absl::Time now = absl::UnixEpoch();
    display.Live(now, [](size_t width) { return "live " + std::to_string(width); });
    display.Live(now, [](size_t width) { return "live " + std::to_string(width); });
    display.Message("second");
  }
  EXPECT_EQ(out, "first\n\r\x1b[Klive 39\r\x1b[Ksecond\nlive 39\r\x1b[K");
}

TEST(Display, ElsewhereAPlainLineEveryFewSeconds) {
  std::string out;
  Display display(Into(&out, false));
  const absl::Time start = absl::UnixEpoch();
  int line = 0;
  for (int tenth = 0; tenth < 120; ++tenth) {
    display.Live(start + absl::Milliseconds(100) * tenth, [&line](size_t width) {
      EXPECT_EQ(width, 0u);
      return std::to_string(++line);
    });
  }
  display.Message("end");
  EXPECT_EQ(out, "1\n2\n3\nend\n");
}

}  // namespace
}  // namespace descent
