#include "common/net/endpoint.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace descent {

std::string Endpoint::ToString() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  return ipv6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::StatusOr<Endpoint> ParseEndpoint(absl::string_view text, const Endpoint& defaults) {
  const auto wrong = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("address \"", text, "\": ", why, "; expected host:port"));
  };
  absl::string_view host = text;
  absl::string_view port;
  bool has_port = false;
  if (!text.empty() && text[0] == '[') {
    const size_t close = text.find(']');
    if (close == absl::string_view::npos) return wrong("no closing bracket");
    host = text.substr(1, close - 1);
    if (host.find(':') == absl::string_view::npos) return wrong("no IPv6 address between the brackets");
    const absl::string_view rest = text.substr(close + 1);
    if (!rest.empty()) {
      if (rest[0] != ':') return wrong("something other than a port behind the bracket");
      port = rest.substr(1);
      has_port = true;
    }
  } else if (std::count(text.begin(), text.end(), ':') == 1) {
    const size_t colon = text.find(':');
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    has_port = true;
  }
  Endpoint out = defaults;
  if (!host.empty()) {
    for (char c : host) {
      if (c <= ' ' || c == '/' || c == '[' || c == ']' || c == '@' || c == 0x7f) return wrong("no such host name");
    }
    out.host = std::string(host);
  }
  if (has_port) {
    // Digits alone: SimpleAtoi would take a sign and blanks.
    int number = 0;
    const bool digits = !port.empty() && port.size() <= 5 &&
                        std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!digits || !absl::SimpleAtoi(port, &number) || number > 65535) return wrong("the port is not in 0..65535");
    out.port = static_cast<uint16_t>(number);
  }
  if (out.host.empty()) return wrong("no host");
  return out;
}

}  // namespace descent
