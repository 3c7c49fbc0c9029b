// Where `descent run` writes: on a terminal a live line redrawn in place below the messages, elsewhere plain lines, the
// live line among them every few seconds. Not thread-safe.
#ifndef DESCENT_CLI_DISPLAY_H_
#define DESCENT_CLI_DISPLAY_H_

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace descent {

class Display {
 public:
  struct Options {
    bool terminal = false;
    std::function<size_t()> width = [] { return size_t{80}; };  // of the terminal, now
    std::function<void(absl::string_view)> write;               // takes all of it, at once
    absl::Duration plain_interval = absl::Seconds(5);
  };
  explicit Display(Options options) : options_(std::move(options)) {}
  // Standard output: a terminal or not.
  static Display StandardOutput(bool plain);
  ~Display() { EndLive(); }

  // A line that stays.
  void Message(absl::string_view line);
  // The live line. `render` is given the width there is, 0 for any. `news`: worth a plain line at once.
  void Live(absl::Time now, const std::function<std::string(size_t width)>& render, bool news = false);
  // Takes the live line away.
  void EndLive();
  bool terminal() const { return options_.terminal; }

 private:
  Options options_;
  std::string live_;
  absl::Time last_plain_ = absl::InfinitePast();
};

}  // namespace descent

#endif  // DESCENT_CLI_DISPLAY_H_
