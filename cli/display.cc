#include "cli/display.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace descent {
namespace {

constexpr absl::string_view kClearLine = "\r\x1b[K";

void WriteOut(absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nobody reads: the run goes on
    text.remove_prefix(static_cast<size_t>(written));
  }
}

size_t TerminalWidth() {
  struct winsize size;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

Display Display::StandardOutput(bool plain) {
  Options options;
  options.terminal = !plain && isatty(STDOUT_FILENO) == 1;
  options.width = TerminalWidth;
  options.write = WriteOut;
  return Display(std::move(options));
}

void Display::Message(absl::string_view line) {
  options_.write(absl::StrCat(live_.empty() ? "" : kClearLine, line, "\n", live_));
}

void Display::Live(absl::Time now, const std::function<std::string(size_t)>& render, bool news) {
  if (!options_.terminal) {
    if (!news && now - last_plain_ < options_.plain_interval) return;
    last_plain_ = now;
    options_.write(absl::StrCat(render(0), "\n"));
    return;
  }
  // The last column stays free: some terminals wrap as soon as it is written.
  const size_t width = options_.width();
  std::string line = render(width > 1 ? width - 1 : 1);
  if (line == live_) return;
  options_.write(absl::StrCat(kClearLine, line));
  live_ = std::move(line);
}

void Display::EndLive() {
  if (live_.empty()) return;
  live_.clear();
  options_.write(kClearLine);
}

}  // namespace descent
