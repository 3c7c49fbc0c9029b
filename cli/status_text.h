// The cluster's status as text for people. Pure; thread-safe.
#ifndef DESCENT_CLI_STATUS_TEXT_H_
#define DESCENT_CLI_STATUS_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "descent/v1/coordinator.pb.h"

namespace descent {

// One line of at most `width` characters (0: any): while training "epoch 1.5/10 | round 700/4690 | loss 0.4123 | ...",
// before it the coordinator's word on who is missing. Parts of least interest go first where it is narrow.
std::string StatusLine(const v1::StatusReply& status, size_t width);

// Several lines: what `descent status` prints.
std::string StatusReport(const v1::StatusReply& status);

std::string PhaseName(v1::Phase phase);         // "running"
std::string Rate(double per_second);            // "951", "12.3k", "4.56M"
std::string Bytes(double bytes);                // "951 B", "12.3 kB", "4.56 MB"
std::string Duration(double seconds);           // "0:42", "1:02:03"
std::string Printable(absl::string_view text);  // control characters as blanks: it came from elsewhere

}  // namespace descent

#endif  // DESCENT_CLI_STATUS_TEXT_H_
